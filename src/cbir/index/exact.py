"""Exact nearest-neighbour search over a matrix, with results independent of the batch.

FAISS generates candidates in float32, with an unspecified summation order. Each candidate is
rescored in one fixed way (products in float64, summed along the row, rounded to float32). A query
is done once no row that FAISS left out can enter its top k. The remaining queries, for example over
many equal vectors, fall back to computing all scores.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.index.base import SCORE_TOLERANCE
from cbir.types import Vectors

_MARGIN = 16
_QUERIES_AT_ONCE = 4096
_FEW_QUERIES = 20  # fewer queries are not worth a thread
_DENSE_SCORES = 8_000_000  # scores held at once by the fallback (32 MB)
_RESCORED_VALUES = 131_072  # float64 values per product: 1 MB, to fit the cache


@dataclass(frozen=True)
class Space:
    """Vectors grouped by record: `matrix` float32 (rows, dim), `starts` int64 (records + 1,).

    Record i owns the rows starts[i]..starts[i + 1], at least one. Records are in id order, so
    breaking ties by record number breaks them by id.
    """

    matrix: Vectors
    starts: NDArray[np.int64]

    @property
    def records(self) -> int:
        return len(self.starts) - 1

    @property
    def single(self) -> bool:
        """Whether every record has one row."""
        return len(self.matrix) == self.records

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The record of each row, int64 (rows,)."""
        return np.repeat(np.arange(self.records), np.diff(self.starts))


