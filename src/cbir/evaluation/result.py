"""The result of an evaluation, with notes on how to read its figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.caveats import Overlap
from cbir.evaluation.hamming import Hamming
from cbir.evaluation.protocols import EvaluationOptions, OneProtocol
from cbir.evaluation.queries import Queries
from cbir.index.base import Matches
from cbir.types import Failure
from cbir.wording import counted, listed

if TYPE_CHECKING:
    from cbir.evaluation.near_duplicates import NearDuplicates

NOT_FOR_A_SAMPLE = "A sample has no leave-one-out: too few images are relevant to a query"


@dataclass(frozen=True)
class Evaluation:
    """How good the answers of an index are, and what must be known to read the figures.

    `source`: the address of the queries. `n_queries`: how many were searched for. `descriptor`:
    name and short fingerprint. `options`: how the queries were searched for; `sample` is None where
    all of them were. `values`: under each protocol that was measured, measure -> the value of every
    query, float64 (n_queries,). "usual" searches the index; "unseen" is leave-one-out, which
    searches the queries among each other. `hamming`: means by binary codes, where asked for.

    `accuracy`: of the descriptor's own classifier on "training_images" (those indexed from its
    training source, held-out images included) and on "queries"; None where no image has one of its
    classes. `training_images_indexed`: whether the index holds images that the descriptor was
    trained on, so that the usual protocol's figures are partly memory. `near_duplicates`: the
    queries that were left out, None where none were searched for. `absent_labels`: labels of
    queries that no indexed image has, so that nothing is relevant. `queries` and `matches`: what
    was asked, and the answers under the leading protocol, best first.
    """

    source: str
    n_queries: int
    n_indexed: int
    descriptor: str
    options: EvaluationOptions
    values: dict[OneProtocol, dict[str, NDArray[np.float64]]]
    hamming: Hamming | None
    accuracy: dict[str, float | None] | None
    trained_on: str
    training_images_indexed: bool
    near_duplicates: NearDuplicates | None
    absent_labels: list[str]
    overlap: Overlap
    failures: list[Failure]
    seconds: dict[str, float]
    queries: Queries
    matches: list[Matches]

    @property
    def means(self) -> dict[OneProtocol, dict[str, float]]:
        """Under each protocol, measure -> mean."""
        return {
            protocol: {name: float(of.mean()) for name, of in values.items()}
            for protocol, values in self.values.items()
        }

    @property
    def main(self) -> OneProtocol:
        """The leading protocol: "usual", unless leave-one-out alone was asked for."""
        return next(iter(self.values))

    @property
    def measures(self) -> dict[str, float]:
        """Measure -> mean, under the leading protocol."""
        return self.means[self.main]

    @property
    def per_query(self) -> dict[str, NDArray[np.float64]]:
        """Measure -> the value of every query, under the leading protocol."""
        return self.values[self.main]

    @property
    def unseen_index(self) -> dict[str, float] | None:
        """Measure -> mean in leave-one-out, where it was measured."""
        return self.means.get("unseen")

    @property
    def unseen_per_query(self) -> dict[str, NDArray[np.float64]] | None:
        """Measure -> the value of every query in leave-one-out, where it was measured."""
        return self.values.get("unseen")

    @property
    def n_described(self) -> int:
        """How many queries were read, those that failed or were left out included."""
        left_out = 0 if self.near_duplicates is None else len(self.near_duplicates.ids)
        return self.n_queries + left_out + len(self.failures) + len(self.queries.unlabelled)

    def to_json(self) -> dict[str, Any]:
        """What `cbir evaluate --json` prints for one run."""
        return {
            "source": self.source,
            "n_queries": self.n_queries,
            "n_indexed": self.n_indexed,
            "descriptor": self.descriptor,
            "protocol": self.options.protocol,
            "measures": self.measures,
            "unseen_index": self.unseen_index,
            "hamming": self.hamming and self.hamming.to_json(),
            "accuracy": self.accuracy,
            "trained_on": self.trained_on,
            "training_images_indexed": self.training_images_indexed,
            "sample": self.options.sample,
            "expand": self.options.search.expand,
            "shuffle_ids": self.options.shuffle,
            "near_duplicates": self.near_duplicates and self.near_duplicates.to_json(),
            "absent_labels": self.absent_labels,
            "overlap": asdict(self.overlap),
            "notes": notes(self),
            "unlabelled_queries": self.queries.unlabelled,
            "failed": len(self.failures),
            "failures": [
                {"location": failure.location, "reason": failure.reason}
                for failure in self.failures
            ],
            "seconds": self.seconds,
        }


def notes(evaluation: Evaluation) -> list[str]:
    """What readers of the figures must know, as sentences: who was left out, what counts as 0."""
    return [
        *_left_out(evaluation),
        *_irrelevant(evaluation),
        *_overlapping(evaluation),
        *_asked(evaluation),
    ]


def _left_out(evaluation: Evaluation) -> list[str]:
    lines = []
    failures, unlabelled = evaluation.failures, evaluation.queries.unlabelled
    found = evaluation.near_duplicates
    if failures:
        unreadable = counted(len(failures), "query")
        first = f"{failures[0].location}: {failures[0].reason}"
        more = " ..." if len(failures) > 1 else ""
        lines.append(f"Left out: {unreadable} that cannot be read ({first}{more}).")
    if unlabelled:
        without = counted(len(unlabelled), "query")
        lines.append(f"Left out: {without} without a label ({listed(unlabelled)}).")
    if found is not None:
        left_out = f"{len(found.ids):,} of {counted(found.n_queries, 'query')}"
        share = len(found.ids) / found.n_queries
        lines.append(f"Left out: {left_out} ({share:.2%}), nearly the same as an indexed picture.")
        if found.doubtful:
            lines.append(
                "So many are rarely copies: pictures without much detail (digits, logos, scans) "
                "are mistaken for each other."
            )
    return lines


def _irrelevant(evaluation: Evaluation) -> list[str]:
    lines = []
    absent, overlap = evaluation.absent_labels, evaluation.overlap
    if absent:
        labels = counted(len(absent), "label")
        lines.append(
            f"Counted as 0: queries of {labels} that no indexed image has ({listed(absent)})."
        )
    if evaluation.main == "usual" and overlap.unlabelled:
        images = f"{overlap.unlabelled:,} of {evaluation.n_indexed:,} indexed images"
        lines.append(f"{images} have no label and are never right.")
    if "unseen" in evaluation.values and overlap.alone:
        alone = counted(overlap.alone, "query")
        lines.append(f"Leave-one-out: {alone} without another of the same label, counted as 0.")
    return lines


def _overlapping(evaluation: Evaluation) -> list[str]:
    if evaluation.main == "unseen":
        return []
    lines = []
    overlap, asked = evaluation.overlap, counted(evaluation.n_queries, "query")
    if overlap.indexed:
        lines.append(
            f"{overlap.indexed:,} of {asked} are indexed, each left out of its own answer."
        )
    if overlap.same_file:
        lines.append(
            f"{overlap.same_file:,} of {asked} find their own file under another id, "
            "which is an easy answer."
        )
    return lines


def _asked(evaluation: Evaluation) -> list[str]:
    lines = []
    options = evaluation.options
    if options.sample is not None and options.protocol == "both":
        lines.append(f"{NOT_FOR_A_SAMPLE}.")
    if options.shuffle is not None:
        lines.append(f"Equal scores are ordered by the seed {options.shuffle}, not by id.")
    return lines
