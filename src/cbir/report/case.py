"""What the parts of an evaluation's report have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.relevance import class_measures, relevant_counts
from cbir.experiment import Evaluation, Queries, unseen_index
from cbir.index.base import Matches
from cbir.report.rankings import Floats, Ranked, encoded, ranked
from cbir.search import Searcher

DEPTH = 100
"""How many hits of each query the report looks at."""

USUAL, UNSEEN = "usual protocol", "unseen index"


@dataclass(frozen=True)
class Case:
    """An evaluation and what the report's parts need of it.

    `values` (q,): the figure of each query by which it is good or bad, called `measure`; `unseen`
    the same of the unseen index. `unseen_precision`: its mean P@1 ... P@k. None without it.
    `relevant`: how many images are relevant to a query on average, here and there.
    """

    evaluation: Evaluation
    searcher: Searcher
    matches: Sequence[Matches]
    hits: Ranked
    measure: str
    values: Floats
    unseen: Floats | None
    unseen_precision: Floats | None
    relevant: tuple[float, float]


def case_of(evaluation: Evaluation, searcher: Searcher, expand: int) -> Case:
    """The first hits of every query, its figure, and the same of the unseen index."""
    queries = evaluation.queries
    matches = _deep_enough(evaluation, searcher, expand)
    hits = ranked(queries.labels, matches, searcher.index.labels(), DEPTH)
    relevant = _relevant(searcher, queries, hits)
    among_queries = relevant_counts(
        hits.asked, hits.asked, np.ones(len(hits.asked), dtype=np.bool_)
    )
    measure = f"nAP@{min(DEPTH, max(1, hits.labels.shape[1]))}"
    values = evaluation.per_query.get(measure)
    if values is None:
        values = class_measures(hits.labels, hits.asked, relevant, [measure])[measure]
    unseen = unseen_precision = None
    if evaluation.unseen_index is not None:
        ranks = range(1, min(DEPTH, len(queries.ids) - 1) + 1)
        names = [f"P@{rank}" for rank in ranks]
        other = unseen_index(queries, [measure, *names], expand)
        unseen = other[measure]
        unseen_precision = np.array([other[name].mean() for name in names])
    return Case(
        evaluation,
        searcher,
        matches,
        hits,
        measure,
        values,
        unseen,
        unseen_precision,
        (float(relevant.mean()), float(among_queries.mean())),
    )


def _deep_enough(evaluation: Evaluation, searcher: Searcher, expand: int) -> Sequence[Matches]:
    """The first hits, searched again where what was measured needed fewer than the report does."""
    wanted = min(DEPTH, max(1, searcher.index.count() - 1))
    if all(len(found.ids) >= wanted for found in evaluation.matches):
        return evaluation.matches
    indexed = searcher.index.labels()
    queries = evaluation.queries
    exclude = [i if i in indexed else None for i in queries.ids]
    return searcher.match(queries.vectors, wanted, exclude=exclude, exact=True, expand=expand)


def _relevant(searcher: Searcher, queries: Queries, hits: Ranked) -> NDArray[np.int64]:
    """How many indexed images are relevant to each query, int64 (q,)."""
    labels = searcher.index.labels()
    pairs = zip(queries.ids, queries.labels, strict=True)
    itself = np.array([i in labels and labels[i] == label for i, label in pairs])
    return relevant_counts(encoded(hits.classes, list(labels.values())), hits.asked, itself)
