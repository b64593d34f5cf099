"""The report of one evaluation: an index and labelled queries."""

from __future__ import annotations

import numpy as np

from cbir.evaluation import Evaluation
from cbir.evaluation.hamming import Hamming
from cbir.evaluation.result import notes as notes_of
from cbir.measures import significance as compare
from cbir.measures.significance import ROUNDS, mean_intervals
from cbir.report.case import UNSEEN, USUAL, Case
from cbir.report.classes import class_section, confusion_section
from cbir.report.content import Block, Notes, Report, Section, Table, Text, Tile, Tiles
from cbir.report.curves import curve_section, score_sections
from cbir.report.examples import AT_RANDOM, example_blocks, random_queries
from cbir.report.model import model_sections
from cbir.report.rankings import SEED, Floats, precision_at_ranks
from cbir.report.reproduce import contents_fingerprint, index_facts, reproduce
from cbir.report.words import AP_NOTE, percent, sentence
from cbir.wording import counted

UNSEEN_NOTE = (
    "Unseen index: the queries searched among each other, each left out of its own answer."
)
MEMORY_NOTE = (
    "Index = training images. The indexed images are those that the model learnt from, so the "
    "usual protocol is partly memory; the unseen index is not."
)
_ACCURACY_OF = {"training_images": "its training images", "queries": "the queries"}


def single_report(
    case: Case,
    *,
    command: str,
) -> Report:
    """Everything there is to say of one evaluation."""
    evaluation, searcher = case.evaluation, case.searcher
    first = random_queries(len(case.values), AT_RANDOM)[0]
    queries = evaluation.queries
    sections = [
        _summary(case),
        class_section(
            case.hits,
            case.values,
            None if case.unseen is None else case.unseen.values,
            case.measure,
            case.main,
            evaluation.per_query,
        ),
        curve_section(case),
        confusion_section(case.hits, case.relevant),
        *score_sections(case),
        Section(
            "queries",
            "Queries and their hits",
            example_blocks(
                queries, case.matches, case.hits, case.values, case.measure, case.thumbnail
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
                *query_facts(evaluation),
            ],
        ),
    ]
    among = counted(evaluation.n_indexed, "indexed image")
    if case.main == UNSEEN:
        among = "each other (the unseen index)"
    return Report(
        f"Evaluation of {searcher.index.spec.name}",
        f"{counted(evaluation.n_queries, 'query')} searched among {among}; "
        "a hit is right when it has the query's label. Search is exact.",
        sections,
    )


def query_facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """What was asked, and what of that was drawn by chance."""
    queries = evaluation.queries
    names = [query.partition("/")[2] for query in queries.ids]  # the source's is the index's choice
    fingerprint = contents_fingerprint(names, queries.labels, queries.hashes)
    drawn = f", a sample of {evaluation.sample:,}" if evaluation.sample else ""
    left_out, coded = evaluation.near_duplicates, evaluation.hamming
    return [
        ("queries", f"{evaluation.source}, {evaluation.n_queries:,} images{drawn}"),
        ("contents of the queries", f"sha256 {fingerprint} of names, labels, files"),
        *([("near-duplicates", f"correlation of {left_out.threshold}")] if left_out else []),
        *([("binary codes", f"{coded.bits} bits, seed {coded.seed}")] if coded else []),
        ("query expansion", counted(evaluation.expand, "hit") if evaluation.expand else "none"),
        ("bootstrap", f"{ROUNDS:,} resamples, seed {compare.SEED}"),
        ("seed of samples in this report", str(SEED)),
    ]


def _summary(case: Case) -> Section:
    evaluation = case.evaluation
    memory = evaluation.training_images_indexed and case.main == USUAL
    blocks: list[Block] = [Tiles(_tiles(case, precision_at_ranks(case.hits.found)))]
    if memory:
        blocks.append(Text(MEMORY_NOTE, note=True))
    blocks.append(_measures(case, memory))
    if evaluation.hamming is not None:
        blocks.append(codes_table(evaluation.hamming))
    blocks.append(Notes("How to read this", _notes(case), wide=evaluation.hamming is not None))
    if evaluation.failures:
        blocks.append(_failures(evaluation))
    return Section("summary", "Summary", blocks)


