"""Rankings as arrays: the first ranks, or the whole ranking for a chunk of queries at a time.

The order is that of the index (see `index.exact`): score descending; ties are broken by place,
ascending, which is the order of ids unless a seed shuffles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.queries import Queries
from cbir.index.base import Matches
from cbir.index.exact import Space, Top, nearest, rescored
from cbir.machine import usable_cores
from cbir.measures.by_class import (
    PADDING,
    class_measures,
    class_names,
    encode_labels,
    relevant_counts,
)
from cbir.measures.names import depth
from cbir.types import OnDone, Vectors

DEEPEST = 1000
"""Deeper cut-offs use arrays of labels, because a hit with its id takes 80 bytes."""

KEPT = 100
"""Hits per query that are kept if measures read more than `DEEPEST` ranks."""

_RANKS_AT_ONCE = 1 << 21  # a thread holds about 30 bytes per rank
_VALUES_AT_ONCE = 1 << 21  # of the collection, in float64

_Read = TypeVar("_Read")

Keys = Callable[[slice], NDArray[np.uint32]]
"""Maps a slice of the queries to the ascending sort keys of all records, uint32 (queries, n)."""


@dataclass(frozen=True)
class Trial:
    """Queries and the collection to search.

    `ids` (n,) in byte order, with their vectors `matrix` float32 (n, dim) and label codes `codes`
    int32 (n,). `vectors` float32 (q, dim) and `asked` int32 (q,): vectors and label codes of the
    queries. `itself` int64 (q,): the row of `matrix` that is the query and is left out of its
    results, or -1. `places` int64 (n,): the tie-breaking order of the rows, a permutation.
    """

    ids: Sequence[str]
    matrix: Vectors
    codes: NDArray[np.int32]
    vectors: Vectors
    asked: NDArray[np.int32]
    itself: NDArray[np.int64]
    places: NDArray[np.int64]

    @property
    def relevant(self) -> NDArray[np.int64]:
        """How many rows are relevant to each query, int64 (q,)."""
        counts_itself = (self.itself >= 0) & (self.codes[self.itself] == self.asked)
        return relevant_counts(self.codes, self.asked, counts_itself)

    def asking(self, chosen: NDArray[np.integer]) -> Trial:
        """The trial restricted to the queries with these numbers."""
        return replace(
            self,
            vectors=self.vectors[chosen],
            asked=self.asked[chosen],
            itself=self.itself[chosen],
        )


@dataclass(frozen=True)
class Hits:
    """The first hits of q queries, as codes of labels.

    A code is an index into `classes`. `asked` int32 (q,): codes of the queries. `labels` int32
    (q, k): codes of their hits, best first; UNLABELLED for hits without a label, PADDING beyond
    the end of a short ranking. `scores` float32 (q, k), NaN for padding. `relevant` int64 (q,):
    how many images are relevant to each query.
    """

    classes: tuple[str, ...]
    asked: NDArray[np.int32]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    relevant: NDArray[np.int64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which hits are relevant, bool (q, k)."""
        return np.asarray((self.labels == self.asked[:, None]) & (self.asked[:, None] >= 0))

    @property
    def retrieved(self) -> NDArray[np.bool_]:
        """Where there is a hit, bool (q, k)."""
        return np.asarray(self.labels != PADDING)

    def measures(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Measure -> its value for every query, float64 (q,), from the first k ranks."""
        return class_measures(self.labels, self.asked, self.relevant, names)


def first_hits(
    queries: Queries,
    matches: Sequence[Matches],
    labels: Mapping[str, str | None],
    depth: int | None = None,
) -> Hits:
    """The first `depth` hits (None: all) of `matches`, the results of `queries`.

    `labels` maps the ids of all searched images to their labels.
    """
    classes = class_names(labels.values(), queries.labels)
    searched = encode_labels(list(labels.values()), classes)
    asked = encode_labels(queries.labels, classes)
    code_of = dict(zip(labels, searched.tolist(), strict=True))
    width = max((len(found.ids[:depth]) for found in matches), default=0)
    codes = np.full((len(matches), width), PADDING, dtype=np.int32)
    scores = np.full(codes.shape, np.nan, dtype=np.float32)
    for row, found in enumerate(matches):
        first = found.ids[:width]
        codes[row, : len(first)] = [code_of[record_id] for record_id in first]
        scores[row, : len(first)] = found.scores[:width]
    pairs = zip(queries.ids, asked.tolist(), strict=True)
    itself = np.array([code_of.get(query) == code for query, code in pairs])
    return Hits(classes, asked, codes, scores, relevant_counts(searched, asked, itself))


def shuffled(count: int, seed: int | None) -> NDArray[np.int64]:
    """Tie-breaking places, int64 (count,): random by `seed`, or in id order if it is None."""
    if seed is None:
        return np.arange(count)
    return np.random.default_rng(seed).permutation(count)


def reads_whole(names: Sequence[str]) -> bool:
    """Whether the measures read the whole ranking, or more than `DEEPEST` ranks."""
    wanted = depth(names)
    return wanted is None or wanted > DEEPEST


def kept(names: Sequence[str], available: int) -> int:
    """How many hits per query are kept: all that the measures read, or the first `KEPT`."""
    wanted = KEPT if reads_whole(names) else depth(names) or KEPT
    return max(1, min(wanted, available))


def answers(trial: Trial, k: int) -> list[Matches]:
    """The k best rows for each query, best first, with their ids."""
    found = _first_ranks(trial, k)
    lengths = np.isfinite(found.scores).sum(axis=1).tolist()
    return [
        Matches([trial.ids[row] for row in rows[:length]], scores[:length], [None] * length)
        for rows, scores, length in zip(found.records.tolist(), found.scores, lengths, strict=True)
    ]


def trial_measures(
    trial: Trial,
    names: Sequence[str],
    on_done: OnDone = lambda _done, _total: None,
) -> dict[str, NDArray[np.float64]]:
    """Measure -> its value for every query of `trial`, float64 (q,), by cosine."""
    if reads_whole(names):
        return full_measures(trial, by_cosine(trial), names, on_done)
    found = _first_ranks(trial, kept(names, len(trial.codes)))
    ranked = np.where(np.isfinite(found.scores), trial.codes[found.records], PADDING)
    return class_measures(ranked, trial.asked, trial.relevant, names)


def full_measures(
    trial: Trial,
    keys: Keys,
    names: Sequence[str],
    on_done: OnDone = lambda _done, _total: None,
) -> dict[str, NDArray[np.float64]]:
    """`trial_measures` over whole rankings by `keys`."""
    relevant = trial.relevant

    def measured(part: slice, ranked: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
        return class_measures(ranked, trial.asked[part], relevant[part], names)

    pieces = []
    done = 0
    for piece in over_rankings(trial, keys, measured):
        pieces.append(piece)
        done += len(next(iter(piece.values()), ()))
        on_done(done, len(trial.asked))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def over_rankings(
    trial: Trial, keys: Keys, read: Callable[[slice, NDArray[np.int32]], _Read]
) -> Iterator[_Read]:
    """The results of `read` for whole rankings, in chunks of queries, in order, on all cores.

    `read` receives a slice of the queries and the label codes of all records, best first by `keys`,
    int32 (queries, n), with PADDING at the end if the query itself is left out. Key and place of
    a record are sorted as one number, which is several times faster than a stable sort in NumPy.
    """
    from threadpoolctl import threadpool_limits

    count = len(trial.codes)
    code_at = np.full(count + 1, PADDING, dtype=np.int32)
    code_at[trial.places] = trial.codes
    places = trial.places.astype(np.uint64)

    def some(part: slice) -> _Read:
        packed = keys(part).astype(np.uint64)
        packed <<= np.uint64(32)
        packed |= places
        left_out = np.flatnonzero(trial.itself[part] >= 0)
        packed[left_out, trial.itself[part][left_out]] = (0xFFFFFFFF << 32) | count
        packed.sort(axis=1)
        packed &= np.uint64(0xFFFFFFFF)
        return read(part, code_at[packed.view(np.int64)])

    step = max(1, _RANKS_AT_ONCE // max(1, count))
    parts = [slice(start, start + step) for start in range(0, len(trial.asked), step)]
    # Each thread computes its own products: all cores are busy already.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(usable_cores()) as pool:
        yield from pool.map(some, parts)


def by_cosine(trial: Trial) -> Keys:
    """Keys in the order of the scores of `index.exact`, bit for bit."""
    slack = 4 * trial.matrix.shape[1] * float(np.finfo(np.float64).eps)
    step = max(1, _VALUES_AT_ONCE // trial.matrix.shape[1])

    def keys(part: slice) -> NDArray[np.uint32]:
        vectors = trial.vectors[part]
        exact = vectors.astype(np.float64)
        scores = np.empty((len(vectors), len(trial.matrix)), dtype=np.float32)
        for start in range(0, len(trial.matrix), step):
            some = slice(start, start + step)
            products = exact @ trial.matrix[some].T.astype(np.float64)
            rounded = products.astype(np.float32)
            # A different order of summation may round these to a neighbouring float32 (except
            # for products that are 0 because all their terms are 0).
            unsure = (products + slack).astype(np.float32) != (products - slack).astype(np.float32)
            query, row = np.nonzero(unsure & (products != 0))
            rounded[query, row] = rescored(
                vectors[query], trial.matrix, (row + start)[:, None]
            ).ravel()
            np.clip(rounded, -1.0, 1.0, out=scores[:, some])
        return _descending(scores)

    return keys


def _first_ranks(trial: Trial, k: int) -> Top:
    """The k best rows of `trial.matrix` for each query, as `records`."""
    order = np.argsort(trial.places)
    space = Space(np.ascontiguousarray(trial.matrix[order]), np.arange(len(order) + 1))
    excluded = np.where(trial.itself >= 0, trial.places[trial.itself], -1)
    found = nearest(space, trial.vectors, k, excluded=excluded)
    rows = np.where(found.records >= 0, order[found.records], -1)
    return Top(found.scores, rows, rows)


def _descending(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers that rise as float32 `scores` fall; 0.0 and -0.0 are equal."""
    bits = (0.0 - scores).view(np.uint32)
    # IEEE 754: the bits of positive numbers rise with them, those of negative numbers fall.
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
