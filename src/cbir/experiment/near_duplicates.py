"""Queries whose picture is indexed too, but for a crop, a mirror, other colours or a new file.

What is found depends on the pictures alone, not on a descriptor, so that every index of the same
images leaves out the same queries. The search is coarse to fine: a signature of 8 x 8 pixels names
a few indexed pictures, and their details are then laid over each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.errors import QueryError
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
    done, total = 0, index.count()
    number_of = {query: number for number, query in enumerate(queries.ids)}
    found = np.zeros(len(number_of), dtype=np.bool_)
    with ThreadPoolExecutor(usable_cores()) as pool:
        plain = np.stack(list(pool.map(_small, queries.thumbnails)))
        asked = np.concatenate((plain, plain[:, :, ::-1]))
        signatures = _signatures(asked)
        best = np.full((len(asked), _CANDIDATES), _LEAST_LIKENESS, dtype=np.float32)
        for ids, thumbnails in _chunks(index):
            pictures = np.stack(list(pool.map(_small, thumbnails)))
            likeness, rows = _nearest(signatures, _signatures(pictures))
            itself = np.full(len(found), -2)
            for row, record_id in enumerate(ids):
                if record_id in number_of:
                    itself[number_of[record_id]] = row
            likeness[rows == np.tile(itself, 2)[:, None]] = -1
            best = np.sort(np.concatenate((best, likeness), axis=1))[:, -_CANDIDATES:]
            likely = likeness >= best[:, :1]
            open_yet = np.tile(~found, 2) & likely.any(axis=1)
            numbers = np.flatnonzero(open_yet).tolist()
            candidates = (pictures[rows[number][likely[number]]] for number in numbers)
            most = pool.map(_correlation, asked[numbers], candidates)
            for number, value in zip(numbers, most, strict=True):
                found[number % len(found)] |= value >= threshold
            done += len(ids)
            on_done(done, total)
    return found


def _chunks(index: Index) -> Iterator[tuple[list[str], list[bytes]]]:
    """Ids and thumbnails of the index, some at a time; records without a thumbnail are left out."""
    entries = ((each.record.id, each.thumbnail) for each in index.entries() if each.thumbnail)
    while some := list(islice(entries, _PICTURES_AT_ONCE)):
        yield [record_id for record_id, _ in some], [thumbnail for _, thumbnail in some]


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


def _nearest(signatures: Floats, of_pictures: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Likeness and rows of the nearest pictures of each signature, (n, `_CANDIDATES`)."""
    import faiss

    found = faiss.knn(signatures, of_pictures, _CANDIDATES, metric=faiss.METRIC_INNER_PRODUCT)
    likeness, rows = found  # where there are fewer pictures: the row -1, far below any likeness
    return likeness, rows


def _correlation(query: RgbImage, pictures: Pixels) -> float:
    """The greatest correlation of the query's details with those of one of the pictures."""
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
