"""Queries whose picture is indexed too, but for a crop, a mirror, other colours or a new file.

What is found depends on the pictures alone, not on a descriptor, so that every index of the same
images leaves out the same queries. The search is coarse to fine: a signature of 8 x 8 pixels names
a few indexed pictures, and their details are then laid over each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.errors import CbirError, ImageError, QueryError
from cbir.experiment.queries import Queries
from cbir.images.decode import decode
from cbir.index.base import Index
from cbir.machine import usable_cores
from cbir.types import OnDone, RgbImage

THRESHOLD = 0.85
"""The correlation of details from which two pictures are nearly the same."""

DOUBTFUL_SHARE = 0.2
"""Of photographs, far fewer are copies; pictures of little detail are taken for each other."""

_SIDE = 32
_CELLS = 8
_OVERLAID = 24  # pixels of the query's middle: the rest is room for shifts of 4 pixels
_SCALES = (0.9, 1.0, 1.1)
_BLUR = 3.0
_LEAST_CONTRAST = 1.0  # grey levels: less is the noise of a flat picture
_CANDIDATES = 5
_LEAST_LIKENESS = 0.7
_PICTURES_AT_ONCE = 1 << 14
_AT_ONCE = 64

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class NearDuplicates:
    """The ids of queries that are left out of `n_queries`, in their order, by what threshold."""

    ids: list[str]
    n_queries: int
    threshold: float = THRESHOLD

    @property
    def doubtful(self) -> bool:
        """Whether so many are left out that most of them can hardly be copies."""
        return len(self.ids) > DOUBTFUL_SHARE * self.n_queries

    def to_json(self) -> dict[str, Any]:
        """As in `cbir evaluate --json`."""
        return {
            "left_out": len(self.ids),
            "doubtful": self.doubtful,
            "threshold": self.threshold,
            "ids": self.ids,
        }


def leave_out(
    index: Index, queries: Queries, on_done: OnDone = lambda _done, _total: None
) -> tuple[Queries, NearDuplicates]:
    """The queries that have no near-duplicate in the index, and those that are left out.

    Raises `QueryError` where none is left.
    """
    found = near_duplicates(index, queries, on_done=on_done)
    kept = np.flatnonzero(~found).tolist()
    if not kept:
        raise QueryError(
            "every query has a near-duplicate in the index",
            "ask with other pictures, or without --without-near-duplicates",
        )
    left_out = NearDuplicates(
        [queries.ids[number] for number in np.flatnonzero(found)], len(queries.ids)
    )
    return queries.chosen(kept), left_out


def near_duplicates(
    index: Index,
    queries: Queries,
    threshold: float = THRESHOLD,
    *,
    on_done: OnDone = lambda _done, _total: None,
) -> NDArray[np.bool_]:
    """Whether nearly the same picture as the query's is indexed under another id, bool (q,).

    Both thumbnails are shrunk to 32 x 32 pixels. Candidates are the five indexed pictures that are
    nearest by the colours of 8 x 8 cells, five more for the mirrored query. The query's middle, at
    three scales, is then moved over each of them: what counts is the greatest normalised
    correlation of what is left of both pictures when a blurred copy is taken away, for skies and
    lawns are alike without being the same. A picture of hardly any contrast has no near-duplicate.
    Memory does not grow with the index.
    """
    count = len(queries.ids)
    found = np.zeros(count, dtype=np.bool_)
    with ThreadPoolExecutor(usable_cores()) as pool:
        plain = np.stack(_on_all_cores(pool, _small, queries.thumbnails))
        asked = np.concatenate((plain, plain[:, :, ::-1]))
        of_picture = _candidates(index, queries.ids, asked, pool, on_done)
        for done, ids, pictures in _pictures(index, pool):
            rows_of: dict[int, list[int]] = {}
            for row, record_id in enumerate(ids):
                for number in of_picture.get(record_id, ()):
                    if not found[number % count]:
                        rows_of.setdefault(number, []).append(row)
            laid = [(asked[number], pictures[rows]) for number, rows in rows_of.items()]
            most = _on_all_cores(pool, _correlation, laid)
            for number, value in zip(rows_of, most, strict=True):
                found[number % count] |= value >= threshold
            on_done(index.count() + done, 2 * index.count())
    return found


def _candidates(
    index: Index,
    queries: Sequence[str],
    asked: Pixels,
    pool: ThreadPoolExecutor,
    on_done: OnDone,
) -> dict[str, list[int]]:
    """Id of an indexed picture -> the numbers of those `asked` that it is a candidate for.

    `asked`: the queries, then the same mirrored. A query's own record is no candidate.
    """
    number_of = {query: number for number, query in enumerate(queries)}
    signatures = _signatures(asked)
    best = np.full((len(asked), _CANDIDATES), _LEAST_LIKENESS, dtype=np.float32)
    names = np.full(best.shape, "", dtype=object)
    for done, ids, pictures in _pictures(index, pool):
        likeness, rows = _nearest(signatures, _signatures(pictures), pool)
        itself = np.full(len(number_of), -2)
        for row, record_id in enumerate(ids):
            if record_id in number_of:
                itself[number_of[record_id]] = row
        likeness[rows == np.tile(itself, 2)[:, None]] = -1
        both = np.concatenate((best, likeness), axis=1)
        both_names = np.concatenate((names, np.array(ids, dtype=object)[rows]), axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :_CANDIDATES]
        best = np.take_along_axis(both, order, axis=1)
        names = np.take_along_axis(both_names, order, axis=1)
        on_done(done, 2 * index.count())
    of_picture: dict[str, list[int]] = {}
    for number, of_query in enumerate(names.tolist()):
        for record_id in filter(None, of_query):
            of_picture.setdefault(record_id, []).append(number)
    return of_picture


def _pictures(index: Index, pool: ThreadPoolExecutor) -> Iterator[tuple[int, list[str], Pixels]]:
    """How many images were passed, ids and small pictures, some at a time, in the order of ids.

    Records without a thumbnail are left out. Raises `CbirError` for one that cannot be read.
    """
    entries = ((each.record.id, each.thumbnail) for each in index.entries() if each.thumbnail)
    done = 0
    while some := list(islice(entries, _PICTURES_AT_ONCE)):
        done += len(some)
        pictures = np.stack(_on_all_cores(pool, _small_indexed, some))
        yield done, [record_id for record_id, _ in some], pictures


def _small_indexed(record: tuple[str, bytes]) -> RgbImage:
    record_id, data = record
    try:
        return _small(data)
    except ImageError as error:
        raise CbirError(
            f"the thumbnail of {record_id} cannot be read: {error.message}",
            "cbir verify says what else is damaged; index the picture again",
        ) from error


def _on_all_cores(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Made], items: Sequence[_Item]
) -> list[_Made]:
    """`work` of every item, in order; some of them at a time, as each is little work."""
    parts = [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
    return list(chain.from_iterable(pool.map(lambda part: [work(i) for i in part], parts)))


def _small(thumbnail: bytes) -> RgbImage:
    image = decode(thumbnail)
    if image.shape[:2] == (_SIDE, _SIDE):
        return image
    shrinks = min(image.shape[:2]) >= _SIDE
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small: RgbImage = cv2.resize(image, (_SIDE, _SIDE), interpolation=way)  # type: ignore[assignment]
    return small


def _signatures(pictures: Pixels) -> Floats:
    """Colours of 8 x 8 cells less the picture's own mean colour, as unit rows (n, 192)."""
    size = _SIDE // _CELLS
    cells = pictures.reshape(-1, _CELLS, size, _CELLS, size, 3).mean(axis=(2, 4), dtype=np.float32)
    rows = cells.reshape(len(pictures), -1, 3)
    rows = (rows - rows.mean(axis=1, keepdims=True)).reshape(len(pictures), -1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    least = _LEAST_CONTRAST * np.sqrt(rows.shape[1])
    return np.where(lengths < least, 0, rows / np.maximum(lengths, least)).astype(np.float32)


def _nearest(
    signatures: Floats, of_pictures: Floats, pool: ThreadPoolExecutor
) -> tuple[Floats, NDArray[np.int64]]:
    """Likeness and rows of the nearest pictures of each signature, (n, `_CANDIDATES`)."""
    import faiss

    def nearest(some: Floats) -> tuple[Floats, NDArray[np.int64]]:
        faiss.omp_set_num_threads(1)  # of this thread: every core has a part already
        found = faiss.knn(some, of_pictures, _CANDIDATES, metric=faiss.METRIC_INNER_PRODUCT)
        likeness, rows = found  # where there are fewer pictures: the row -1, far below any likeness
        return likeness, rows

    parts = list(pool.map(nearest, np.array_split(signatures, usable_cores())))
    return np.concatenate([part[0] for part in parts]), np.concatenate([p[1] for p in parts])


def _correlation(laid: tuple[RgbImage, Pixels]) -> float:
    """The greatest correlation of a query's details with those of one of the pictures."""
    query, pictures = laid
    middles = []
    for scale in _SCALES:
        side = round(_SIDE * scale)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        details = _details(cv2.resize(query, (side, side), interpolation=way))
        middle = _middle(details)
        if middle.std() >= _LEAST_CONTRAST:
            middles.append(middle)
    most = 0.0
    for picture in pictures:
        details = _details(picture)
        if _middle(details).std() >= _LEAST_CONTRAST:
            for middle in middles:
                values = cv2.matchTemplate(details, middle, cv2.TM_CCOEFF_NORMED)
                most = max(most, float(values.max()))
    return most


def _details(picture: NDArray[Any]) -> Floats:
    """The picture less a blurred copy of it."""
    values = picture.astype(np.float32)
    return values - cv2.GaussianBlur(values, (0, 0), _BLUR)


def _middle(details: Floats) -> Floats:
    start = (len(details) - _OVERLAID) // 2
    return details[start : start + _OVERLAID, start : start + _OVERLAID]
