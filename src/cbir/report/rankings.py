"""Figures of rankings that no single measure tells: curves, confusions, scores. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.rankings import Trial, by_cosine, over_rankings
from cbir.index.base import Matches
from cbir.measures.by_class import PADDING, UNLABELLED

RECALL_LEVELS = 101
"""Recall 0, 0.01, ... 1: where interpolated precision is taken."""

RANKS_IN_A_SAMPLE = 25_000_000
"""How many ranks of full rankings are sorted for a curve: about two seconds' work."""

SEED = 0

Codes = NDArray[np.int32]
Floats = NDArray[np.float64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """The first hits of every query.

    `classes`: names, sorted; a code is a place among them. `asked` (q,): codes of the queries,
    `labels` (q, k): of their hits, best first, UNLABELLED where a label is missing and PADDING
    where a ranking is shorter than k. `scores` float32 (q, k), NaN there.
    """

    classes: tuple[str, ...]
    asked: Codes
    labels: Codes
    scores: Scores

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which hits are relevant, bool (q, k)."""
        return np.asarray((self.labels == self.asked[:, None]) & (self.asked[:, None] >= 0))

    @property
    def retrieved(self) -> NDArray[np.bool_]:
        """Where there is a hit, bool (q, k)."""
        return np.asarray(self.labels != PADDING)


def ranked(
    asked: Sequence[str | None],
    matches: Sequence[Matches],
    labels: Mapping[str, str | None],
    depth: int,
) -> Ranked:
    """The first `depth` hits of queries of the labels `asked`; `labels` maps ids to labels."""
    names = sorted({name for name in (*labels.values(), *asked) if name is not None})
    codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
    codes[None] = UNLABELLED
    width = min(depth, max((len(found.ids) for found in matches), default=0))
    hits = np.full((len(matches), width), PADDING, dtype=np.int32)
    scores = np.full(hits.shape, np.nan, dtype=np.float32)
    for row, found in enumerate(matches):
        first = found.ids[:width]
        hits[row, : len(first)] = [codes[labels[i]] for i in first]
        scores[row, : len(first)] = found.scores[:width]
    return Ranked(tuple(names), encoded(names, asked), hits, scores)


def encoded(classes: Sequence[str], labels: Sequence[str | None]) -> Codes:
    """The place of each label among `classes` (n,), UNLABELLED for None."""
    codes: dict[str | None, int] = {name: code for code, name in enumerate(classes)}
    codes[None] = UNLABELLED
    return np.fromiter((codes[label] for label in labels), dtype=np.int32, count=len(labels))


def precision_at_ranks(found: NDArray[np.bool_]) -> Floats:
    """Mean P@1 ... P@k, float64 (k,), of rankings (q, k) that say which ranks are relevant."""
    ranks = np.arange(1, found.shape[1] + 1)
    return np.asarray((found.cumsum(axis=1) / ranks).mean(axis=0), dtype=np.float64)


def interpolated_precision(ranks: NDArray[np.integer], relevant: int) -> Floats:
    """The highest precision at each recall level or above it, float64 (RECALL_LEVELS,).

    `ranks` (m,): the ranks, from 0, at which the m <= `relevant` relevant images were found, in
    order. Zero from where no more were found, and where nothing is relevant. Manning, Raghavan &
    Schuetze, Introduction to Information Retrieval (2008), 8.4.
    """
    curve = np.zeros(RECALL_LEVELS)
    if not len(ranks):
        return curve
    precision = np.arange(1, len(ranks) + 1) / (ranks + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    levels = np.arange(RECALL_LEVELS) * relevant
    needed = np.maximum(-(-levels // (RECALL_LEVELS - 1)), 1)
    reached = needed <= len(ranks)
    curve[reached] = highest[needed[reached] - 1]
    return curve


def sampled(queries: int, indexed: int) -> NDArray[np.intp]:
    """Which queries, in order, are ranked to the end: all, or a seeded sample."""
    count = min(queries, max(1, RANKS_IN_A_SAMPLE // max(1, indexed)))
    return np.sort(np.random.default_rng(SEED).permutation(queries)[:count])


def full_curve(trial: Trial) -> Floats:
    """Mean interpolated precision, float64 (RECALL_LEVELS,), of the whole rankings of `trial`."""
    asked, relevant = trial.asked, trial.relevant

    def summed(part: slice, ranked: Codes) -> Floats:
        total = np.zeros(RECALL_LEVELS)
        for labels, code, count in zip(ranked, asked[part], relevant[part].tolist(), strict=True):
            if count:
                total += interpolated_precision(np.flatnonzero(labels == code), count)
        return total

    total = np.zeros(RECALL_LEVELS)
    for some in over_rankings(trial, by_cosine(trial), summed):
        total += some
    return total / max(1, len(asked))


def chance(asked: Codes, labels: Codes) -> float:
    """The precision of a ranking at random: the mean share of the index that is relevant."""
    known = labels[labels >= 0]
    sizes = np.bincount(known, minlength=int(asked.max(initial=0)) + 1)
    return float(np.where(asked >= 0, sizes[np.maximum(asked, 0)], 0).mean() / max(1, len(labels)))


def taken_for(ranked: Ranked, limits: NDArray[np.int64]) -> Floats:
    """Share of the first hits of each class's queries by the hits' class, float64 (c, c + 1).

    `limits` (q,): how many hits of each query count. The last column: hits without a label. A
    class without queries has a row of NaN.
    """
    count = len(ranked.classes)
    hits = ranked.labels[:, : int(limits.max(initial=0))]
    counts = np.zeros((count, count + 1))
    rows = np.broadcast_to(ranked.asked[:, None], hits.shape)
    counted = np.arange(hits.shape[1]) < limits[:, None]
    there = counted & (hits != PADDING) & (rows >= 0)
    columns = np.where(hits == UNLABELLED, count, hits)
    np.add.at(counts, (rows[there], columns[there]), 1)
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0))


def class_means(values: NDArray[np.float64], asked: Codes, classes: int) -> Floats:
    """The mean of `values` (q,) over the queries of each class, NaN for a class without any."""
    known = asked >= 0
    sizes = np.bincount(asked[known], minlength=classes)
    sums = np.bincount(asked[known], weights=values[known], minlength=classes)
    return np.asarray(np.divide(sums, sizes, out=np.full(classes, np.nan), where=sizes > 0))


def score_for(ranked: Ranked, share: float) -> float | None:
    """The lowest score such that at least `share` of the hits from it upwards are relevant."""
    there = ranked.retrieved
    scores, found = ranked.scores[there], ranked.found[there]
    order = np.argsort(-scores, kind="stable")
    right = found[order].cumsum() / np.arange(1, len(order) + 1)
    last_of_equal = np.append(np.diff(scores[order]) != 0, True)
    enough = np.flatnonzero((right >= share) & last_of_equal)
    return float(scores[order][enough[-1]]) if len(enough) else None
