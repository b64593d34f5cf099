"""The report of one evaluation: an index and labelled queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cbir.experiment import Evaluation
from cbir.report.case import UNSEEN, USUAL, Case, case_of
from cbir.report.classes import class_section, confusion_section
from cbir.report.comparison import comparison_section
from cbir.report.content import Block, Report, Section, Table, Text, Tile, Tiles
from cbir.report.curves import curve_section, score_sections
from cbir.report.examples import AT_RANDOM, example_blocks, random_queries
from cbir.report.model import model_sections
from cbir.report.rankings import SEED, Floats, precision_at_ranks
from cbir.report.reproduce import index_facts, reproduce
from cbir.report.words import AP_NOTE, percent, plural
from cbir.search import Searcher

_UNSEEN_NOTE = (
    "Unseen index: the queries searched among each other, each left out of its own answer."
)


def single_report(
    evaluation: Evaluation,
    searcher: Searcher,
    *,
    command: str,
    expand: int,
    intervals: Mapping[str, tuple[float, float]],
    comparisons: Sequence[Mapping[str, Any]],
) -> Report:
    """Everything there is to say of one evaluation."""
    case = case_of(evaluation, searcher, expand)
    first = random_queries(len(case.values), AT_RANDOM)[0]
    queries = evaluation.queries
    sections = [
        _summary(case, intervals),
        *comparison_section(comparisons, comparisons[0]["a"] if comparisons else None),
        class_section(case.hits, case.values, case.unseen, case.measure, evaluation.per_query),
        curve_section(case),
        confusion_section(case.hits),
        *score_sections(case),
        Section(
            "queries",
            "Queries and their hits",
            example_blocks(
                case.thumbnail, queries, case.matches, case.hits, case.values, case.measure
            ),
        ),
        *model_sections(
            searcher.descriptor,
            queries.thumbnails[first] if queries.thumbnails else None,
            queries.ids[first],
        ),
        _timings(evaluation),
        reproduce(
            command,
            [
                *index_facts(searcher.index),
                ("queries", f"{evaluation.n_queries:,}"),
                ("query expansion", plural(expand, "hit") if expand else "none"),
                ("seed of samples in this report", str(SEED)),
            ],
        ),
    ]
    indexed = plural(evaluation.n_indexed, "indexed image")
    among = "each other (the unseen index)" if case.main == UNSEEN else indexed
    return Report(
        f"Evaluation of {searcher.index.spec.short}",
        f"{plural(evaluation.n_queries, 'query')} searched among {among}; "
        "a hit is right when it has the query's label. Search is exact.",
        sections,
    )


def _summary(case: Case, intervals: Mapping[str, tuple[float, float]]) -> Section:
    evaluation = case.evaluation
    memory = evaluation.training_images_indexed and case.main == USUAL
    usual = precision_at_ranks(case.hits.found)
    blocks: list[Block] = [Tiles(_tiles(case, usual))]
    if memory:
        blocks.append(
            Text(
                "Index = training images. The indexed images are those that the model learnt "
                "from, so the usual protocol is partly memory; the unseen index is not.",
                note=True,
            )
        )
    columns = {
        f"{case.main} (index = training images)" if memory else case.main: evaluation.measures
    }
    if case.unseen is not None and evaluation.unseen_index:
        columns[UNSEEN] = evaluation.unseen_index
    blocks.append(_measures("All measures", columns, intervals))
    if evaluation.hamming:
        coded = evaluation.hamming
        found = {USUAL: coded.measures, UNSEEN: coded.unseen_index}
        title = f"By codes of {coded.bits} bits (seed {coded.seed})"
        blocks.append(_measures(title, {name: of for name, of in found.items() if of}, {}))
    accuracies = [
        [name.replace("_", " "), f"{share:.4f}"]
        for name, share in (evaluation.accuracy or {}).items()
        if share is not None
    ]
    if accuracies:
        blocks.append(
            Table("Accuracy of the model's own classifier", ["of", "accuracy"], accuracies)
        )
    if any(name.startswith("nAP@") for name in evaluation.measures):
        blocks.append(Text(AP_NOTE))
    if UNSEEN in columns:
        blocks.append(Text(_UNSEEN_NOTE))
    if evaluation.shuffle is not None:
        blocks.append(
            Text(f"Equal scores are ordered by the seed {evaluation.shuffle}, not by id.")
        )
    if evaluation.failures:
        blocks.append(_failures(evaluation))
    return Section("summary", "Summary", blocks)


def _measures(
    title: str,
    columns: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, tuple[float, float]],
) -> Table:
    """A row a measure, a column a protocol; `intervals` are of the first protocol's means."""
    first = next(iter(columns))
    header = ["measure", *columns, *([f"95% interval, {first}"] if intervals else [])]
    rows = [
        [
            name,
            *(f"{of[name]:.4f}" for of in columns.values()),
            *(["{:.4f} to {:.4f}".format(*intervals[name])] if intervals else []),
        ]
        for name in columns[first]
    ]
    return Table(title, header, rows, wide=len(header) > 3)


def _tiles(case: Case, usual: Floats) -> list[Tile]:
    unseen = case.unseen_precision

    def beside(rank: int) -> str:
        if unseen is None or len(unseen) < rank:
            return ""
        return f"{percent(float(unseen[rank - 1]))} on the unseen index"

    tiles = []
    if len(usual) >= 1:
        tiles.append(Tile(percent(float(usual[0])), "of first hits are right", beside(1)))
    if len(usual) >= 10:
        of_ten = Tile(percent(float(usual[9])), "of the first ten hits are right", beside(10))
        tiles.append(of_ten)
    tiles.append(
        Tile(
            f"{case.values.mean():.3f}",
            f"mean {case.measure}",
            "" if case.unseen is None else f"{case.unseen.mean():.3f} on the unseen index",
        )
    )
    seconds = case.evaluation.seconds
    search = 1000 * seconds["search"] / max(1, case.evaluation.n_queries)
    describe = 1000 * seconds["describe"] / max(1, case.evaluation.n_queries)
    tiles.append(
        Tile(
            f"{search + describe:.{2 if search + describe < 10 else 0}f} ms",
            "a query, in a batch",
            f"{describe:.2f} to describe it",
        )
    )
    return tiles


def _failures(evaluation: Evaluation) -> Table:
    return Table(
        f"{plural(len(evaluation.failures), 'query')} could not be read and left out",
        ["file", "reason"],
        [[failure.location, failure.reason] for failure in evaluation.failures],
        numbers=False,
        folded=True,
    )


def _timings(evaluation: Evaluation) -> Section:
    names = {
        "describe": "read, decode and describe the queries",
        "search": "search",
        "measure": "measure",
    }
    total = sum(evaluation.seconds.values())
    rows = [
        [names.get(name, name), f"{s:.2f}", f"{1000 * s / max(1, evaluation.n_queries):.3f}"]
        for name, s in evaluation.seconds.items()
    ]
    rows.append(["together", f"{total:.2f}", f"{1000 * total / max(1, evaluation.n_queries):.3f}"])
    return Section(
        "timings",
        "Timings",
        [
            Table("Wall-clock time, all queries in one batch", ["step", "s", "ms a query"], rows),
            Text("The machine is named below. Making this report is not counted."),
        ],
    )
