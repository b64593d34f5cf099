"""Measures of rankings by binary relevance.

Gains are 0 or 1 and there are no ties. Definitions follow trec_eval
(https://github.com/usnistgov/trec_eval); nAP@k follows Google Landmarks v2 (Weyand et al. 2020).
Only relevant ranks are processed: a tenth of all ranks for ten classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cbir.measures.names import Measure

BINARY_FAMILIES = frozenset(
    ("AP", "nAP", "P", "R", "RR", "nDCG", "Rprec", "Success", "SetP", "SetR", "SetF", "SetAP")
)
"""The measures that `binary_measure` computes."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Rankings:
    """The relevant ranks of q rankings.

    Per relevant rank, by query and best first, int64 (h,): `rows`, the query's number; `ranks`,
    from 1; `nth`, the number of relevant ranks up to this one. Per query, int64 (q,): `counts`, the
    number of relevant documents retrieved; `retrieved`, the number of documents retrieved;
    `relevant`, the number of relevant documents.
    """

    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    nth: NDArray[np.int64]
    counts: NDArray[np.int64]
    retrieved: NDArray[np.int64]
    relevant: NDArray[np.int64]

    @cached_property
    def precisions(self) -> Values:
        """The precision at each relevant rank, float64 (h,)."""
        return self.nth / self.ranks

    def first(self, depth: int | NDArray[np.int64] | None) -> slice | NDArray[np.bool_]:
        """Which relevant ranks are within `depth`, an integer or one per query (q,)."""
        if depth is None:
            return slice(None)
        limit = depth if isinstance(depth, int) else depth[self.rows]
        within: NDArray[np.bool_] = self.ranks <= limit
        return within

    def count(self, depth: int | NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The number of relevant ranks within `depth`, int64 (q,)."""
        if depth is None:
            return self.counts
        return np.bincount(self.rows[self.first(depth)], minlength=len(self.counts))

    def total(self, weights: Values, depth: int | None) -> Values:
        """The sum of `weights` (h,) over the ranks within `depth`, float64 (q,)."""
        some = self.first(depth)
        totals = np.bincount(self.rows[some], weights=weights[some], minlength=len(self.counts))
        return np.asarray(totals, dtype=np.float64)


def rankings(
    found: NDArray[np.bool_], retrieved: NDArray[np.integer], relevant: NDArray[np.integer]
) -> Rankings:
    """The relevant ranks in `found` (q, k); `retrieved` and `relevant` (q,) are counts."""
    counts = np.count_nonzero(found, axis=1)
    rows = np.repeat(np.arange(len(found)), counts)
    places = np.flatnonzero(found)
    ranks = places - rows * found.shape[1] + 1
    nth = np.arange(1, len(rows) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    return Rankings(rows, ranks, nth, counts, retrieved.astype(np.int64), relevant.astype(np.int64))


def binary_measure(measure: Measure, ranked: Rankings) -> Values:
    """One measure of `BINARY_FAMILIES`, float64 (q,); 0 for a query without relevant documents.

    Missing ranks count as irrelevant.
    """
    relevant, cutoff = ranked.relevant, measure.cutoff
    match measure.family:
        case "AP":
            return ranked.total(ranked.precisions, cutoff) / _positive(relevant)
        case "nAP":
            limit = relevant if cutoff is None else np.minimum(relevant, cutoff)
            return ranked.total(ranked.precisions, cutoff) / _positive(limit)
        case "P":
            return ranked.count(cutoff) / float(cutoff or 1)
        case "R":
            return ranked.count(cutoff) / _positive(relevant)
        case "RR":
            return ranked.total((ranked.nth == 1) / ranked.ranks, cutoff)
        case "nDCG":
            return _ndcg(ranked, cutoff)
        case "Rprec":
            return ranked.count(relevant) / _positive(relevant)
        case "Success":
            return (ranked.count(cutoff) > 0).astype(np.float64)
        case _:
            return _of_the_set(measure.family, ranked)


def _ndcg(ranked: Rankings, cutoff: int | None) -> Values:
    limit = ranked.relevant if cutoff is None else np.minimum(ranked.relevant, cutoff)
    deepest = max(int(limit.max(initial=0)), int(ranked.ranks.max(initial=0)))
    gains = 1 / np.log2(np.arange(2, deepest + 2))
    ideal = np.concatenate(([0.0], np.cumsum(gains)))[limit]
    # The ideal gain of a query with relevant documents is at least 1.
    return ranked.total(gains[ranked.ranks - 1], cutoff) / np.maximum(ideal, 1)


def _of_the_set(family: str, ranked: Rankings) -> Values:
    """Measures that do not depend on the order of the ranking."""
    counts, retrieved, relevant = ranked.counts, ranked.retrieved, ranked.relevant
    if family == "SetF":
        return 2 * counts / _positive(retrieved + relevant)
    precision, recall = counts / _positive(retrieved), counts / _positive(relevant)
    return {"SetP": precision, "SetR": recall, "SetAP": precision * recall}[family]


def _positive(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`counts` with 0 replaced by 1, as divisors of values that are then 0."""
    return np.maximum(counts, 1)
