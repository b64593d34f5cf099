"""Whether two answers to one question are the same, within what engines may differ in."""

from __future__ import annotations

from cbir.index.base import SCORE_TOLERANCE, Matches


def difference(one: Matches, other: Matches, tolerance: float = SCORE_TOLERANCE) -> str:
    """What tells two exact answers to the same query apart, in one line; empty if nothing does.

    Scores may differ by `tolerance`, records may change places where theirs are that close, and
    stand in one answer only where they are that close to its last one.
    """
    if len(one.ids) != len(other.ids):
        return f"{len(one.ids)} and {len(other.ids)} hits"
    for rank, (a, b) in enumerate(zip(one.scores.tolist(), other.scores.tolist(), strict=True), 1):
        if abs(a - b) > tolerance:
            return f"scores {a:.7f} and {b:.7f} at rank {rank}"
    scores = [dict(zip(m.ids, m.scores.tolist(), strict=True)) for m in (one, other)]
    for mine, theirs in (scores, scores[::-1]):
        last = min(theirs.values(), default=0.0)
        for record_id, score in mine.items():
            if abs(score - theirs.get(record_id, last)) > tolerance:
                return f"'{record_id}' with {score:.7f} is not where the other has it"
    return ""
