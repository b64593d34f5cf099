"""The report of run files judged by qrels: no pictures, as there are no images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.measures import significance as compare
from cbir.measures.significance import ROUNDS, mean_intervals
from cbir.measures.trec_eval import Evaluation
from cbir.report.comparisons import comparison_section, main_measure
from cbir.report.content import Block, Plot, Report, Section, Table, Text, Tile, Tiles
from cbir.report.drawing import drawing
from cbir.report.plots import precision_plot, recall_precision_plot, spread_plot
from cbir.report.rankings import RECALL_LEVELS, Floats, interpolated_precision
from cbir.report.reproduce import file_facts, reproduce
from cbir.report.words import AP_NOTE
from cbir.wording import counted

DEPTH = 100
"""How many ranks the precision curve reads."""

_LISTED = 200


@dataclass(frozen=True)
class JudgedRun:
    """What a report needs of one run.

    `result` as `evaluate_run` gives it. `ranks`: for each query of the qrels the ranks, from 0, of
    its relevant documents; `relevant` how many it has; `depth` the longest ranking's length.
    """

    name: str
    result: Evaluation
    ranks: Sequence[NDArray[np.intp]]
    relevant: NDArray[np.int64]
    depth: int


def judged_run(
    name: str,
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Sequence[tuple[str, float]]],
    result: Evaluation,
) -> JudgedRun:
    """What a report needs of `run`, judged by `qrels`; relevance 1 and above counts."""
    ranks = [
        np.flatnonzero([judged.get(document, 0) >= 1 for document, _ in run.get(query, ())])
        for query, judged in qrels.items()
    ]
    relevant = [sum(value >= 1 for value in judged.values()) for judged in qrels.values()]
    depth = max((len(run[query]) for query in qrels if query in run), default=0)
    return JudgedRun(name, result, ranks, np.array(relevant, dtype=np.int64), depth)


def runs_report(
    runs: Sequence[JudgedRun],
    *,
    files: Sequence[Path],
    command: str,
    comparisons: Sequence[Mapping[str, Any]],
) -> Report:
    """Everything there is to say of `runs`, judged by the same qrels, the first of `files`."""
    queries = len(runs[0].relevant)
    mean = runs[0].relevant.mean()
    return Report(
        f"Evaluation of {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs compared",
        f"{counted(queries, 'query')} judged by {files[0].name}; {mean:,.1f} relevant documents a "
        "query on average.",
        [
            _summary(runs),
            *comparison_section(comparisons),
            _curves(runs),
            _spread(runs),
            *_queries(runs),
            reproduce(
                command,
                [*file_facts(files), ("bootstrap", f"{ROUNDS:,} resamples, seed {compare.SEED}")],
            ),
        ],
    )


def _summary(runs: Sequence[JudgedRun]) -> Section:
    names = list(runs[0].result.means)
    blocks: list[Block] = []
    if len(runs) == 1:
        shown = names[:4]
        blocks.append(Tiles([Tile(f"{runs[0].result.means[n]:.4f}", n) for n in shown]))
    blocks.append(_measures(runs[0]) if len(runs) == 1 else _means(runs))
    if any(name.startswith("nAP@") for name in names):
        blocks.append(Text(AP_NOTE))
    for run in runs:
        if run.result.missing:
            missing = run.result.missing
            some = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            said = f"{run.name} does not answer {counted(len(missing), 'query')}, counted as 0: "
            blocks.append(Text(f"{said}{some}", note=True))
        if run.result.unjudged:
            said = f"{run.name} also answers {counted(len(run.result.unjudged), 'query')} that the "
            blocks.append(Text(f"{said}qrels do not know; they are not counted.", note=True))
    return Section("summary", "Summary", blocks)


def _means(runs: Sequence[JudgedRun]) -> Table:
    return Table(
        "All measures, mean over the queries of the qrels",
        ["measure", *(run.name for run in runs)],
        [
            [name, *(f"{run.result.means[name]:.4f}" for run in runs)]
            for name in runs[0].result.means
        ],
        wide=True,
    )


def _measures(run: JudgedRun) -> Table:
    intervals = mean_intervals({name: _values(run, name) for name in run.result.means})
    return Table(
        "All measures, mean over the queries of the qrels",
        ["measure", "mean", "95% interval"],
        [
            [name, f"{mean:.4f}", "{:.4f}–{:.4f}".format(*intervals[name])]
            for name, mean in run.result.means.items()
        ],
        wide=True,
    )


def _curves(runs: Sequence[JudgedRun]) -> Section:
    precision = {run.name: _precision(run) for run in runs}
    recall = {run.name: _recall_precision(run) for run in runs}
    with drawing():
        at_ranks = precision_plot(precision, {})
        over_recall = recall_precision_plot(recall, {})
    firsts = "; ".join(f"{name} {values[0]:.3f} at k=1" for name, values in precision.items())
    levels = range(0, 101, 10)
    return Section(
        "curves",
        "Precision, rank by rank",
        [
            Plot(
                "precision-at-k",
                "Precision of the first k ranks",
                at_ranks,
                f"Lines over ranks: {firsts}.",
                "Mean P@k; a rank that a run does not fill counts as wrong.",
            ),
            Plot(
                "precision-recall",
                "Precision and recall",
                over_recall,
                "Falling lines: "
                + "; ".join(
                    f"{n} {c[0]:.3f} at recall 0, {c[50]:.3f} at 0.5" for n, c in recall.items()
                ),
                "Interpolated precision over the ranks that the run holds; 0 beyond them.",
            ),
            Table(
                "The curves as numbers: precision over recall",
                ["recall", *recall],
                [[f"{v / 100:.1f}", *(f"{c[v]:.4f}" for c in recall.values())] for v in levels],
                folded=True,
            ),
        ],
    )


def _precision(run: JudgedRun) -> Floats:
    depth = max(1, min(DEPTH, run.depth))
    counts = np.zeros(depth)
    for ranks in run.ranks:
        counts[ranks[ranks < depth]] += 1
    return np.asarray(counts.cumsum() / np.arange(1, depth + 1) / max(1, len(run.ranks)))


def _recall_precision(run: JudgedRun) -> Floats:
    total = np.zeros(RECALL_LEVELS)
    for ranks, relevant in zip(run.ranks, run.relevant.tolist(), strict=True):
        total += interpolated_precision(ranks, relevant)
    return total / max(1, len(run.ranks))


def _values(run: JudgedRun, measure: str) -> Floats:
    return np.array(list(run.result.per_query[measure].values()))


def _spread(runs: Sequence[JudgedRun]) -> Section:
    measure = main_measure(runs[0].result.means)
    values = {run.name: _values(run, measure) for run in runs}
    with drawing():
        figure = spread_plot(values, measure)
    said = "; ".join(f"{name}: half have at most {np.median(v):.3f}" for name, v in values.items())
    return Section(
        "spread",
        "Query by query",
        [Plot("spread", f"Queries by their {measure}", figure, said, f"{said}.")],
    )


def _queries(runs: Sequence[JudgedRun]) -> list[Section]:
    """The queries that are worst answered by the first run, with every run's figure."""
    measure = main_measure(runs[0].result.means)
    first = runs[0].result.per_query[measure]
    worst = sorted(first, key=lambda query: first[query])[:_LISTED]
    rows = [[q, *(f"{run.result.per_query[measure][q]:.4f}" for run in runs)] for q in worst]
    said = f"The {len(worst)} lowest of {len(first):,}" if len(worst) < len(first) else "All"
    header = ["query", *(run.name for run in runs)]
    table = Table(f"{said} by {measure} of {runs[0].name}", header, rows, folded=True)
    return [Section("queries", "The worst queries", [table])]
