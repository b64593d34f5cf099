"""The report of one evaluation: an index and labelled queries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cbir.evaluation import Evaluation
from cbir.evaluation.result import notes
from cbir.measures import significance
from cbir.measures.significance import ROUNDS
from cbir.report.case import Case
from cbir.report.classes import class_section, confusion_section
from cbir.report.content import Block, Notes, Report, Section, Table, Text, Tile, Tiles
from cbir.report.curves import curve_section, score_sections
from cbir.report.examples import AT_RANDOM, example_blocks, random_queries
from cbir.report.model import model_sections
from cbir.report.reproduce import contents_fingerprint, index_facts, reproduce
from cbir.report.statistics import SEED
from cbir.report.tables import (
    AP_NOTE,
    LEAVE_ONE_OUT,
    USUAL,
    accuracies,
    codes_table,
    measures_table,
)
from cbir.wording import counted, percent

LEAVE_ONE_OUT_NOTE = (
    "Leave-one-out: the queries are searched among each other, each left out of its own results."
)
MEMORY_NOTE = (
    "Index = training images. The model was trained on the indexed images, so the figures of the "
    "usual protocol are partly memorisation; those of leave-one-out are not."
)


def single_report(case: Case, *, command: str) -> Report:
    """The report of one evaluation; `command` is the command line that reproduces it."""
    evaluation, searcher = case.evaluation, case.searcher
    first = random_queries(len(case.values), AT_RANDOM)[0]
    queries = evaluation.queries
    picture = queries.thumbnails[first] if queries.thumbnails else None
    among = counted(evaluation.n_indexed, "indexed image")
    if case.main == LEAVE_ONE_OUT:
        among = "each other (leave-one-out)"
    return Report(
        f"Evaluation of {searcher.index.spec.name}",
        f"{counted(evaluation.n_queries, 'query')} searched among {among}; "
        "a hit is right if it has the query's label. Search is exact.",
        [
            _summary(case),
            class_section(case),
            curve_section(case),
            confusion_section(case.hits),
            *score_sections(case),
            Section("queries", "Queries and their hits", example_blocks(case)),
            *model_sections(searcher.descriptor, picture, queries.ids[first]),
            timings_section({"": evaluation}),
            reproduce(command, [*index_facts(searcher.index), *query_facts(evaluation)]),
        ],
    )


def query_facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The queries and options, with every seed."""
    queries, options = evaluation.queries, evaluation.options
    names = [
        query.partition("/")[2] for query in queries.ids
    ]  # the index chooses the source's name
    fingerprint = contents_fingerprint(names, queries.labels, queries.hashes)
    drawn = f", a sample of {options.sample:,}" if options.sample else ""
    left_out, coded = evaluation.near_duplicates, evaluation.hamming
    return [
        ("queries", f"{evaluation.source}, {evaluation.n_queries:,} images{drawn}"),
        ("contents of the queries", f"sha256 {fingerprint} of names, labels, files"),
        *([("near-duplicates", f"correlation of {left_out.threshold}")] if left_out else []),
        *([("binary codes", f"{coded.bits} bits, seed {coded.seed}")] if coded else []),
        (
            "query expansion",
            counted(options.search.expand, "hit") if options.search.expand else "none",
        ),
        ("bootstrap", f"{ROUNDS:,} resamples, seed {significance.SEED}"),
        ("seed of samples in this report", str(SEED)),
    ]


def _summary(case: Case) -> Section:
    evaluation = case.evaluation
    blocks: list[Block] = [Tiles(_tiles(case))]
    if evaluation.training_images_indexed and case.main == USUAL:
        blocks.append(Text(MEMORY_NOTE, note=True))
    blocks.append(measures_table(evaluation))
    if evaluation.hamming is not None:
        blocks.append(codes_table(evaluation.hamming))
    # Two narrow blocks share a row: the measures of one protocol, binary codes, and these.
    wide = (len(evaluation.values) > 1) != (evaluation.hamming is not None)
    blocks.append(Notes("Caveats", _notes(case), wide=wide))
    if evaluation.failures:
        blocks.append(_failures(evaluation))
    return Section("summary", "Summary", blocks)


