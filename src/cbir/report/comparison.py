"""Comparisons of runs, as `cbir evaluate --json` gives them, as a section of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cbir.report.content import Block, Section, Table, Text

_NOTE = (
    "Differences are of means over the same queries. The interval is a bootstrap over queries; p "
    "is of the paired randomisation test, Holm's correction for several pairs included."
)


def comparison_section(
    comparisons: Sequence[Mapping[str, Any]], about: str | None = None
) -> list[Section]:
    """What one measure says in sentences, all in a table, that measure class by class.

    Nothing where there is no comparison. A comparison has "measure", "a", "b", "mean_a", "mean_b",
    "difference", "interval", "p_adjusted", "wins", "ties", "losses", "in_words" and "classes".
    `about`: what the rest of the page is about, where that is one of several.
    """
    if not comparisons:
        return []
    names = [one["measure"] for one in comparisons]
    measure = next((name for name in names if name.startswith("nAP")), names[0])
    main = [one for one in comparisons if one["measure"] == measure]
    blocks: list[Block] = [Text(one["in_words"]) for one in main]
    rows = [
        [
            f"{one['b']} against {one['a']}",
            one["measure"],
            f"{one['mean_b']:.4f}",
            f"{one['mean_a']:.4f}",
            f"{one['difference']:+.4f}",
            f"{one['interval'][0]:+.4f} to {one['interval'][1]:+.4f}",
            _told(one["p_adjusted"]),
            f"{one['wins']:,} / {one['ties']:,} / {one['losses']:,}",
        ]
        for one in comparisons
    ]
    header = [
        *("b against a", "measure", "b", "a", "b - a", "95% interval", "p"),
        "b wins / ties / losses",
    ]
    blocks += [Table("All comparisons", header, rows, wide=True), Text(_NOTE), *_classes(main)]
    if about is not None:
        blocks.append(Text(f"The rest of this page is about {about}."))
    return [Section("comparisons", "Are the differences real?", blocks)]


def _classes(comparisons: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One measure class by class, a column a run: the first, and each that is compared with it."""
    first = comparisons[0]["a"]
    with_first = [one for one in comparisons if one["a"] == first]
    if not with_first[0].get("classes"):
        return []
    rows = [
        [
            label,
            f"{of['n_queries']:,}",
            f"{of['mean_a']:.4f}",
            *(f"{one['classes'][label]['mean_b']:.4f}" for one in with_first),
        ]
        for label, of in with_first[0]["classes"].items()
    ]
    header = ["class", "queries", first, *(one["b"] for one in with_first)]
    return [Table(f"{with_first[0]['measure']} class by class", header, rows, folded=True)]


def _told(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
