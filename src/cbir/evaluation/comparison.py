"""Compares evaluations of the same queries, query by query, under each protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import QueryError
from cbir.evaluation.protocols import OneProtocol
from cbir.evaluation.result import Evaluation
from cbir.measures.significance import Comparison, compare_runs

_LEAVE_ONE_OUT = " (leave-one-out)"
_MEMORY = " (usual protocol, index = training images)"


@dataclass(frozen=True)
class ComparedEvaluations:
    """Evaluations of several indexes with the same queries.

    `rows` int64 (q,) for each evaluation: the rows of the q queries that every index could
    describe. `labels` (q,): the labels of those queries. `comparisons`: for each protocol, every
    pair of evaluations in every measure.
    """

    names: list[str]
    evaluations: list[Evaluation]
    rows: list[NDArray[np.int64]]
    labels: list[str | None]
    comparisons: dict[OneProtocol, list[Comparison]]

    def to_json(self) -> list[dict[str, Any]]:
        """The comparisons as in `cbir evaluate --json`."""
        return [
            {"protocol": protocol, **one.to_json()}
            for protocol, of_protocol in self.comparisons.items()
            for one in of_protocol
        ]


def compare_evaluations(
    names: Sequence[str], evaluations: Sequence[Evaluation]
) -> ComparedEvaluations:
    """Compare `evaluations`, called `names`, of the same queries under the same protocols.

    Queries are matched by id without the source's name, which each index chooses. Queries that
    some index could not describe are left out. Leave-one-out is compared if all evaluations have
    it, because under the usual protocol a model that has memorised the indexed images looks
    better than it is. Raises `QueryError` if the indexes share no query.
    """
    rows = _common_rows(evaluations)
    labels = [evaluations[0].queries.labels[row] for row in rows[0].tolist()]
    memory = any(one.training_images_indexed for one in evaluations)
    under: dict[OneProtocol, str] = {"usual": _MEMORY if memory else "", "unseen": _LEAVE_ONE_OUT}
    comparisons = {}
    for protocol in evaluations[0].values:
        if all(protocol in one.values for one in evaluations):
            runs = [
                (name, {measure: of[chosen] for measure, of in one.values[protocol].items()})
                for name, one, chosen in zip(names, evaluations, rows, strict=True)
            ]
            comparisons[protocol] = compare_runs(runs, labels, under=under[protocol])
    return ComparedEvaluations(list(names), list(evaluations), rows, labels, comparisons)


def _common_rows(evaluations: Sequence[Evaluation]) -> list[NDArray[np.int64]]:
    places = [
        {query.partition("/")[2]: row for row, query in enumerate(one.queries.ids)}
        for one in evaluations
    ]
    common = [key for key in places[0] if all(key in others for others in places[1:])]
    if not common:
        raise QueryError("there is no query that every index could describe")
    return [np.array([of_index[key] for key in common], dtype=np.int64) for of_index in places]
