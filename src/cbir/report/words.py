"""Numbers and explanations as people read them."""

from __future__ import annotations

AP_NOTE = (
    "AP@k is trec_eval's map_cut_k: divided by all R relevant images, it cannot exceed k / R. "
    "nAP@k divides by min(k, R), so it can reach 1."
)


def percent(share: float) -> str:
    """A share as a percentage of two or three digits: `88.4%`, `100%`."""
    return f"{100 * share:.1f}%" if share < 0.9995 else "100%"


def sentence(words: str) -> str:
    """`words` with a capital letter and a full stop."""
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"
