"""Results by class, and confusions between classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.rankings import Hits
from cbir.measures.significance import class_means
from cbir.report.case import Case
from cbir.report.content import Block, Plot, Section, Table, Text
from cbir.report.curves import spread_block
from cbir.report.plots import class_plot, matrix_plot
from cbir.report.statistics import Floats, taken_for
from cbir.report.tables import class_table
from cbir.wording import counted, percent

FIRST = 10
MANY_CLASSES = 24
"""If there are more classes, only the best and worst are drawn."""

PAIRS = 12
MOST_SHOWN = 16
WIDE_FROM = 12
NO_LABEL = "(no label)"


def class_section(case: Case) -> Section:
    """A bar per class, the spread of the queries, and a table of all measures by class."""
    evaluation, measure = case.evaluation, case.measure
    labels = evaluation.queries.labels
    classes = class_means({measure: case.values, **evaluation.per_query}, labels)
    best_first = sorted(classes, key=lambda label: -classes[label].measures[measure])
    drawn, some = best_and_worst(best_first, MANY_CLASSES)
    means = {
        title: class_means({measure: side.values}, labels) for title, side in case.sides.items()
    }
    drawn_means = {
        title: np.array([of[label].measures[measure] for label in drawn])
        for title, of in means.items()
    }
    figure = class_plot(drawn, drawn_means, f"mean {measure}", bars=True)
    best, worst = best_first[0], best_first[-1]
    said = (
        f"Best: {best} ({classes[best].measures[measure]:.3f}). "
        f"Worst: {worst} ({classes[worst].measures[measure]:.3f})."
    )
    shown = f"{said} Shown: {some}." if some else said
    table = class_table(
        f"All measures of all {counted(len(classes), 'class')}",
        {label: classes[label] for label in best_first},
        folded=True,
    )
    return Section(
        "classes",
        "Results by class and query",
        [
            Plot("classes", f"Mean {measure} of each class", figure, said, shown),
            spread_block({case.main: case.values}, measure),
            table,
        ],
    )


def best_and_worst(best_first: list[str], most: int) -> tuple[list[str], str]:
    """All classes, or the best and worst of more than `most`, and a remark that says so."""
    half = most // 2
    if len(best_first) <= most:
        return best_first, ""
    remark = f"the {half} best and {half} worst of {len(best_first)} classes"
    return best_first[:half] + best_first[-half:], remark


def confusion_section(hits: Hits) -> Section:
    """The classes of the first hits for each class's queries.

    If a query has fewer than `FIRST` relevant images, only that many hits count, because no more
    can be right.
    """
    limits = np.clip(hits.relevant, 1, min(FIRST, hits.labels.shape[1]))
    first, rule = f"first {limits.max()} hits", ""
    if limits.min() < limits.max():
        first = "first hits"
        rule = f" At most {limits.max()} per query, and no more than are relevant to it."
    shares = taken_for(hits, limits)
    columns = [*hits.classes, NO_LABEL]
    rows = np.flatnonzero(~np.isnan(shares[:, 0]))
    pairs = _most_confused(shares, rows)
    blocks: list[Block] = []
    if not pairs:
        return Section(
            "confusions",
            "Confusions between classes",
            [Text(f"None: all of the {first} are right.")],
        )
    shown_rows, shown_columns = shown_classes(shares, rows, pairs, MANY_CLASSES)
    figure = matrix_plot(
        [hits.classes[r] for r in shown_rows],
        [columns[c] for c in shown_columns],
        shares[np.ix_(shown_rows, shown_columns)],
        ("class of the query", "class of the hits"),
    )
    row, column = pairs[0]
    said = (
        f"Most frequent confusion: {hits.classes[row]} mistaken for {columns[column]} "
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
            f"Rows are classes of queries, columns classes of hits. {said}",
            f"Rows: classes of queries; columns: classes of their {first}. "
            f"Blue is right, orange is wrong.{rule}{some} {said}",
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
    return Section("confusions", "Confusions between classes", blocks)


def _most_confused(shares: Floats, rows: NDArray[np.intp]) -> list[tuple[int, int]]:
    wrong = np.where(np.isnan(shares), 0.0, shares)
    wrong[np.arange(len(wrong)), np.arange(len(wrong))] = 0
    order = np.argsort(-wrong[rows], axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(order, (len(rows), shares.shape[1])), strict=True)
    pairs = [(int(rows[row]), int(column)) for row, column in places]
    return [(row, column) for row, column in pairs if wrong[row, column] > 0]


def shown_classes(
    shares: Floats, rows: NDArray[np.intp], pairs: Sequence[tuple[int, int]], most: int
) -> tuple[list[int], list[int]]:
    """Rows and columns of the matrix: all, or if there are more than `most`, those of `pairs`.

    Columns beyond the classes are only shown if they hold something.
    """
    count = len(shares)
    others = [c for c in range(count, shares.shape[1]) if np.nansum(shares[:, c]) > 0]
    if count <= most:
        return rows.tolist(), [*range(count), *others]
    chosen: dict[int, None] = {}
    for row, column in pairs:
        for code in (row, column):
            if code < count and len(chosen) < MOST_SHOWN:
                chosen[code] = None
    together = sorted(chosen) or rows[:MOST_SHOWN].tolist()
    asked = set(rows.tolist())
    return [code for code in together if code in asked], [*together, *others]
