"""What must be known of an evaluation's figures to read them rightly, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cbir.experiment.evaluating import Evaluation

_LISTED = 10


def notes(evaluation: Evaluation) -> list[str]:
    """Who was left out, what counts as 0 and why, and how equal scores were ordered."""
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
        first = f"{failures[0].location} ({failures[0].reason})"
        more = " ..." if len(failures) > 1 else ""
        lines.append(f"left out: {_queries(len(failures))} that cannot be read: {first}{more}")
    if unlabelled:
        lines.append(f"left out: {_queries(len(unlabelled))} without a label: {_some(unlabelled)}")
    if found is not None:
        share = len(found.ids) / found.n_queries
        lines.append(
            f"left out: {len(found.ids):,} of {_queries(found.n_queries)} ({share:.2%}) that are "
            "nearly the same as an indexed picture"
        )
        if found.doubtful:
            lines.append(
                "so many are rarely copies: pictures without much detail (digits, logos, scans) "
                "are taken for each other"
            )
    return lines


def _irrelevant(evaluation: Evaluation) -> list[str]:
    lines = []
    absent, overlap = evaluation.absent_labels, evaluation.overlap
    if absent:
        labels = "1 label" if len(absent) == 1 else f"{len(absent):,} labels"
        lines.append(f"{labels} of the queries not in the index, counted as 0: {_some(absent)}")
    if evaluation.protocol != "unseen" and overlap.unlabelled:
        images = f"{overlap.unlabelled:,} of {evaluation.n_indexed:,} indexed images"
        lines.append(f"{images} have no label and are never right")
    if evaluation.unseen_index and overlap.alone:
        lines.append(
            f"unseen index: {_queries(overlap.alone)} without another of the same label, "
            "counted as 0"
        )
    return lines


def _overlapping(evaluation: Evaluation) -> list[str]:
    lines = []
    overlap, asked = evaluation.overlap, _queries(evaluation.n_queries)
    if evaluation.protocol != "unseen":
        if overlap.indexed:
            lines.append(f"{overlap.indexed:,} of {asked} indexed, each left out of its own answer")
        if overlap.same_file:
            lines.append(
                f"{overlap.same_file:,} of {asked} find their own file under another id: "
                "an easy answer"
            )
    return lines


def _asked(evaluation: Evaluation) -> list[str]:
    lines = []
    if evaluation.sample is not None and evaluation.protocol == "both":
        lines.append("a sample has no unseen index: too few images would be relevant to a query")
    if evaluation.shuffle is not None:
        lines.append(f"equal scores are ordered by the seed {evaluation.shuffle}, not by id")
    return lines


def _queries(count: int) -> str:
    return "1 query" if count == 1 else f"{count:,} queries"


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:_LISTED]) + (" ..." if len(words) > _LISTED else "")
