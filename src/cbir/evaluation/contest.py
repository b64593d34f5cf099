"""Several evaluations of the same queries, compared query by query under each protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import QueryError
from cbir.evaluation.result import Evaluation
from cbir.measures.significance import compare_runs

_UNSEEN = " on the unseen index"
_MEMORY = " under the usual protocol, index = training images,"

PerQuery = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Compared:
    """Evaluations of several indexes that were asked the same queries.

    `rows` int64 (q,) for each of them: where the q queries that all could describe stand in it.
    `comparisons`: every pair in every measure as `cbir evaluate --json` prints them, each with its
    "protocol", "usual" or "unseen".
    """

    names: list[str]
    evaluations: list[Evaluation]
    rows: list[NDArray[np.int64]]
    comparisons: list[dict[str, Any]]

    @property
    def labels(self) -> list[str | None]:
        """The labels of the queries that are compared, (q,)."""
        return [self.evaluations[0].queries.labels[row] for row in self.rows[0].tolist()]


def compare_evaluations(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Compared:
    """Compare `evaluations`, called `names`, of the same queries under the same protocol.

    Queries are the same where their ids are but for the source's name, which each index gives.
    One that some index could not describe is left out. Where all have an unseen index, it is
    compared as well: on the usual protocol a model that knows the indexed images by heart may
    seem the better one. Raises `QueryError` where no query is common to all.
    """
    rows = _common_rows(evaluations)
    labels = [evaluations[0].queries.labels[row] for row in rows[0].tolist()]
    comparisons = []
    for protocol, values, under in _protocols(evaluations):
        runs = [
            (name, {measure: column[chosen] for measure, column in of_queries.items()})
            for name, of_queries, chosen in zip(names, values, rows, strict=True)
        ]
        found = compare_runs(runs, labels, under=under)
        comparisons += [{"protocol": protocol, **one} for one in found]
    return Compared(list(names), list(evaluations), rows, comparisons)


def _common_rows(evaluations: Sequence[Evaluation]) -> list[NDArray[np.int64]]:
    places = [
        {query.partition("/")[2]: row for row, query in enumerate(one.queries.ids)}
        for one in evaluations
    ]
    common = [key for key in places[0] if all(key in others for others in places[1:])]
    if not common:
        raise QueryError("there is no query that every index could describe")
    return [np.array([of_index[key] for key in common], dtype=np.int64) for of_index in places]


def _protocols(
    evaluations: Sequence[Evaluation],
) -> list[tuple[str, Sequence[PerQuery], str]]:
    """Each protocol, the values of every evaluation under it, and what sentences call it."""
    if evaluations[0].protocol == "unseen":
        return [("unseen", [one.per_query for one in evaluations], _UNSEEN)]
    memory = any(one.training_images_indexed for one in evaluations)
    found: list[tuple[str, Sequence[PerQuery], str]] = [
        ("usual", [one.per_query for one in evaluations], _MEMORY if memory else "")
    ]
    unseen = [one.unseen_per_query for one in evaluations if one.unseen_per_query is not None]
    if len(unseen) == len(evaluations):
        found.append(("unseen", unseen, _UNSEEN))
    return found
