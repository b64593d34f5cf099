"""The report of run files judged by qrels, without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbir.evaluation.judging import JudgedRun, Qrels, Run
from cbir.measures import significance
from cbir.measures.significance import ROUNDS, Comparison
from cbir.report.content import Block, Plot, Report, Section, Table, Text, Tile, Tiles
from cbir.report.curves import curve_blocks, spread_block
from cbir.report.reproduce import file_facts, reproduce
from cbir.report.statistics import RECALL_LEVELS, Floats, interpolated_precision
from cbir.report.tables import AP_NOTE, comparison_words, main_measure, runs_table
from cbir.wording import counted

DEPTH = 100
"""How many ranks the precision curve reads."""

_LISTED = 200


@dataclass(frozen=True)
class RunCurves:
    """Curves of one run over the queries of the qrels.

    `precision` float64 (k,): mean P@1 ... P@k, k at most `DEPTH`; `recall` float64
    (`RECALL_LEVELS`,): mean interpolated precision. `relevant`: how many documents are relevant to
    a query on average.
    """

    precision: Floats
    recall: Floats
    relevant: float


def run_curves(qrels: Qrels, run: Run) -> RunCurves:
    """The curves of `run`, judged by `qrels`; relevance 1 and above counts."""
    depth = max((len(run[query]) for query in qrels if query in run), default=0)
    counts = np.zeros(max(1, min(DEPTH, depth)))
    recall = np.zeros(RECALL_LEVELS)
    total = 0
    for query, judged in qrels.items():
        found = [judged.get(document, 0) >= 1 for document, _ in run.get(query, ())]
        ranks = np.flatnonzero(found)
        relevant = sum(value >= 1 for value in judged.values())
        counts[ranks[ranks < len(counts)]] += 1
        recall += interpolated_precision(ranks, relevant)
        total += relevant
    precision = counts.cumsum() / np.arange(1, len(counts) + 1)
    return RunCurves(precision / len(qrels), recall / len(qrels), total / len(qrels))


def runs_report(
    runs: Sequence[JudgedRun],
    curves: Sequence[RunCurves],
    comparisons: Sequence[Comparison],
    *,
    files: Sequence[Path],
    command: str,
) -> Report:
    """The report of `runs`, judged by the same qrels, the first of `files`."""
    queries = counted(len(runs[0].measures.queries), "query")
    compared = comparison_words(comparisons)
    bootstrap = f"{ROUNDS:,} resamples, seed {significance.SEED}"
    return Report(
        f"Evaluation of {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs compared",
        f"{queries} judged by {files[0].name}; {curves[0].relevant:,.1f} relevant documents per "
        "query on average.",
        [
            _summary(runs),
            *([Section("comparisons", "Significance", compared)] if compared else []),
            Section("curves", "Precision by rank and recall", _curves(runs, curves)),
            Section("spread", "Results by query", [_spread(runs)]),
            _queries(runs),
            reproduce(command, [*file_facts(files), ("bootstrap", bootstrap)]),
        ],
    )


def _summary(runs: Sequence[JudgedRun]) -> Section:
    means = runs[0].measures.means
    blocks: list[Block] = []
    if len(runs) == 1:
        blocks.append(Tiles([Tile(f"{mean:.4f}", name) for name, mean in list(means.items())[:4]]))
    blocks.append(runs_table(runs))
    if any(name.startswith("nAP@") for name in means):
        blocks.append(Text(AP_NOTE))
    blocks += [Text(note, note=True) for run in runs for note in run.notes]
    return Section("summary", "Summary", blocks)


def _curves(runs: Sequence[JudgedRun], curves: Sequence[RunCurves]) -> list[Block]:
    of_runs = list(zip([run.name for run in runs], curves, strict=True))
    return curve_blocks(
        {name: of.precision for name, of in of_runs},
        {name: of.recall for name, of in of_runs},
        "Mean P@k; ranks that a run does not fill count as wrong.",
        "Interpolated precision over the ranks that the run holds; 0 beyond them.",
    )


def _spread(runs: Sequence[JudgedRun]) -> Plot:
    measure = main_measure(runs[0].measures.means)
    return spread_block({run.name: run.measures.values[measure] for run in runs}, measure)


def _queries(runs: Sequence[JudgedRun]) -> Section:
    """The worst queries of the first run, with every run's figure."""
    measure = main_measure(runs[0].measures.means)
    first = runs[0].measures.per_query[measure]
    worst = sorted(first, key=lambda query: first[query])[:_LISTED]
    rows = [[q, *(f"{run.measures.per_query[measure][q]:.4f}" for run in runs)] for q in worst]
    said = f"The {len(worst)} lowest of {len(first):,}" if len(worst) < len(first) else "All"
    header = ["query", *(run.name for run in runs)]
    table = Table(f"{said} by {measure} of {runs[0].name}", header, rows, folded=True)
    return Section("queries", "The worst queries", [table])