def _measures(case: Case, memory: bool) -> Table:
    """All means with their intervals, and those of the unseen index beside them."""
    evaluation = case.evaluation
    intervals = mean_intervals(evaluation.per_query)
    unseen = evaluation.unseen_index if case.unseen is not None else None
    return Table(
        "All measures",
        [
            "measure",
            f"{case.main} (index = training images)" if memory else case.main,
            "95% interval",
            *([UNSEEN] if unseen else []),
        ],
        [
            [
                name,
                f"{value:.4f}",
                "{:.4f}–{:.4f}".format(*intervals[name]),
                *([f"{unseen[name]:.4f}"] if unseen else []),
            ]
            for name, value in evaluation.measures.items()
        ],
    )


def codes_table(coded: Hamming) -> Table:
    """Means by binary codes under each protocol."""
    columns = {USUAL: coded.measures, UNSEEN: coded.unseen_index}
    known = {title: means for title, means in columns.items() if means}
    names = next(iter(known.values()))
    return Table(
        f"By codes of {coded.bits} bits, compared by Hamming distance",
        ["measure", *known],
        [[name, *(f"{means[name]:.4f}" for means in known.values())] for name in names],
    )


def _notes(case: Case) -> list[str]:
    evaluation = case.evaluation
    notes = []
    if any(name.startswith("nAP@") for name in evaluation.measures):
        notes.append(AP_NOTE)
    if case.unseen is not None:
        here, there = case.relevant.mean(), case.unseen.relevant
        notes.append(
            f"{UNSEEN_NOTE} {there:,.0f} images are relevant to a query there on average, "
            f"{here:,.0f} under the usual protocol; measures that count what is relevant are on "
            "another scale."
        )
    elif case.main == UNSEEN:
        notes.append(UNSEEN_NOTE)
    notes.append(
        "The interval: where the mean would lie with other queries of the same kind (bootstrap)."
    )
    accuracies = [
        f"{share:.4f} on {_ACCURACY_OF.get(name, name)}"
        for name, share in (evaluation.accuracy or {}).items()
        if share is not None
    ]
    if accuracies:
        notes.append(f"Accuracy of the model's own classifier: {', '.join(accuracies)}.")
    at_best = float(np.minimum(case.relevant, 10).mean() / 10)
    if at_best < 1:
        notes.append(
            f"Of the first ten hits {percent(at_best)} can be right on average: to some queries "
            "fewer images are relevant."
        )
    notes += [sentence(note) for note in notes_of(evaluation)]
    return notes


def _tiles(case: Case, usual: Floats) -> list[Tile]:
    unseen = None if case.unseen is None else case.unseen.precision

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
            "" if case.unseen is None else f"{case.unseen.values.mean():.3f} on the unseen index",
        )
    )
    each = milliseconds(case.evaluation)
    search, describe = each["search"], each["describe"]
    total = search + describe
    shown = f"{total:.2f} ms" if total < 10 else f"{total:,.0f} ms"  # as wide as a tile is
    tiles.append(Tile(shown, "a query, in a batch", f"{describe:.2f} to describe it"))
    return tiles


def milliseconds(evaluation: Evaluation) -> dict[str, float]:
    """Of each step, for one query: those that are left out are described, but not searched for."""
    of_all = ("describe", "near_duplicates")
    return {
        step: 1000
        * seconds
        / max(1, evaluation.n_described if step in of_all else evaluation.n_queries)
        for step, seconds in evaluation.seconds.items()
    }


def _failures(evaluation: Evaluation) -> Table:
    return Table(
        f"{counted(len(evaluation.failures), 'query')} could not be read and left out",
        ["file", "reason"],
        [[failure.location, failure.reason] for failure in evaluation.failures],
        numbers=False,
        folded=True,
    )


def _timings(evaluation: Evaluation) -> Section:
    names = {
        "describe": "read, decode and describe the queries",
        "near_duplicates": "look for near-duplicates",
        "search": "search",
        "measure": "measure",
    }
    each = milliseconds(evaluation)
    rows = [
        [names[name], f"{seconds:.2f}", f"{each[name]:.3f}"]
        for name, seconds in evaluation.seconds.items()
    ]
    total = sum(evaluation.seconds.values())
    rows.append(["together", f"{total:.2f}", f"{sum(each.values()):.3f}"])
    return Section(
        "timings",
        "Timings",
        [
            Table("Wall-clock time, all queries in one batch", ["step", "s", "ms a query"], rows),
            Notes(
                "What is counted",
                ["Making this report is not. What else the machine did is not known."],
            ),
        ],
    )
