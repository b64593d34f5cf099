"""Comparisons of runs, as `cbir evaluate --json` gives them, as a section of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cbir.report.content import Block, Section, Table, Text

Comparison = Mapping[str, Any]


def comparison_section(comparisons: Sequence[Comparison]) -> list[Section]:
    """Each pair in a sentence, then all comparisons in a table, and class by class.

    `comparisons` as `cbir evaluate --json` gives them, those of each protocol by themselves;
    nothing where there is none. The sentences are about one measure, nAP@k where it is among them.
    """
    if not comparisons:
        return []
    main = main_measure(one["measure"] for one in comparisons)
    of_main = [one for one in comparisons if one["measure"] == main]
    blocks: list[Block] = [Text(str(one["in_words"])) for one in of_main]
    for protocol in dict.fromkeys(one.get("protocol", "") for one in comparisons):
        under = {"usual": ", usual protocol", "unseen": ", unseen index"}.get(protocol, "")
        found = [one for one in comparisons if one.get("protocol", "") == protocol]
        blocks.append(_table(found, under))
        blocks += [_classes(one, under) for one in found if one in of_main and one["classes"]]
    return [Section("comparisons", "Are the differences real?", blocks)]


def main_measure(names: Iterable[str]) -> str:
    """The measure that a report shows more of: nAP@k where it is among them."""
    known = list(names)
    return next((name for name in known if name.startswith("nAP")), known[0])


def _table(comparisons: Sequence[Comparison], under: str) -> Table:
    corrected = any(one["p"] != one["p_adjusted"] for one in comparisons)
    pairs = {(one["a"], one["b"]) for one in comparisons}
    [(a, b)] = pairs if len(pairs) == 1 else [("", "")]
    return Table(
        f"All comparisons{under}" + (f": a is {a}, b is {b}" if a else ""),
        [
            *("measure", *([] if a else ["a", "b"]), "b - a", "significant", "p"),
            *(["p corrected"] if corrected else []),
            *("95% interval", "b wins", "ties", "losses"),
        ],
        [
            [
                str(one["measure"]),
                *([] if a else [str(one["a"]), str(one["b"])]),
                f"{one['difference']:+.4f}",
                "yes" if one["significant"] else "no",
                f"{one['p']:.4f}",
                *([f"{one['p_adjusted']:.4f}"] if corrected else []),
                f"{one['interval'][0]:+.4f} to {one['interval'][1]:+.4f}",
                *(f"{one[count]:,}" for count in ("wins", "ties", "losses")),
            ]
            for one in comparisons
        ],
        wide=True,
    )


def _classes(one: Comparison, under: str) -> Table:
    rows = sorted(one["classes"].items(), key=lambda row: row[1]["difference"])
    return Table(
        f"{one['measure']} of {one['a']} and {one['b']}, class by class{under}",
        ["class", "queries", str(one["a"]), str(one["b"]), "b - a"],
        [
            [
                str(label),
                f"{of['n_queries']:,}",
                f"{of['mean_a']:.4f}",
                f"{of['mean_b']:.4f}",
                f"{of['difference']:+.4f}",
            ]
            for label, of in rows
        ],
        folded=True,
    )
