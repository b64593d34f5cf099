"""What the parts of an evaluation's report have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation import Evaluation, Queries, rank
from cbir.evaluation.protocols import unseen_trial, usual_trial
from cbir.evaluation.rankings import answers, trial_measures
from cbir.index.base import Matches
from cbir.measures.by_class import class_measures, relevant_counts
from cbir.report.rankings import Floats, Ranked, encoded, ranked
from cbir.search.searcher import Searcher

DEPTH = 100
"""How many hits of each query the report looks at."""

USUAL, UNSEEN = "usual protocol", "unseen index"


@dataclass(frozen=True)
class Unseen:
    """What the unseen index says beside the usual protocol.

    `values` (q,): of the case's own measure; `precision`: mean P@1 ... P@k; `relevant`: how many
    images are relevant to a query on average.
    """

    values: Floats
    precision: Floats
    relevant: float


@dataclass(frozen=True)
class Case:
    """An evaluation and what the report's parts need of it.

    `main`: the protocol of its measures, USUAL or UNSEEN. `labels`: id -> label of what is
    searched under it, `thumbnail` the encoded picture of an id there. `values` (q,): the figure of
    each query by which it is good or bad, called `measure`: the first nAP@k that was asked for.
    `relevant` int64 (q,): how many images are relevant to each query. `unseen`: the unseen index,
    where it was asked for as well.
    """

    evaluation: Evaluation
    searcher: Searcher
    main: str
    labels: Mapping[str, str | None]
    thumbnail: Callable[[str], bytes | None]
    matches: Sequence[Matches]
    hits: Ranked
    measure: str
    values: Floats
    relevant: NDArray[np.int64]
    unseen: Unseen | None


def case_of(evaluation: Evaluation, searcher: Searcher) -> Case:
    """The first hits of every query, its figure, and the same of the unseen index."""
    queries = evaluation.queries
    among_queries = evaluation.protocol == "unseen"
    labels, thumbnail = _searched(searcher, queries, among_queries)
    matches = _deep_enough(evaluation, searcher, labels)
    hits = ranked(queries.labels, matches, labels, DEPTH)
    relevant = _relevant(queries, labels, hits)
    deepest = f"nAP@{min(DEPTH, max(1, hits.labels.shape[1]))}"
    measure = next((name for name in evaluation.per_query if name.startswith("nAP@")), deepest)
    values = evaluation.per_query.get(measure)
    if values is None:
        values = class_measures(hits.labels, hits.asked, relevant, [measure])[measure]
    both = evaluation.unseen_index is not None and not among_queries
    return Case(
        evaluation,
        searcher,
        UNSEEN if among_queries else USUAL,
        labels,
        thumbnail,
        matches,
        hits,
        measure,
        values,
        relevant,
        _unseen(evaluation, hits, measure) if both else None,
    )


def _searched(
    searcher: Searcher, queries: Queries, among_queries: bool
) -> tuple[Mapping[str, str | None], Callable[[str], bytes | None]]:
    """Labels and pictures of what is searched: the index, or the other queries."""
    if not among_queries:
        return searcher.index.labels(), searcher.index.thumbnail
    pictures = dict(zip(queries.ids, queries.thumbnails, strict=True))
    return dict(zip(queries.ids, queries.labels, strict=True)), pictures.get


def _deep_enough(
    evaluation: Evaluation, searcher: Searcher, labels: Mapping[str, str | None]
) -> Sequence[Matches]:
    """The first hits, searched again where what was measured needed fewer than the report does."""
    queries, expand, shuffle = evaluation.queries, evaluation.expand, evaluation.shuffle
    itself = any(query in labels for query in queries.ids)
    wanted = min(DEPTH, max(1, len(labels) - itself))
    if all(len(found.ids) >= wanted for found in evaluation.matches):
        return evaluation.matches
    if evaluation.protocol == "unseen":
        return answers(unseen_trial(queries, expand, shuffle), wanted)
    if shuffle is not None:
        return answers(usual_trial(searcher, queries, expand, shuffle), wanted)
    return rank(searcher, queries, wanted, expand)


def _relevant(
    queries: Queries, labels: Mapping[str, str | None], hits: Ranked
) -> NDArray[np.int64]:
    """How many images are relevant to each query, int64 (q,)."""
    pairs = zip(queries.ids, queries.labels, strict=True)
    itself = np.array([i in labels and labels[i] == label for i, label in pairs])
    return relevant_counts(encoded(hits.classes, list(labels.values())), hits.asked, itself)


def _unseen(evaluation: Evaluation, hits: Ranked, measure: str) -> Unseen:
    queries = evaluation.queries
    names = [f"P@{k}" for k in range(1, min(DEPTH, len(queries.ids) - 1) + 1)]
    trial = unseen_trial(queries, evaluation.expand, evaluation.shuffle)
    found = trial_measures(trial, [measure, *names])
    itself = np.ones(len(hits.asked), dtype=np.bool_)
    return Unseen(
        found[measure],
        np.array([found[name].mean() for name in names]),
        float(relevant_counts(hits.asked, hits.asked, itself).mean()),
    )