def _notes(case: Case) -> list[str]:
    evaluation, relevant = case.evaluation, case.hits.relevant
    lines = []
    if any(name.startswith("nAP@") for name in evaluation.measures):
        lines.append(AP_NOTE)
    if LEAVE_ONE_OUT in case.sides:
        lines.append(LEAVE_ONE_OUT_NOTE)
    if len(case.sides) > 1:
        lines.append(
            f"On average {case.sides[LEAVE_ONE_OUT].relevant:,.0f} images are relevant to a query "
            f"there, {relevant.mean():,.0f} under the usual protocol; measures that depend on this "
            "number are on a different scale."
        )
    lines.append(
        "The interval is a bootstrap interval: the range of the mean over similar sets of queries."
    )
    if accuracy := accuracies(evaluation):
        lines.append(f"Accuracy of the model's own classifier: {accuracy}.")
    at_best = float(np.minimum(relevant, 10).mean() / 10)
    if at_best < 1:
        lines.append(
            f"On average at most {percent(at_best)} of the first ten hits can be right: some "
            "queries have fewer relevant images."
        )
    return [*lines, *notes(evaluation)]


def _tiles(case: Case) -> list[Tile]:
    main, *others = case.sides.values()

    def beside(rank: int) -> str:
        known = [other.precision[rank - 1] for other in others if len(other.precision) >= rank]
        return f"{percent(float(known[0]))} {LEAVE_ONE_OUT}" if known else ""

    tiles = [
        Tile(percent(float(main.precision[rank - 1])), f"of {hits} are right", beside(rank))
        for rank, hits in ((1, "first hits"), (10, "the first ten hits"))
        if len(main.precision) >= rank
    ]
    mean = f"{others[0].values.mean():.3f} {LEAVE_ONE_OUT}" if others else ""
    tiles.append(Tile(f"{main.values.mean():.3f}", f"mean {case.measure}", mean))
    each = milliseconds(case.evaluation)
    search, describe = each["search"], each["describe"]
    total = search + describe
    shown = f"{total:.2f} ms" if total < 10 else f"{total:,.0f} ms"  # fits the width of a tile
    tiles.append(Tile(shown, "per query, in a batch", f"{describe:.2f} ms of it to describe"))
    return tiles


def milliseconds(evaluation: Evaluation) -> dict[str, float]:
    """Milliseconds per query of each step; queries that are left out are only described."""
    of_all = ("describe", "near_duplicates")
    return {
        step: 1000
        * seconds
        / max(1, evaluation.n_described if step in of_all else evaluation.n_queries)
        for step, seconds in evaluation.seconds.items()
    }


def _failures(evaluation: Evaluation) -> Table:
    return Table(
        f"Left out: {counted(len(evaluation.failures), 'query')} that could not be read",
        ["file", "reason"],
        [[failure.location, failure.reason] for failure in evaluation.failures],
        numbers=False,
        folded=True,
    )


def timings_section(evaluations: Mapping[str, Evaluation]) -> Section:
    """The time of each step; `evaluations` by name, "" for a single one."""
    names = {
        "describe": "read, decode and describe the queries",
        "near_duplicates": "find near-duplicates",
        "search": "search",
        "measure": "measure",
    }
    blocks: list[Block] = []
    for name, one in evaluations.items():
        each = {**milliseconds(one), "total": sum(milliseconds(one).values())}
        seconds = {**one.seconds, "total": sum(one.seconds.values())}
        rows = [
            [names.get(step, step), f"{seconds[step]:.2f}", f"{each[step]:.3f}"] for step in each
        ]
        title = f"{name and f'{name}: '}wall-clock time, all queries in one batch"
        blocks.append(Table(title, ["step", "s", "ms per query"], rows))
    blocks.append(
        Notes(
            "About these times",
            ["They exclude writing this report. Other load on the machine is unknown."],
        )
    )
    return Section("timings", "Timings", blocks)
