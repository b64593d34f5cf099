"""Statistics of rankings beyond single measures: curves, confusions, scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.rankings import Hits, Trial, by_cosine, over_rankings
from cbir.measures.by_class import PADDING, UNLABELLED

RECALL_LEVELS = 101
"""Recall 0, 0.01, ... 1: where interpolated precision is taken."""

RANKS_IN_A_SAMPLE = 25_000_000
"""How many ranks of full rankings are sorted for a curve: about two seconds of work."""

SEED = 0

Codes = NDArray[np.int32]
Floats = NDArray[np.float64]
Scores = NDArray[np.float32]


def precision_at_ranks(found: NDArray[np.bool_]) -> Floats:
    """Mean P@1 ... P@k, float64 (k,), of rankings (q, k) that say which ranks are relevant."""
    ranks = np.arange(1, found.shape[1] + 1)
    return np.asarray((found.cumsum(axis=1) / ranks).mean(axis=0), dtype=np.float64)


def interpolated_precision(ranks: NDArray[np.integer], relevant: int) -> Floats:
    """The highest precision at each recall level or above it, float64 (RECALL_LEVELS,).

    `ranks` (m,): the ranks, from 0, at which the m <= `relevant` relevant images were found, in
    order. Zero beyond the last one found, and if nothing is relevant. Manning, Raghavan &
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
    """The queries whose full rankings are read, in order: all, or a seeded sample."""
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


def taken_for(hits: Hits, limits: NDArray[np.int64]) -> Floats:
    """Share of the first hits of each class's queries by the hits' class, float64 (c, c + 1).

    `limits` (q,): how many hits of each query count. The last column is for hits without a label.
    The row of a class without queries is NaN.
    """
    count = len(hits.classes)
    labels = hits.labels[:, : int(limits.max(initial=0))]
    counts = np.zeros((count, count + 1))
    rows = np.broadcast_to(hits.asked[:, None], labels.shape)
    counted = np.arange(labels.shape[1]) < limits[:, None]
    there = counted & (labels != PADDING) & (rows >= 0)
    columns = np.where(labels == UNLABELLED, count, labels)
    np.add.at(counts, (rows[there], columns[there]), 1)
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0))


def score_for(hits: Hits, share: float) -> float | None:
    """The lowest score such that at least `share` of the hits at or above it are relevant."""
    there = hits.retrieved
    scores, found = hits.scores[there], hits.found[there]
    order = np.argsort(-scores, kind="stable")
    right = found[order].cumsum() / np.arange(1, len(order) + 1)
    last_of_equal = np.append(np.diff(scores[order]) != 0, True)
    enough = np.flatnonzero((right >= share) & last_of_equal)
    return float(scores[order][enough[-1]]) if len(enough) else None
