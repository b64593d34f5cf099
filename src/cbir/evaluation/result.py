"""The result of an evaluation, with its caveats."""

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

NOT_FOR_A_SAMPLE = "Leave-one-out needs all queries: in a sample, too few images are relevant"


@dataclass(frozen=True)
class Evaluation:
    """The measures of an index, with the facts needed to interpret them.

    `source`: the address of the queries. `n_queries`: how many were searched for. `descriptor`:
    name and short fingerprint. `options`: how the queries were searched for; `sample` is None if
    all of them were. `values`: under each protocol that was measured, measure -> the value of every
    query, float64 (n_queries,). "usual" searches the index; "unseen" is leave-one-out, which
    searches the queries among each other. `hamming`: means by binary codes, if requested.

    `accuracy`: of the descriptor's own classifier on "training_images" (those indexed from its
    training source, including held-out images) and on "queries"; None if no image has one of its
    classes. `training_images_indexed`: whether the index holds images that the descriptor was
    trained on, so that the usual protocol's figures are partly memorisation. `near_duplicates`:
    the queries that were left out, None if not requested. `absent_labels`: labels of queries that
    no indexed image has, so nothing is relevant. `queries` and `matches`: the queries, and their
    results under the main protocol, best first.
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
        """The main protocol: "usual", unless only leave-one-out was requested."""
        return next(iter(self.values))

    @property
    def measures(self) -> dict[str, float]:
        """Measure -> mean, under the main protocol."""
        return self.means[self.main]

    @property
    def per_query(self) -> dict[str, NDArray[np.float64]]:
        """Measure -> the value of every query, under the main protocol."""
        return self.values[self.main]

    @property
    def unseen_index(self) -> dict[str, float] | None:
        """Measure -> mean in leave-one-out, if it was measured."""
        return self.means.get("unseen")

    @property
    def unseen_per_query(self) -> dict[str, NDArray[np.float64]] | None:
        """Measure -> the value of every query in leave-one-out, if it was measured."""
        return self.values.get("unseen")

    @property
    def n_described(self) -> int:
        """How many queries were read, including those that failed or were left out."""
        left_out = 0 if self.near_duplicates is None else len(self.near_duplicates.ids)
        return self.n_queries + left_out + len(self.failures) + len(self.queries.unlabelled)

    def to_json(self) -> dict[str, Any]:
        """As in `cbir evaluate --json`, for one run."""
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
    """The caveats as sentences, such as which queries were left out and which count as 0."""
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
        lines.append(f"Left out: {left_out} ({share:.2%}) with a near-duplicate in the index.")
        if found.doubtful:
            lines.append(
                "This many are rarely copies: pictures with little detail (digits, logos, scans) "
                "are mistaken for each other."
            )
    return lines


def _irrelevant(evaluation: Evaluation) -> list[str]:
    lines = []
    absent, overlap = evaluation.absent_labels, evaluation.overlap
    if absent:
        labels = counted(len(absent), "label")
        lines.append(
            f"Counted as 0: queries with {labels} that no indexed image has ({listed(absent)})."
        )
    if evaluation.main == "usual" and overlap.unlabelled:
        images = f"{overlap.unlabelled:,} of {evaluation.n_indexed:,} indexed images"
        lines.append(f"{images} have no label and are never relevant.")
    if "unseen" in evaluation.values and overlap.alone:
        alone = counted(overlap.alone, "query")
        lines.append(f"Leave-one-out: {alone} whose label no other query has, counted as 0.")
    return lines


def _overlapping(evaluation: Evaluation) -> list[str]:
    if evaluation.main == "unseen":
        return []
    lines = []
    overlap, asked = evaluation.overlap, counted(evaluation.n_queries, "query")
    if overlap.indexed:
        lines.append(
            f"{overlap.indexed:,} of {asked} are indexed, each left out of its own results."
        )
    if overlap.same_file:
        lines.append(
            f"{overlap.same_file:,} of {asked} find their own file under another id, "
            "which is an easy match."
        )
    return lines


def _asked(evaluation: Evaluation) -> list[str]:
    lines = []
    options = evaluation.options
    if options.sample is not None and options.protocol == "both":
        lines.append(f"{NOT_FOR_A_SAMPLE}.")
    if options.shuffle is not None:
        lines.append(f"Ties are broken at random by seed {options.shuffle}, not by id.")
    return lines
