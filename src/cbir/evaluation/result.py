"""What an evaluation found, and what must be known of its figures to read them rightly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.hamming import Hamming
from cbir.evaluation.overlap import Overlap
from cbir.evaluation.protocols import OneProtocol, Protocol, by_protocol
from cbir.evaluation.queries import Queries
from cbir.index.base import Matches
from cbir.types import Failure
from cbir.wording import counted, listed

if TYPE_CHECKING:
    from cbir.evaluation.near_duplicates import NearDuplicates

NOT_FOR_A_SAMPLE = "A sample has no leave-one-out: too few images are relevant to a query"


@dataclass(frozen=True)
class Evaluation:
    """Means over all queries, and where they come from.

    `source`: the address of the queries. `n_queries`: how many were searched for.
    `measures`: by the usual protocol, queries against the index, unless `protocol` is "unseen".
    `unseen_index`: the queries searched among each other, each left out of its own answer (None
    under "usual", and for a sample, whose few relevant images would make it another experiment).
    `hamming`: the same by binary codes, where they were asked for.
    `accuracy`: of the descriptor's own classifier on "training_images" (those indexed from the
    source that it was trained on, the tenth it held out included) and on the "queries"; None where
    there are none of its classes. `training_images_indexed`: whether the index holds what the
    descriptor was trained on, so that the usual protocol's figures are partly memory. `per_query`
    as `measures`, `unseen_per_query` as `unseen_index`, float64 (n_queries,).
    `sample`: how many queries were drawn, None for all. `expand`: with how many hits each query was
    averaged. `shuffle`: the seed by which equal scores were ordered, None for the ids.
    `near_duplicates`: queries that were left out of all of this, None where none were looked for.
    `absent_labels`: labels of queries that no indexed image has, so that nothing is relevant.
    `overlap`: of queries and index.
    `queries` and `matches`: what was asked, and what was answered under the protocol of
    `measures`, best first.
    """

    source: str
    n_queries: int
    n_indexed: int
    descriptor: str
    protocol: Protocol
    measures: dict[str, float]
    per_query: dict[str, NDArray[np.float64]]
    unseen_index: dict[str, float] | None
    unseen_per_query: dict[str, NDArray[np.float64]] | None
    hamming: Hamming | None
    accuracy: dict[str, float | None] | None
    trained_on: str
    training_images_indexed: bool
    sample: int | None
    expand: int
    shuffle: int | None
    near_duplicates: NearDuplicates | None
    absent_labels: list[str]
    overlap: Overlap
    failures: list[Failure]
    seconds: dict[str, float]
    queries: Queries
    matches: list[Matches]

    @property
    def values(self) -> dict[OneProtocol, dict[str, NDArray[np.float64]]]:
        """Under each protocol, measure -> the value of every query, float64 (n_queries,)."""
        usual = None if self.protocol == "unseen" else self.per_query
        return by_protocol(usual, self.unseen_per_query)

    @property
    def means(self) -> dict[OneProtocol, dict[str, float]]:
        """Under each protocol, measure -> mean."""
        usual = None if self.protocol == "unseen" else self.measures
        return by_protocol(usual, self.unseen_index)

    @property
    def n_described(self) -> int:
        """How many queries were read and described, the left out and the unreadable among them."""
        left_out = 0 if self.near_duplicates is None else len(self.near_duplicates.ids)
        return self.n_queries + left_out + len(self.failures) + len(self.queries.unlabelled)

    def to_json(self) -> dict[str, Any]:
        """What `cbir evaluate --json` prints for one run."""
        return {
            "source": self.source,
            "n_queries": self.n_queries,
            "n_indexed": self.n_indexed,
            "descriptor": self.descriptor,
            "protocol": self.protocol,
            "measures": self.measures,
            "unseen_index": self.unseen_index,
            "hamming": self.hamming and self.hamming.to_json(),
            "accuracy": self.accuracy,
            "trained_on": self.trained_on,
            "training_images_indexed": self.training_images_indexed,
            "sample": self.sample,
            "expand": self.expand,
            "shuffle_ids": self.shuffle,
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
    """What must be known to read the figures, as sentences: left-out queries, what counts as 0."""
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
    if evaluation.protocol != "unseen" and overlap.unlabelled:
        images = f"{overlap.unlabelled:,} of {evaluation.n_indexed:,} indexed images"
        lines.append(f"{images} have no label and are never right.")
    if evaluation.unseen_index and overlap.alone:
        alone = counted(overlap.alone, "query")
        lines.append(f"Leave-one-out: {alone} without another of the same label, counted as 0.")
    return lines


def _overlapping(evaluation: Evaluation) -> list[str]:
    if evaluation.protocol == "unseen":
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
    if evaluation.sample is not None and evaluation.protocol == "both":
        lines.append(f"{NOT_FOR_A_SAMPLE}.")
    if evaluation.shuffle is not None:
        lines.append(f"Equal scores are ordered by the seed {evaluation.shuffle}, not by id.")
    return lines
