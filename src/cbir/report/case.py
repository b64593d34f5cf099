"""What the parts of an evaluation's report have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbir.evaluation import Evaluation, Queries, rank
from cbir.evaluation.protocols import unseen_trial, usual_trial
from cbir.evaluation.rankings import Hits, answers, first_hits, trial_measures
from cbir.index.base import Matches
from cbir.report.statistics import Floats
from cbir.report.tables import LEAVE_ONE_OUT, USUAL
from cbir.search.searcher import Searcher

DEPTH = 100
"""How many hits of each query the report looks at."""


@dataclass(frozen=True)
class Unseen:
    """Leave-one-out, where the usual protocol leads.

    `values` (q,): of the case's own measure; `precision`: mean P@1 ... P@k; `relevant`: how many
    images are relevant to a query on average.
    """

    values: Floats
    precision: Floats
    relevant: float


@dataclass(frozen=True)
class Case:
    """An evaluation and what the report's parts need of it.

    `main`: the protocol of its measures, USUAL or LEAVE_ONE_OUT. `labels`: id -> label of what is
    searched under it, `thumbnail` the encoded picture of an id there. `matches` and `hits`: the
    first `DEPTH` of each query. `values` (q,): the figure of each query by which it is good or bad,
    called `measure`: the first nAP@k that was asked for. `unseen`: leave-one-out, where it was
    asked for as well.
    """

    evaluation: Evaluation
    searcher: Searcher
    main: str
    labels: Mapping[str, str | None]
    thumbnail: Callable[[str], bytes | None]
    matches: Sequence[Matches]
    hits: Hits
    measure: str
    values: Floats
    unseen: Unseen | None


def case_of(evaluation: Evaluation, searcher: Searcher) -> Case:
    """The first hits of every query and its figure, under each protocol."""
    queries = evaluation.queries
    among_queries = evaluation.main == "unseen"
    labels, thumbnail = _searched(searcher, queries, among_queries)
    matches = _deep_enough(evaluation, searcher, labels)
    hits = first_hits(queries, matches, labels, DEPTH)
    deepest = f"nAP@{min(DEPTH, max(1, hits.labels.shape[1]))}"
    measure = next((name for name in evaluation.per_query if name.startswith("nAP@")), deepest)
    values = evaluation.per_query.get(measure)
    if values is None:
        values = hits.measures([measure])[measure]
    return Case(
        evaluation=evaluation,
        searcher=searcher,
        main=LEAVE_ONE_OUT if among_queries else USUAL,
        labels=labels,
        thumbnail=thumbnail,
        matches=matches,
        hits=hits,
        measure=measure,
        values=values,
        unseen=_unseen(evaluation, measure) if len(evaluation.values) > 1 else None,
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
    queries, options = evaluation.queries, evaluation.options
    itself = any(query in labels for query in queries.ids)
    wanted = min(DEPTH, max(1, len(labels) - itself))
    if all(len(found.ids) >= wanted for found in evaluation.matches):
        return evaluation.matches
    if evaluation.main == "unseen":
        return answers(unseen_trial(queries, options), wanted)
    if options.shuffle is not None:
        return answers(usual_trial(searcher, queries, options), wanted)
    return rank(searcher, queries, wanted, options.expand)


def _unseen(evaluation: Evaluation, measure: str) -> Unseen:
    queries = evaluation.queries
    names = [f"P@{k}" for k in range(1, min(DEPTH, len(queries.ids) - 1) + 1)]
    trial = unseen_trial(queries, evaluation.options)
    found = trial_measures(trial, [measure, *names])
    precision = np.array([found[name].mean() for name in names])
    return Unseen(found[measure], precision, float(trial.relevant.mean()))
