"""The report of several indexes that were asked the same queries: what each does better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation import Compared, Evaluation
from cbir.evaluation.result import notes
from cbir.report.case import UNSEEN, USUAL, Case
from cbir.report.classes import MANY_CLASSES
from cbir.report.comparisons import comparison_section, main_measure
from cbir.report.content import (
    Block,
    Example,
    Examples,
    Link,
    Links,
    Plot,
    Report,
    Section,
    Table,
    Text,
)
from cbir.report.curves import recall_curves
from cbir.report.drawing import drawing
from cbir.report.examples import example, of_different_classes
from cbir.report.one_index import MEMORY_NOTE, UNSEEN_NOTE, milliseconds, query_facts
from cbir.report.plots import (
    class_marks_plot,
    precision_plot,
    recall_precision_plot,
    spread_plot,
)
from cbir.report.rankings import Floats, class_means, encoded, precision_at_ranks
from cbir.report.reproduce import index_facts, reproduce
from cbir.report.words import AP_NOTE, sentence
from cbir.wording import counted

PICTURE_ROWS = 24
"""About so many rows of pictures are shown."""


@dataclass(frozen=True)
class Contest:
    """Several cases, and the figure of each query that they have in common.

    `values` float64 (cases, q): by `measure`. `asked` int32 (q,): the queries' `classes`.
    """

    compared: Compared
    cases: Sequence[Case]
    measure: str
    values: Floats
    classes: Sequence[str]
    asked: NDArray[np.int32]

    @property
    def names(self) -> list[str]:
        return self.compared.names


def contest_of(compared: Compared, cases: Sequence[Case]) -> Contest:
    """`cases` are those of the evaluations in `compared`."""
    measure = main_measure(compared.evaluations[0].per_query)
    values = [
        one.per_query[measure][rows]
        for one, rows in zip(compared.evaluations, compared.rows, strict=True)
    ]
    classes = sorted({label for label in compared.labels if label is not None})
    asked = encoded(classes, compared.labels)
    return Contest(compared, cases, measure, np.array(values), classes, asked)


def versus_report(contest: Contest, *, command: str, pages: Sequence[str]) -> Report:
    """Everything there is to say of several indexes together; `pages` are their own reports."""
    names, compared = contest.names, contest.compared
    first = compared.evaluations[0]
    facts = [
        (f"{name}: {what}", said)
        for name, case in zip(names, contest.cases, strict=True)
        for what, said in index_facts(case.searcher.index)
    ]
    return Report(
        f"{' and '.join(names)} compared" if len(names) == 2 else f"{len(names)} indexes compared",
        f"{counted(len(contest.asked), 'query')}, the same for all; a hit is right when it has the "
        "query's label. Search is exact.",
        [
            _summary(contest, pages),
            *comparison_section(compared.comparisons),
            _classes(contest),
            _curves(contest),
            *_queries(contest),
            _timings(contest),
            reproduce(command, [*query_facts(first), *facts]),
        ],
    )


def _summary(contest: Contest, pages: Sequence[str]) -> Section:
    evaluations = contest.compared.evaluations
    memory = any(one.training_images_indexed for one in evaluations)
    main = contest.cases[0].main
    blocks: list[Block] = []
    if memory and main == USUAL:
        blocks.append(Text(MEMORY_NOTE, note=True))
    title = f"{main} (index = training images)" if memory and main == USUAL else main
    blocks.append(_means(contest, title, [one.measures for one in evaluations]))
    unseen = [one.unseen_index for one in evaluations if one.unseen_index is not None]
    if main == USUAL and len(unseen) == len(evaluations):
        blocks.append(_means(contest, UNSEEN, unseen))
    blocks += _codes(contest)
    blocks.append(_about(contest))
    if any(name.startswith("nAP@") for name in evaluations[0].measures):
        blocks.append(Text(AP_NOTE))
    if unseen:
        blocks.append(Text(UNSEEN_NOTE))
    if len({one.n_indexed for one in evaluations}) > 1:
        said = "The indexes do not hold as many images: that alone makes figures differ."
        blocks.append(Text(said, note=True))
    blocks += _notes(contest)
    links = [
        Link(f"The report of {name} alone", page)
        for name, page in zip(contest.names, pages, strict=True)
    ]
    blocks.append(Links("More", links))
    return Section("summary", "Summary", blocks)


def _notes(contest: Contest) -> list[Text]:
    """What must be known of the figures, once where it is true of all."""
    told = [notes(one) for one in contest.compared.evaluations]
    of_all = [note for note in told[0] if all(note in others for others in told)]
    own = [
        f"{name}: {note}"
        for name, of_one in zip(contest.names, told, strict=True)
        for note in of_one
        if note not in of_all
    ]
    return [Text(sentence(note)) for note in of_all] + [Text(f"{note}.") for note in own]


def _means(contest: Contest, title: str, means: Sequence[dict[str, float]]) -> Table:
    return Table(
        f"All measures, {title}",
        ["measure", *contest.names],
        [[name, *(f"{of[name]:.4f}" for of in means)] for name in means[0]],
        wide=len(contest.names) > 2,
    )


def _codes(contest: Contest) -> list[Block]:
    coded = [one.hamming for one in contest.compared.evaluations if one.hamming is not None]
    return [
        _means(contest, f"codes of {coded[0].bits} bits, {protocol}", means)
        for protocol, means in (
            (USUAL, [one.measures for one in coded if one.measures]),
            (UNSEEN, [one.unseen_index for one in coded if one.unseen_index]),
        )
        if means and len(means) == len(contest.cases)
    ]


def _about(contest: Contest) -> Table:
    evaluations = contest.compared.evaluations
    parts = {"training_images": "accuracy, training images", "queries": "accuracy, queries"}
    known = [p for p in parts if any((one.accuracy or {}).get(p) for one in evaluations)]
    rows = [
        [
            name,
            one.descriptor,
            f"{case.searcher.index.spec.dim:,}",
            f"{one.n_indexed:,}",
            f"{one.n_queries:,}",
            *(_share(one, part) for part in known),
        ]
        for name, one, case in zip(contest.names, evaluations, contest.cases, strict=True)
    ]
    header = ["index", "descriptor", "numbers", "images", "queries"]
    return Table("The indexes", [*header, *(parts[part] for part in known)], rows, wide=True)


def _share(evaluation: Evaluation, part: str) -> str:
    share = (evaluation.accuracy or {}).get(part)
    return "–" if share is None else f"{share:.4f}"


def _classes(contest: Contest) -> Section:
    """A row a class with a mark for each index, and how the queries spread."""
    means = [class_means(of, contest.asked, len(contest.classes)) for of in contest.values]
    order = np.argsort(-np.array(means).mean(axis=0), kind="stable")
    drawn, said = order, ""
    if len(order) > MANY_CLASSES:
        spread = np.ptp(np.array(means), axis=0)
        drawn = np.sort(np.argsort(-spread, kind="stable")[:MANY_CLASSES])
        said = f"The {MANY_CLASSES} of {len(order)} classes that differ most."
    marks = {name: of[drawn] for name, of in zip(contest.names, means, strict=True)}
    values = dict(zip(contest.names, contest.values, strict=True))
    medians = "; ".join(
        f"{name}: half have at most {np.median(v):.3f}" for name, v in values.items()
    )
    with drawing():
        by_class = class_marks_plot(
            [contest.classes[c] for c in drawn], marks, f"mean {contest.measure}"
        )
        of_queries = spread_plot(values, contest.measure)
    return Section(
        "classes",
        "Class by class, query by query",
        [
            Plot(
                "classes",
                f"Mean {contest.measure} of each class, {contest.cases[0].main}",
                by_class,
                "A row a class, a mark for each index.",
                said,
            ),
            Plot(
                "spread",
                f"Queries by their {contest.measure}, {contest.cases[0].main}",
                of_queries,
                medians,
                f"{medians}.",
            ),
        ],
    )


def _curves(contest: Contest) -> Section:
    """Curves of all indexes together, those of each protocol by themselves."""
    curves = [recall_curves(case) for case in contest.cases]
    blocks: list[Block] = []
    for protocol, key in ((USUAL, "usual"), (UNSEEN, "unseen")):
        precision = {
            name: found
            for name, case in zip(contest.names, contest.cases, strict=True)
            if (found := _precision(case, protocol)) is not None
        }
        recall = {
            name: of[protocol]
            for name, (of, _) in zip(contest.names, curves, strict=True)
            if protocol in of
        }
        if len(precision) < len(contest.cases):
            continue
        counts = sorted({count for _, count in curves})
        of = f"full rankings of {' or '.join(f'{count:,}' for count in counts)} queries"
        with drawing():
            at_ranks, over_recall = (
                precision_plot(precision, {}),
                recall_precision_plot(recall, {}),
            )
        ends = "; ".join(f"{name} {c[0]:.3f} at k=1" for name, c in precision.items())
        blocks += [
            Plot(
                f"precision-at-k-{key}",
                f"Precision of the first k hits, {protocol}",
                at_ranks,
                f"Lines over ranks: {ends}.",
            ),
            Plot(
                f"precision-recall-{key}",
                f"Precision and recall, {protocol}",
                over_recall,
                "Falling lines, one an index.",
                f"Interpolated precision over {of}, by whole-image vectors.",
            ),
        ]
    return Section("curves", "Precision, hit by hit", blocks)


def _precision(case: Case, protocol: str) -> Floats | None:
    if case.main == protocol:
        return precision_at_ranks(case.hits.found)
    return None if case.unseen is None else case.unseen.precision


def _queries(contest: Contest) -> list[Section]:
    """For each index the queries that it answers better than all others, by the largest lead."""
    each = max(1, PICTURE_ROWS // len(contest.names) ** 2)
    blocks: list[Block] = []
    for number, name in enumerate(contest.names):
        others = np.delete(contest.values, number, axis=0).max(axis=0)
        lead = contest.values[number] - others
        order = np.argsort(-lead, kind="stable")
        best = of_different_classes(order[lead[order] > 0], contest.asked, each, 1)
        if best:
            blocks.append(
                Examples(
                    f"better-{number + 1}",
                    f"What {name} answers better",
                    f"The largest lead in {contest.measure} over "
                    f"{'the other' if len(contest.names) == 2 else 'all others'}, one of a class.",
                    [one for query in best for one in _side_by_side(contest, query)],
                )
            )
    return [Section("queries", "Where they differ most", blocks)] if blocks else []


def _side_by_side(contest: Contest, query: int) -> list[Example]:
    """The hits of one query in each index."""
    return [
        example(
            case.evaluation.queries,
            case.matches,
            case.hits,
            int(contest.compared.rows[number][query]),
            f"{name}: {contest.measure} {contest.values[number][query]:.3f}",
            case.thumbnail,
        )
        for number, (name, case) in enumerate(zip(contest.names, contest.cases, strict=True))
    ]


def _timings(contest: Contest) -> Section:
    steps = ("describe", "search", "measure")
    rows = [
        [name, *(f"{milliseconds(one)[step]:.3f}" for step in steps)]
        for name, one in zip(contest.names, contest.compared.evaluations, strict=True)
    ]
    header = ["index", *(f"{step}, ms a query" for step in steps)]
    return Section(
        "timings", "Timings", [Table("Wall-clock time, all queries in one batch", header, rows)]
    )
