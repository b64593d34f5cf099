"""Recall of an index's own search, compared with exact search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import QueryError
from cbir.evaluation.protocols import has_parts
from cbir.evaluation.queries import describe_queries
from cbir.images.items import ImageSource
from cbir.index.base import SCORE_TOLERANCE, Index, Matches
from cbir.index.entries import check_k
from cbir.index.exact import Space, nearest
from cbir.search.searcher import Searcher
from cbir.types import OnDone, OnStage, Vectors
from cbir.wording import shell_word

TIMED = 100
"""Queries that are timed one at a time."""

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class Recall:
    """Recall at `k` of an index's own search, over queries that are not indexed.

    `k`: as requested, or the size of a smaller index. `per_query` float64 (n_queries,): the share
    of the k results that are correct. `exact`: whether the engine guarantees exact search.
    `left_out`: queries that are themselves indexed. `epsilon`: how much farther than the k-th true
    neighbour a result may be. `own_ms` and `exact_ms`: median milliseconds of a single query,
    without describing, over `timed` queries; `exact_ms` is None if the index cannot search exactly
    (a server without scripts).
    """

    k: int
    n_indexed: int
    per_query: NDArray[np.float64]
    exact: bool
    left_out: int
    epsilon: float
    own_ms: float
    exact_ms: float | None
    timed: int

    def to_json(self) -> dict[str, Any]:
        """As in `cbir evaluate --recall K --json`."""
        return {
            "k": self.k,
            "n_queries": len(self.per_query),
            "n_indexed": self.n_indexed,
            "left_out": self.left_out,
            "exact": self.exact,
            "epsilon": self.epsilon,
            "recall": float(self.per_query.mean()),
            "complete": float((self.per_query == 1).mean()),
            "worst": float(self.per_query.min()),
            "own_ms": self.own_ms,
            "exact_ms": self.exact_ms,
            "timed": self.timed,
        }


def measure_recall(
    searcher: Searcher,
    source: ImageSource,
    k: int = 10,
    *,
    sample: int | None = None,
    on_stage: OnStage = lambda _stage, _done, _total: None,
) -> Recall:
    """Recall at k of the index's search for the images of `source`; labels are not needed.

    Queries that are indexed are left out, as their own record is an easy match. `on_stage` is a
    progress callback. Raises `QueryError` if all queries are indexed, and for an empty index.
    """
    k = _at_most_all(searcher.index, k)
    queries = describe_queries(searcher, source, sample, partial(on_stage, "describing"))
    indexed = searcher.index.labels()
    asked = [number for number, query in enumerate(queries.ids) if query not in indexed]
    if not asked:
        raise QueryError(
            f"all images of {source.uri} are in the index",
            "use queries that are not, such as pictures that people will search with",
        )
    left_out = len(queries.ids) - len(asked)
    return recall_of(
        searcher.index, queries.vectors[asked], k, left_out=left_out, on_stage=on_stage
    )


def recall_of(
    index: Index,
    vectors: Vectors,
    k: int,
    *,
    left_out: int = 0,
    on_stage: OnStage = lambda _stage, _done, _total: None,
) -> Recall:
    """Recall at k of `index.search` for `vectors` (q, dim).

    A result is correct if its distance, 1 - cosine, is at most that of the k-th true neighbour
    + epsilon, so ties are not errors (as in ann-benchmarks: Aumüller, Bernhardsson and Faithfull
    2020).
    """
    k = _at_most_all(index, k)
    search_exactly = _exact_search(index, k)
    right: list[Matches] = []
    for some in _blocks(vectors, partial(on_stage, "searching exactly")):
        right += search_exactly(some)
    values: list[float] = []
    for some in _blocks(vectors, partial(on_stage, "searching")):
        expected = right[len(values) : len(values) + len(some)]
        answers = zip(some, index.search(some, k), expected, strict=True)
        values += [_share(index, *each) for each in answers]
    few = vectors[:TIMED]
    return Recall(
        k=k,
        n_indexed=index.count(),
        per_query=np.array(values),
        exact=searches_exactly(index),
        left_out=left_out,
        epsilon=SCORE_TOLERANCE,
        own_ms=_median_ms(lambda vector: index.search(vector, k), few, partial(on_stage, "timing")),
        exact_ms=_exact_ms(index, few, k, partial(on_stage, "timing exactly")),
        timed=len(few),
    )


def searches_exactly(index: Index) -> bool:
    """Whether the engine and type of the index guarantee exact search."""
    return index.info().get("type", "flat") in ("flat", "words")


def _at_most_all(index: Index, k: int) -> int:
    """`k`, or the number of images if that is smaller."""
    check_k(k)
    count = index.count()
    if not count:
        raise QueryError(
            f"{index.url} is empty", f"cbir index FOLDER --into {shell_word(index.url)}"
        )
    return min(k, count)


def _blocks(vectors: Vectors, on_done: OnDone) -> Iterator[Vectors]:
    """`vectors` (q, dim) in blocks; reports progress before each block."""
    total = len(vectors)
    for start in range(0, total, _QUERIES_AT_ONCE):
        on_done(start, total)
        yield vectors[start : start + _QUERIES_AT_ONCE]
    on_done(total, total)


def _exact_search(index: Index, k: int) -> Callable[[Vectors], list[Matches]]:
    """A function that finds the exact k best from the vectors themselves, without the engine.

    If images have several vectors, which `Index.matrix` does not return, the engine searches.
    """
    if has_parts(index):
        return lambda vectors: index.search(vectors, k, exact=True)
    ids, matrix = index.matrix()
    space = Space(matrix, np.arange(len(ids) + 1))

    def search(vectors: Vectors) -> list[Matches]:
        top = nearest(space, vectors, k)
        return [
            Matches([ids[row] for row in rows], scores, [None] * len(rows))
            for rows, scores in zip(top.records.tolist(), top.scores, strict=True)
        ]

    return search


def _exact_ms(index: Index, vectors: Vectors, k: int, on_done: OnDone) -> float | None:
    try:
        return _median_ms(lambda vector: index.search(vector, k, exact=True), vectors, on_done)
    except QueryError:
        return None


def _share(index: Index, vector: NDArray[np.float32], found: Matches, right: Matches) -> float:
    """The share of the true results that was found, judged by true scores, not the engine's."""
    if not right.ids:
        return 1.0
    known = set(right.ids)
    reach = float(right.scores[-1]) - SCORE_TOLERANCE
    hits = sum(each in known or _score(index, vector, each) >= reach for each in found.ids)
    return hits / len(right.ids)


def _score(index: Index, vector: NDArray[np.float32], record_id: str) -> float:
    parts = index.vectors(record_id).astype(np.float64)
    return float((parts @ vector.astype(np.float64)).max())


def _median_ms(
    search: Callable[[Vectors], Sequence[Matches]], vectors: Vectors, on_done: OnDone
) -> float:
    times = []
    for number, vector in enumerate(vectors, start=1):
        started = time.perf_counter()
        search(vector[None])
        times.append(time.perf_counter() - started)
        on_done(number, len(vectors))
    return round(median(times) * 1000, 3)
