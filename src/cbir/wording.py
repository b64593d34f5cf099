"""Numbers and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_PLURALS = {"query": "queries", "class": "classes"}


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,000 images`, `2 queries`."""
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}"


def listed(words: Sequence[str], shown: int = 10) -> str:
    """The first of `words`: `a, b, c ...`."""
    return ", ".join(words[:shown]) + (" ..." if len(words) > shown else "")


def percent(share: float) -> str:
    """A share as a percentage of two or three digits: `88.4%`, `100%`."""
    return f"{100 * share:.1f}%" if share < 0.9995 else "100%"
