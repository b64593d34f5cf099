"""Finds queries that are also indexed, perhaps cropped, mirrored, recoloured or re-encoded.

The result depends on the pictures alone, not on a descriptor, so every index of the same images
leaves out the same queries. The search is coarse to fine: edges select a few candidates, which
image registration then compares with the query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.hog import hog
from cbir.descriptors.local.opencv import cv2
from cbir.descriptors.local.registration import SIDE, most_alike
from cbir.errors import CbirError, ImageError, QueryError
from cbir.evaluation.queries import Queries
from cbir.images.decode import decode
from cbir.index.base import Index
from cbir.machine import usable_cores
from cbir.types import OnDone, RgbImage

THRESHOLD = 0.92
"""Registered pictures with at least this correlation are near-duplicates.

Lower values accept pictures that are merely similar; `python -m benchmarks near_duplicates`
measures the effect.
"""

DOUBTFUL_SHARE = 0.2
"""A larger share is unlikely: pictures with little detail were mistaken for each other."""

_CELL = 8
_BLUR = 1.0
_CANDIDATES = 5
_LEAST_LIKENESS = 0.78
_PICTURES_AT_ONCE = 1 << 13
_AT_ONCE = 64

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class NearDuplicates:
    """The ids of the queries left out, in order, of `n_queries`, and the threshold."""

    ids: list[str]
    n_queries: int
    threshold: float = THRESHOLD

    @property
    def doubtful(self) -> bool:
        """Whether so many queries are left out that most are unlikely to be copies."""
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
    """The queries without a near-duplicate in the index, and those that are left out.

    Raises `QueryError` if no query remains.
    """
    found = near_duplicates(index, queries, on_done=on_done)
    kept = np.flatnonzero(~found).tolist()
    if not kept:
        raise QueryError(
            "every query has a near-duplicate in the index",
            "use other queries, or omit --without-near-duplicates",
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
    """Whether each query has a near-duplicate in the index under another id, bool (q,).

    Thumbnails are shrunk to 32 x 32 pixels. Candidates are the five indexed pictures with the most
    similar edges (`hog` with cells of 8 x 8 pixels), and five for the mirrored query; `most_alike`
    decides. Records without a thumbnail are skipped. Memory does not grow with the index.
    """
    count = len(queries.ids)
    found = np.zeros(count, dtype=np.bool_)
    with ThreadPoolExecutor(usable_cores()) as pool:
        asked_for = list(zip(queries.ids, queries.thumbnails, strict=True))
        plain = np.stack(_on_all_cores(pool, _small_of, asked_for))
        asked = np.concatenate((plain, plain[:, :, ::-1]))
        of_picture = _candidates(index, queries.ids, asked, pool, on_done)
        for done, ids, pictures in _pictures(index, pool, of_picture.__contains__):
            rows_of: dict[int, list[int]] = {}
            for row, record_id in enumerate(ids):
                for number in of_picture[record_id]:
                    if not found[number % count]:
                        rows_of.setdefault(number, []).append(row)
            # Copied one query at a time: the pixels of all candidates would take much memory.
            items = [(asked[number], rows) for number, rows in rows_of.items()]
            most = _on_all_cores(pool, partial(_most_alike, pictures), items)
            for number, value in zip(rows_of, most, strict=True):
                found[number % count] |= value >= threshold
            on_done(index.count() + done, 2 * index.count())
    on_done(2 * index.count(), 2 * index.count())
    return found


def _most_alike(pictures: Pixels, item: tuple[RgbImage, list[int]]) -> float:
    query, rows = item
    return most_alike(query, pictures[rows])


def _candidates(
    index: Index,
    queries: Sequence[str],
    asked: Pixels,
    pool: ThreadPoolExecutor,
    on_done: OnDone,
) -> dict[str, list[int]]:
    """Id of an indexed picture -> the numbers of the `asked` pictures it is a candidate for.

    `asked`: the queries, then the mirrored queries. A query's own record is no candidate.
    """
    number_of = {query: number for number, query in enumerate(queries)}
    edges = _edges(asked, pool)
    best = np.full((len(asked), _CANDIDATES), _LEAST_LIKENESS, dtype=np.float32)
    names = np.full(best.shape, "", dtype=object)
    for done, ids, pictures in _pictures(index, pool):
        likeness, rows = _nearest(edges, _edges(pictures, pool), pool)
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


def _pictures(
    index: Index, pool: ThreadPoolExecutor, is_wanted: Callable[[str], bool] = lambda _id: True
) -> Iterator[tuple[int, list[str], Pixels]]:
    """Chunks in id order: number of images read so far, ids, and small pictures.

    Skips records that are not wanted or have no thumbnail. Raises `CbirError` for a thumbnail that
    cannot be read.
    """
    entries = (
        (number, (each.record.id, each.thumbnail))
        for number, each in enumerate(index.entries(), 1)
        if each.thumbnail and is_wanted(each.record.id)
    )
    while some := list(islice(entries, _PICTURES_AT_ONCE)):
        records = [record for _, record in some]
        pictures = np.stack(_on_all_cores(pool, _small_of, records))
        yield some[-1][0], [record_id for record_id, _ in records], pictures


def _small_of(record: tuple[str, bytes]) -> RgbImage:
    record_id, data = record
    try:
        return _small(data)
    except ImageError as error:
        raise CbirError(
            f"the thumbnail of {record_id} cannot be read: {error.message}",
            "index the picture again; cbir verify finds other damage",
        ) from error


def _on_all_cores(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Made], items: Sequence[_Item]
) -> list[_Made]:
    """The result of `work` for every item, in order; in chunks, as each item is little work."""
    parts = [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
    return list(chain.from_iterable(pool.map(lambda part: [work(i) for i in part], parts)))


def _small(thumbnail: bytes) -> RgbImage:
    """`thumbnail` at `SIDE` x `SIDE`; each axis is averaged to shrink, interpolated to grow."""
    small = decode(thumbnail)
    for axis in (0, 1):
        length = small.shape[axis]
        if length != SIDE:
            size = (small.shape[1], SIDE) if axis == 0 else (SIDE, small.shape[0])
            way = cv2.INTER_AREA if length > SIDE else cv2.INTER_LINEAR
            small = cv2.resize(small, size, interpolation=way)  # type: ignore[assignment]
    return small


def _edges(pictures: Pixels, pool: ThreadPoolExecutor) -> Floats:
    """HOG as unit rows (n, 144); the row of a flat picture is zero."""

    def edges(some: Pixels) -> Floats:
        blurred = [cv2.GaussianBlur(each, (0, 0), _BLUR) for each in some]
        return hog(np.stack(blurred), cell=_CELL, block=SIDE // _CELL)

    parts = [pictures[start : start + _AT_ONCE] for start in range(0, len(pictures), _AT_ONCE)]
    return np.concatenate(list(pool.map(edges, parts)))


def _nearest(
    edges: Floats, of_pictures: Floats, pool: ThreadPoolExecutor
) -> tuple[Floats, NDArray[np.int64]]:
    """Similarity and rows of the pictures with the nearest edges, (n, `_CANDIDATES` + 1).

    That is one more than needed, because a query's own record may be among them.
    """
    import faiss

    most = _CANDIDATES + 1

    def nearest(some: Floats) -> tuple[Floats, NDArray[np.int64]]:
        faiss.omp_set_num_threads(1)  # per thread, as every core already has a part
        found = faiss.knn(some, of_pictures, most, metric=faiss.METRIC_INNER_PRODUCT)
        likeness, rows = found  # missing pictures have row -1 and a very low similarity
        return likeness, rows

    parts = list(pool.map(nearest, np.array_split(edges, usable_cores())))
    return np.concatenate([part[0] for part in parts]), np.concatenate([p[1] for p in parts])
