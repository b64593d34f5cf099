"""The report that compares several indexes with the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbir.evaluation import ComparedEvaluations
from cbir.measures.significance import class_means
from cbir.report.case import Case
from cbir.report.classes import MANY_CLASSES
from cbir.report.content import (
    Block,
    Example,
    Examples,
    Link,
    Links,
    Plot,
    Report,
    Section,
    Text,
)
from cbir.report.curves import curve_blocks, recall_curves, spread_block
from cbir.report.examples import example, of_different_classes
from cbir.report.one_index import LEAVE_ONE_OUT_NOTE, MEMORY_NOTE, query_facts, timings_section
from cbir.report.plots import class_plot
from cbir.report.reproduce import index_facts, reproduce
from cbir.report.statistics import Floats
from cbir.report.tables import (
    AP_NOTE,
    USUAL,
    comparisons_of,
    indexes_table,
    main_measure,
    means_tables,
    notes_of_all,
)
from cbir.wording import counted

PICTURE_ROWS = 24
"""The approximate number of rows of pictures."""


@dataclass(frozen=True)
class ComparedCases:
    """Several cases with the `measure` of the queries they share, float64 (cases, q) `values`."""

    compared: ComparedEvaluations
    cases: Sequence[Case]
    measure: str
    values: Floats

    @property
    def names(self) -> list[str]:
        return self.compared.names


def compared_cases(compared: ComparedEvaluations, cases: Sequence[Case]) -> ComparedCases:
    """Join `compared` with the `cases` of its evaluations."""
    measure = main_measure(compared.evaluations[0].per_query)
    values = [
        one.per_query[measure][rows]
        for one, rows in zip(compared.evaluations, compared.rows, strict=True)
    ]
    return ComparedCases(compared, cases, measure, np.array(values))


def several_report(several: ComparedCases, *, command: str, pages: Sequence[str]) -> Report:
    """The report that compares several indexes; `pages` are the folders of their own reports."""
    names, compared = several.names, several.compared
    facts = [
        (f"{name}: {what}", said)
        for name, case in zip(names, several.cases, strict=True)
        for what, said in index_facts(case.searcher.index)
    ]
    return Report(
        f"{' and '.join(names)} compared" if len(names) == 2 else f"{len(names)} indexes compared",
        f"{counted(len(compared.labels), 'query')}, the same for all; a hit is right if it has "
        "the query's label. Search is exact.",
        [
            _summary(several, pages),
            Section("comparisons", "Significance", comparisons_of(compared)),
            _classes(several),
            _curves(several),
            *_queries(several),
            timings_section(dict(zip(names, compared.evaluations, strict=True))),
            reproduce(command, [*query_facts(compared.evaluations[0]), *facts]),
        ],
    )


def _summary(several: ComparedCases, pages: Sequence[str]) -> Section:
    compared = several.compared
    evaluations = compared.evaluations
    blocks: list[Block] = []
    memory = any(one.training_images_indexed for one in evaluations)
    if memory and several.cases[0].main == USUAL:
        blocks.append(Text(MEMORY_NOTE, note=True))
    blocks += [*means_tables(compared), indexes_table(compared)]
    if any(name.startswith("nAP@") for name in evaluations[0].measures):
        blocks.append(Text(AP_NOTE))
    if "unseen" in compared.comparisons:
        blocks.append(Text(LEAVE_ONE_OUT_NOTE))
    blocks += [Text(note) for note in notes_of_all(compared)]
    links = [
        Link(f"The report of {name} alone", page)
        for name, page in zip(several.names, pages, strict=True)
    ]
    blocks.append(Links("More", links))
    return Section("summary", "Summary", blocks)


def _classes(several: ComparedCases) -> Section:
    """A row per class with a mark for each index, and the distribution of queries."""
    values = dict(zip(several.names, several.values, strict=True))
    main = several.cases[0].main
    means = {
        label: np.array(list(of.measures.values()))
        for label, of in class_means(values, several.compared.labels).items()
    }
    drawn = sorted(means, key=lambda label: -means[label].mean())
    said = ""
    if len(means) > MANY_CLASSES:
        drawn = sorted(means, key=lambda label: -np.ptp(means[label]))[:MANY_CLASSES]
        said = f"The {MANY_CLASSES} of {len(means)} classes that differ most."
    of_indexes = np.array([means[label] for label in drawn]).T
    marks = dict(zip(several.names, of_indexes, strict=True))
    return Section(
        "classes",
        "Results by class and query",
        [
            Plot(
                "classes",
                f"Mean {several.measure} of each class, {main}",
                class_plot(drawn, marks, f"mean {several.measure}", bars=False),
                "A row for each class, with a mark for each index.",
                said,
            ),
            spread_block(values, several.measure, main),
        ],
    )


def _curves(several: ComparedCases) -> Section:
    """Curves of all indexes together, for each protocol."""
    recall, counts = zip(*(recall_curves(case) for case in several.cases), strict=True)
    of = f"full rankings of {' or '.join(f'{n:,}' for n in sorted(set(counts)))} queries"
    blocks: list[Block] = []
    for title in several.cases[0].sides:
        if all(title in case.sides for case in several.cases):
            named = list(zip(several.names, several.cases, recall, strict=True))
            blocks += curve_blocks(
                {name: case.sides[title].precision for name, case, _ in named},
                {name: curves[title] for name, _, curves in named},
                "Mean P@k over all queries.",
                f"Interpolated precision over {of}, with whole-image vectors.",
                under=title,
            )
    return Section("curves", "Precision by rank and recall", blocks)


def _queries(several: ComparedCases) -> list[Section]:
    """For each index, the queries with its largest lead over all others."""
    each = max(1, PICTURE_ROWS // len(several.names) ** 2)
    than = "the other" if len(several.names) == 2 else "all others"
    blocks: list[Block] = []
    for number, name in enumerate(several.names):
        others = np.delete(several.values, number, axis=0).max(axis=0)
        lead = several.values[number] - others
        order = np.argsort(-lead, kind="stable")
        best = of_different_classes(order[lead[order] > 0], several.compared.labels, each, 1)
        if best:
            blocks.append(
                Examples(
                    f"better-{number + 1}",
                    f"Queries that {name} answers better",
                    f"The largest lead in {several.measure} over {than}, one per class.",
                    [one for query in best for one in _side_by_side(several, query)],
                )
            )
    return [Section("queries", "Largest differences", blocks)] if blocks else []


def _side_by_side(several: ComparedCases, query: int) -> list[Example]:
    """The hits of one query in each index."""
    return [
        example(case, int(rows[query]), f"{name}: {several.measure} {values[query]:.3f}")
        for name, case, rows, values in zip(
            several.names, several.cases, several.compared.rows, several.values, strict=True
        )
    ]
