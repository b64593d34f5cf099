"""What must be known of an evaluation's figures to read them rightly, a sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cbir.wording import counted, listed

if TYPE_CHECKING:
    from cbir.experiment.evaluating import Evaluation


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
        lines.append(
            f"left out: {counted(len(failures), 'query')} that cannot be read: {first}{more}"
        )
    if unlabelled:
        lines.append(
            f"left out: {counted(len(unlabelled), 'query')} without a label: {listed(unlabelled)}"
        )
    if found is not None:
        left_out = f"{len(found.ids):,} of {counted(found.n_queries, 'query')}"
        share = len(found.ids) / found.n_queries
        lines.append(
            f"left out: {left_out} ({share:.2%}) that are nearly the same as an indexed picture"
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
        labels = counted(len(absent), "label")
        lines.append(f"{labels} of the queries not in the index, counted as 0: {listed(absent)}")
    if evaluation.protocol != "unseen" and overlap.unlabelled:
        images = f"{overlap.unlabelled:,} of {evaluation.n_indexed:,} indexed images"
        lines.append(f"{images} have no label and are never right")
    if evaluation.unseen_index and overlap.alone:
        lines.append(
            f"unseen index: {counted(overlap.alone, 'query')} without another of the same label, "
            "counted as 0"
        )
    return lines


def _overlapping(evaluation: Evaluation) -> list[str]:
    lines = []
    overlap, asked = evaluation.overlap, counted(evaluation.n_queries, "query")
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
