"""What the parts of an evaluation's report have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbir.evaluation.relevance import class_measures, relevant_counts
from cbir.experiment import Evaluation, Queries, rank
from cbir.experiment.protocols import unseen_trial, usual_trial
from cbir.experiment.rankings import answers, trial_measures
from cbir.index.base import Matches
from cbir.report.rankings import Floats, Ranked, encoded, ranked
from cbir.search import Searcher

DEPTH = 100
"""How many hits of each query the report looks at."""

USUAL, UNSEEN = "usual protocol", "unseen index"


@dataclass(frozen=True)
class Case:
    """An evaluation and what the report's parts need of it.

    `main`: the protocol that `matches` and `hits` are of. `labels` and `thumbnail` are of what was
    searched: the indexed images, or the queries where the protocol is "unseen". `values` (q,): the
    figure of each query by which it is good or bad, called `measure`; `unseen` the same of the
    unseen index beside the usual protocol, `unseen_precision` its mean P@1 ... P@k; None without.
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
    unseen: Floats | None
    unseen_precision: Floats | None


def case_of(evaluation: Evaluation, searcher: Searcher, expand: int) -> Case:
    """The first hits of every query, its figure, and the same of the unseen index."""
    queries = evaluation.queries
    main = UNSEEN if evaluation.protocol == "unseen" else USUAL
    labels: Mapping[str, str | None] = searcher.index.labels()
    thumbnail: Callable[[str], bytes | None] = searcher.index.thumbnail
    if main == UNSEEN:
        labels = dict(zip(queries.ids, queries.labels, strict=True))
        thumbnail = dict(zip(queries.ids, queries.thumbnails, strict=False)).get
    matches = _deep_enough(evaluation, searcher, expand, main, len(labels))
    hits = ranked(queries.labels, matches, labels, DEPTH)
    measure = f"nAP@{min(DEPTH, max(1, hits.labels.shape[1]))}"
    values = evaluation.per_query.get(measure)
    if values is None:
        values = _values(labels, queries, hits, measure)
    unseen = unseen_precision = None
    if main == USUAL and evaluation.unseen_index is not None:
        names = [f"P@{rank}" for rank in range(1, min(DEPTH, len(queries.ids) - 1) + 1)]
        trial = unseen_trial(queries, expand, evaluation.shuffle)
        other = trial_measures(trial, [measure, *names])
        unseen = other[measure]
        unseen_precision = np.array([other[name].mean() for name in names])
    return Case(
        evaluation,
        searcher,
        main,
        labels,
        thumbnail,
        matches,
        hits,
        measure,
        values,
        unseen,
        unseen_precision,
    )


def _deep_enough(
    evaluation: Evaluation, searcher: Searcher, expand: int, main: str, searched: int
) -> Sequence[Matches]:
    """The first hits, searched again where what was measured needed fewer than the report does."""
    wanted = min(DEPTH, max(1, searched - 1))
    if all(len(found.ids) >= wanted for found in evaluation.matches):
        return evaluation.matches
    queries, shuffle = evaluation.queries, evaluation.shuffle
    if main == UNSEEN:
        return answers(unseen_trial(queries, expand, shuffle), wanted)
    if shuffle is not None:
        return answers(usual_trial(searcher, queries, expand, shuffle), wanted)
    return rank(searcher, queries, wanted, expand)


def _values(
    labels: Mapping[str, str | None], queries: Queries, hits: Ranked, measure: str
) -> Floats:
    indexed = encoded(hits.classes, list(labels.values()))
    asked = zip(queries.ids, queries.labels, strict=True)
    own = np.array([query in labels and labels[query] == label for query, label in asked])
    relevant = relevant_counts(indexed, hits.asked, own)
    return class_measures(hits.labels, hits.asked, relevant, [measure])[measure]
