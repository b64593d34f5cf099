"""An evaluation, prepared for the sections of its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbir.evaluation import Evaluation, rank
from cbir.evaluation.protocols import unseen_trial, usual_trial
from cbir.evaluation.rankings import Hits, answers, first_hits, trial_measures
from cbir.index.base import Matches
from cbir.report.statistics import Floats, precision_at_ranks
from cbir.report.tables import LEAVE_ONE_OUT, TITLES
from cbir.search.searcher import Searcher

DEPTH = 100
"""How many hits of each query the report uses."""


@dataclass(frozen=True)
class Side:
    """The figures under one protocol.

    `values` (q,): of the case's measure; `precision`: mean P@1 ... P@k; `relevant`: how many of
    the `searched` images are relevant to a query on average.
    """

    values: Floats
    precision: Floats
    relevant: float
    searched: int


@dataclass(frozen=True)
class Case:
    """An evaluation with the data for the sections of its report.

    `sides`: by the title of the protocol, the main one first. Under that one, `labels` maps the
    ids of the searched images to labels, `thumbnail` gives the encoded picture of an id, and
    `matches` and `hits` are the first `DEPTH` of each query. `measure`: the one that ranks queries
    from good to bad, the first nAP@k that was requested.
    """

    evaluation: Evaluation
    searcher: Searcher
    sides: dict[str, Side]
    labels: Mapping[str, str | None]
    thumbnail: Callable[[str], bytes | None]
    matches: Sequence[Matches]
    hits: Hits
    measure: str

    @property
    def main(self) -> str:
        """The title of the main protocol."""
        return next(iter(self.sides))

    @property
    def values(self) -> Floats:
        """The measure of each query under the main protocol, (q,)."""
        return self.sides[self.main].values


def case_of(evaluation: Evaluation, searcher: Searcher) -> Case:
    """The case of `evaluation`: the first hits and the figures of every query."""
    queries = evaluation.queries
    labels, thumbnail = _searched(evaluation, searcher)
    matches = _deep_enough(evaluation, searcher, labels)
    hits = first_hits(queries, matches, labels, DEPTH)
    deepest = f"nAP@{min(DEPTH, max(1, hits.labels.shape[1]))}"
    measure = next((name for name in evaluation.per_query if name.startswith("nAP@")), deepest)
    values = evaluation.per_query.get(measure)
    if values is None:
        values = hits.measures([measure])[measure]
    precision = precision_at_ranks(hits.found)
    main = Side(values, precision, float(hits.relevant.mean()), max(1, len(labels)))
    sides = {TITLES[evaluation.main]: main}
    if len(evaluation.values) > 1:
        sides[LEAVE_ONE_OUT] = _leave_one_out(evaluation, measure)
    return Case(evaluation, searcher, sides, labels, thumbnail, matches, hits, measure)


def _searched(
    evaluation: Evaluation, searcher: Searcher
) -> tuple[Mapping[str, str | None], Callable[[str], bytes | None]]:
    """Labels and pictures of the searched images: the index, or the other queries."""
    if evaluation.main == "usual":
        return searcher.index.labels(), searcher.index.thumbnail
    queries = evaluation.queries
    pictures = dict(zip(queries.ids, queries.thumbnails, strict=True))
    return dict(zip(queries.ids, queries.labels, strict=True)), pictures.get


def _deep_enough(
    evaluation: Evaluation, searcher: Searcher, labels: Mapping[str, str | None]
) -> Sequence[Matches]:
    """The first hits, searched for again if the measures needed fewer than the report does."""
    queries, options = evaluation.queries, evaluation.options
    itself = any(query in labels for query in queries.ids)
    wanted = min(DEPTH, max(1, len(labels) - itself))
    if all(len(found.ids) >= wanted for found in evaluation.matches):
        return evaluation.matches
    if evaluation.main == "unseen":
        return answers(unseen_trial(queries, options), wanted)
    if options.shuffle is not None:
        return answers(usual_trial(searcher, queries, options), wanted)
    return rank(searcher, queries, wanted, options.search)


def _leave_one_out(evaluation: Evaluation, measure: str) -> Side:
    others = max(1, len(evaluation.queries.ids) - 1)
    names = [f"P@{k}" for k in range(1, min(DEPTH, others) + 1)]
    trial = unseen_trial(evaluation.queries, evaluation.options)
    found = trial_measures(trial, [measure, *names])
    precision = np.array([found[name].mean() for name in names])
    return Side(found[measure], precision, float(trial.relevant.mean()), others)
