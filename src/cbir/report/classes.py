"""Class by class: how good each one is, and what it is taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.report.content import Block, Plot, Section, Table, Text
from cbir.report.drawing import drawing
from cbir.report.plots import class_plot, matrix_plot, spread_plot
from cbir.report.rankings import Floats, Ranked, class_means, taken_for
from cbir.report.words import percent
from cbir.wording import counted

FIRST = 10
MANY_CLASSES = 24
"""More classes than this are drawn as the best and worst of them."""

PAIRS = 12
MOST_SHOWN = 16
WIDE_FROM = 12
NO_LABEL = "(no label)"


def class_section(
    hits: Ranked,
    values: Floats,
    unseen: Floats | None,
    measure: str,
    main: str,
    per_query: Mapping[str, Floats],
) -> Section:
    """A bar a class by the mean of `values` (q,), called `measure`, and a table of all measures.

    `main`: the protocol of the values.
    """
    count = len(hits.classes)
    means = class_means(values, hits.asked, count)
    others = None if unseen is None else class_means(unseen, hits.asked, count)
    sizes = np.bincount(hits.asked[hits.asked >= 0], minlength=count)
    there = np.flatnonzero(sizes)
    order = there[np.argsort(-means[there], kind="stable")]
    drawn = order
    if len(order) > MANY_CLASSES:
        half = MANY_CLASSES // 2
        drawn = np.concatenate([order[:half], order[-half:]])
    with drawing():
        figure = class_plot(
            [hits.classes[c] for c in drawn],
            means[drawn],
            None if others is None else others[drawn],
            f"mean {measure}",
            main,
            "unseen index",
        )
        spread = spread_plot({measure: values}, measure)
    best, worst = order[0], order[-1]
    said = (
        f"Best: {hits.classes[best]} ({means[best]:.3f}). "
        f"Worst: {hits.classes[worst]} ({means[worst]:.3f})."
    )
    left_out = (
        f" The {MANY_CLASSES // 2} best and {MANY_CLASSES // 2} worst of {len(order)} classes."
        if len(order) > MANY_CLASSES
        else ""
    )
    quartiles = np.quantile(values, (0.25, 0.5, 0.75))
    spread_said = (
        f"A quarter of the queries have at most {quartiles[0]:.3f}, half {quartiles[1]:.3f}, "
        f"three quarters {quartiles[2]:.3f}."
    )
    names = list(per_query)
    table = {name: class_means(per_query[name], hits.asked, count) for name in names}
    return Section(
        "classes",
        "Class by class, query by query",
        [
            Plot("classes", f"Mean {measure} of each class", figure, said, f"{said}{left_out}"),
            Plot("spread", f"Queries by their {measure}", spread, spread_said, spread_said),
            Table(
                f"All measures of all {counted(len(order), 'class')}",
                ["class", "queries", *names],
                [
                    [hits.classes[c], f"{sizes[c]:,}", *(f"{table[n][c]:.4f}" for n in names)]
                    for c in order
                ],
                folded=True,
            ),
        ],
    )


def confusion_section(hits: Ranked, relevant: NDArray[np.int64]) -> Section:
    """Which classes the first hits of each class's queries are of.

    Of a query with fewer than `FIRST` images in `relevant` (q,), only as many hits count: the
    others cannot be right.
    """
    limits = np.clip(relevant, 1, min(FIRST, hits.labels.shape[1]))
    first, rule = f"first {limits.max()} hits", ""
    if limits.min() < limits.max():
        first = "first hits"
        rule = f" At most {limits.max()} of a query, and no more than are relevant to it."
    shares = taken_for(hits, limits)
    columns = [*hits.classes, NO_LABEL]
    rows = np.flatnonzero(~np.isnan(shares[:, 0]))
    pairs = _most_confused(shares, rows)
    blocks: list[Block] = []
    if not pairs:
        return Section(
            "confusions",
            "What is taken for what",
            [Text(f"Nothing: all of the {first} are right.")],
        )
    shown_rows, shown_columns = _shown(shares, rows, pairs)
    with drawing():
        figure = matrix_plot(
            [hits.classes[r] for r in shown_rows],
            [columns[c] for c in shown_columns],
            shares[np.ix_(shown_rows, shown_columns)],
        )
    row, column = pairs[0]
    said = (
        f"Most often taken for another: {hits.classes[row]} for {columns[column]} "
        f"({percent(float(shares[row, column]))} of its {first})."
    )
    some = (
        f" The {len(shown_rows)} classes most often confused, of {len(rows)}."
        if len(shown_rows) < len(rows)
        else ""
    )
    blocks.append(
        Plot(
            "confusions",
            f"Share of the {first}, in percent",
            figure,
            f"A row is a query's class, a column its hits' class. {said}",
            f"A row: queries of a class; a column: the class of their {first}. "
            f"Blue is right, orange wrong.{rule}{some} {said}",
            wide=len(shown_columns) > WIDE_FROM,
        )
    )
    blocks.append(
        Table(
            "The most frequent confusions",
            ["queries of", "hits of", f"share of the {first}"],
            [[hits.classes[r], columns[c], percent(float(shares[r, c]))] for r, c in pairs],
            numbers=False,
            wide=len(shown_columns) > WIDE_FROM,
        )
    )
    return Section("confusions", "What is taken for what", blocks)


def _most_confused(shares: Floats, rows: NDArray[np.intp]) -> list[tuple[int, int]]:
    wrong = np.where(np.isnan(shares), 0.0, shares)
    wrong[np.arange(len(wrong)), np.arange(len(wrong))] = 0
    order = np.argsort(-wrong[rows], axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(order, (len(rows), shares.shape[1])), strict=True)
    pairs = [(int(rows[row]), int(column)) for row, column in places]
    return [(row, column) for row, column in pairs if wrong[row, column] > 0]


def _shown(
    shares: Floats, rows: NDArray[np.intp], pairs: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Rows and columns of the matrix: all, or those of the most frequent confusions."""
    unlabelled = shares.shape[1] - 1
    has_unlabelled = bool(np.nansum(shares[:, unlabelled]) > 0)
    classes = range(unlabelled)
    if len(classes) <= MANY_CLASSES:
        return rows.tolist(), [*classes, *([unlabelled] if has_unlabelled else [])]
    chosen: dict[int, None] = {}
    for row, column in pairs:
        for code in (row, column):
            if code != unlabelled and len(chosen) < MOST_SHOWN:
                chosen[code] = None
    together = sorted(chosen)
    asked = set(rows.tolist())
    columns = [*together, *([unlabelled] if has_unlabelled else [])]
    return [code for code in together if code in asked], columns
