"""Comparisons of runs, as `cbir evaluate --json` gives them, as a section of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cbir.report.content import Block, Section, Table, Text


def comparison_section(comparisons: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Each comparison in a sentence, then all in a table; nothing where there is none.

    A comparison has "measure", "a", "b", "mean_a", "mean_b", "difference", "interval", "p",
    "p_adjusted", "wins", "ties", "losses" and "in_words".
    """
    if not comparisons:
        return []
    sentences: list[Block] = [Text(str(one["in_words"])) for one in comparisons]
    rows = [
        [
            f"{one['b']} against {one['a']}",
            str(one["measure"]),
            f"{one['difference']:+.4f}",
            f"{one['interval'][0]:+.4f} to {one['interval'][1]:+.4f}",
            _told(one["p_adjusted"]),
            f"{one['wins']:,} / {one['ties']:,} / {one['losses']:,}",
        ]
        for one in comparisons
    ]
    header = ["", "measure", "difference", "95% interval", "p", "wins / ties / losses"]
    table = Table("All comparisons", header, rows)
    return [Section("comparisons", "Are the differences real?", [*sentences, table])]


def _told(p: float | None) -> str:
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"