@dataclass(frozen=True, slots=True)
class Top:
    """The best records of each query, best first.

    `scores`: float32 (q, k), -inf for no record. `records` and `rows` (the record's best row):
    int64 (q, k), undefined where the score is -inf.
    """

    scores: NDArray[np.float32]
    records: NDArray[np.int64]
    rows: NDArray[np.int64]

    def put(self, at: Any, found: Top) -> None:
        """Overwrite the entries at `at` with `found`."""
        self.scores[at], self.records[at], self.rows[at] = found.scores, found.records, found.rows

    def ordered(self, order: NDArray[np.int64]) -> Top:
        """The columns `order` (q, m) of each row."""
        take = np.take_along_axis
        return Top(
            take(self.scores, order, 1), take(self.records, order, 1), take(self.rows, order, 1)
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch of queries; the fields are the arguments of `nearest`."""

    space: Space
    queries: Vectors
    k: int
    hidden: NDArray[np.bool_] | None
    excluded: NDArray[np.int64]

    def part(self, some: slice | NDArray[np.int64]) -> _Batch:
        return replace(self, queries=self.queries[some], excluded=self.excluded[some])


def nearest(
    space: Space,
    queries: Vectors,
    k: int,
    hidden: NDArray[np.bool_] | None = None,
    excluded: NDArray[np.int64] | None = None,
) -> Top:
    """The k best records of `space` for each row of `queries`, float32 (q, dim).

    `hidden`, bool (records,), marks records to skip; `excluded`, int64 (q,), is one record per
    query to skip, or -1. Scores are dot products (cosines of unit rows), clipped to -1..1. The
    result has fewer than k columns if there are fewer records.
    """
    k = min(k, space.records)
    if not k * len(queries):
        return _empty(len(queries), k)
    if excluded is None:
        excluded = np.full(len(queries), -1, dtype=np.int64)
    batch = _Batch(space, queries, k, hidden, excluded)
    parts = _parts(len(queries))
    if len(parts) == 1:
        return _exact(batch)
    top = _empty(len(queries), k)
    with ThreadPoolExecutor(_threads()) as pool:
        list(pool.map(lambda part: top.put(part, _exact(batch.part(part))), parts))
    return top


def rescored(queries: Vectors, matrix: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The exact scores, float32 (q, m), of `rows` (q, m) of `matrix` for each query."""
    count, width, dim = len(queries), rows.shape[1], matrix.shape[1]
    scores = np.empty((count, width), dtype=np.float32)
    exact = queries.astype(np.float64)
    step = max(1, _RESCORED_VALUES // max(1, width * dim))
    for start in range(0, count, step):
        some = slice(start, start + step)
        products = matrix[rows[some]].astype(np.float64)
        products *= exact[some, None, :]
        scores[some] = np.clip(products.sum(axis=-1), -1.0, 1.0)
    return scores


def _exact(batch: _Batch) -> Top:
    top, done = _from_candidates(batch)
    rest = np.flatnonzero(~done)
    step = max(1, _DENSE_SCORES // len(batch.space.matrix))
    for start in range(0, len(rest), step):
        some = rest[start : start + step]
        top.put(some, _from_all_scores(batch.part(some)))
    return top


def _from_candidates(batch: _Batch) -> tuple[Top, NDArray[np.bool_]]:
    """The best of FAISS's candidates, and for which queries they are certain to be the best."""
    space, k = batch.space, batch.k
    total = len(space.matrix)
    fetch = min(total, (k if space.single else 4 * k) + k // 8 + _MARGIN)
    approximate, rows = _faiss_search(batch.queries, space.matrix, fetch)
    top = _ranked(batch, rows)
    if fetch == total:
        return top, np.ones(len(batch.queries), dtype=np.bool_)
    return top, top.scores[:, k - 1] > approximate[:, -1] + _slack(space)


def _from_all_scores(batch: _Batch) -> Top:
    """The best of all rows: rescores those within rounding of the k-th best float32 score."""
    space = batch.space
    scores = batch.queries @ space.matrix.T
    if batch.hidden is not None:
        scores[:, batch.hidden[space.owner]] = -np.inf
    for number, record in enumerate(batch.excluded):
        if record >= 0:
            scores[number, space.starts[record] : space.starts[record + 1]] = -np.inf
    best = scores if space.single else np.maximum.reduceat(scores, space.starts[:-1], axis=1)
    place = best.shape[1] - batch.k
    kth = np.partition(best, place, axis=1)[:, place]
    top = _empty(len(scores), batch.k)
    for number, reach in enumerate(kth - 2 * _slack(space)):
        rows = np.flatnonzero((scores[number] >= reach) & (scores[number] > -np.inf))
        one = slice(number, number + 1)
        found = _ranked(batch.part(one), rows[None, :])
        top.put((one, slice(found.scores.shape[1])), found)
    return top


def _ranked(batch: _Batch, rows: NDArray[np.int64]) -> Top:
    """The k best records among the candidate `rows` (q, m), by score, then id."""
    space = batch.space
    scores = rescored(batch.queries, space.matrix, rows)
    records = rows if space.single else space.owner[rows]
    barred = records == batch.excluded[:, None]
    if batch.hidden is not None:
        barred |= batch.hidden[records]
    scores[barred] = -np.inf
    order = np.lexsort((rows, -scores), axis=-1)
    if not space.single:
        records = np.take_along_axis(records, order, axis=1)
        repeated = _repeated(records)
        scores = np.where(repeated, np.float32(-np.inf), np.take_along_axis(scores, order, axis=1))
        rows = np.take_along_axis(rows, order, axis=1)
        order = np.argsort(repeated, axis=1, kind="stable")
    return Top(scores, records, rows).ordered(order[:, : batch.k])


def _repeated(records: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which entries of each row of `records` (q, m) occur earlier in that row."""
    order = np.argsort(records, axis=1, kind="stable")
    ordered = np.take_along_axis(records, order, axis=1)
    again = np.zeros(records.shape, dtype=np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated


def _faiss_search(
    queries: Vectors, matrix: Vectors, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best `count` rows of each query by FAISS, on the calling thread.

    FAISS's threads synchronise after every block of the matrix, which costs tens of milliseconds
    per query on busy cores. Parts of a batch run independently.
    """
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        scores, rows = faiss.knn(queries, matrix, count, metric=faiss.METRIC_INNER_PRODUCT)
    finally:
        faiss.omp_set_num_threads(threads)
    return scores, rows


def _threads() -> int:
    """The number of threads to use: OMP_NUM_THREADS, else all cores."""
    import faiss

    threads: int = faiss.omp_get_max_threads()
    return threads


def _parts(queries: int) -> list[slice]:
    """Split a batch into equal parts, at least one per thread; keep small batches whole."""
    threads = _threads() if queries >= 2 * _FEW_QUERIES else 1
    rounds = -(-queries // (threads * _QUERIES_AT_ONCE))
    size = max(1, -(-queries // max(1, threads * rounds)))
    return [slice(start, start + size) for start in range(0, max(1, queries), size)]


def _slack(space: Space) -> float:
    """The largest error of a float32 score; rounding grows with the number of dimensions."""
    dim: int = space.matrix.shape[1]
    return max(SCORE_TOLERANCE, dim * 7.5e-9)


def _empty(queries: int, k: int) -> Top:
    return Top(
        np.full((queries, k), -np.inf, dtype=np.float32),
        np.full((queries, k), -1, dtype=np.int64),
        np.full((queries, k), -1, dtype=np.int64),
    )
