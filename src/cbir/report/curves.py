"""The curves of evaluations: precision over ranks and recall, spread of queries, scores of hits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cbir.evaluation.protocols import unseen_trial, whole_image_trial
from cbir.report.case import Case
from cbir.report.content import Block, Plot, Section, Table
from cbir.report.plots import precision_plot, recall_precision_plot, score_plot, spread_plot
from cbir.report.statistics import (
    Floats,
    full_curve,
    sampled,
    score_for,
)
from cbir.report.tables import LEAVE_ONE_OUT
from cbir.wording import counted

TAIL = 0.01
"""This share of hits, with the lowest scores, shares one bar, so that outliers take no space."""

_RANKS = (1, 2, 5, 10, 20, 50, 100)


def curve_section(case: Case) -> Section:
    """Precision of the first k hits, and over the whole ranking, under each protocol."""
    recall, sample = recall_curves(case)
    asked = case.evaluation.n_queries
    of = "all queries" if sample == asked else f"a seeded sample of {sample:,} of {asked:,} queries"
    blocks = curve_blocks(
        {title: side.precision for title, side in case.sides.items()},
        recall,
        f"Mean P@k over {counted(asked, 'query')}.",
        f"Interpolated precision over full rankings of {of}, with whole-image vectors.",
        by_chance={title: side.relevant / side.searched for title, side in case.sides.items()},
    )
    return Section("curves", "Precision by rank and recall", blocks)


def recall_curves(case: Case) -> tuple[dict[str, Floats], int]:
    """Protocol -> precision over recall; and the number of queries behind the curves."""
    queries, options = case.evaluation.queries, case.evaluation.options
    chosen = sampled(len(queries.ids), max(len(queries.ids), len(case.labels)))
    curves = {}
    for title in case.sides:
        if title == LEAVE_ONE_OUT:
            trial = unseen_trial(queries, options).asking(chosen)
        else:
            trial = whole_image_trial(case.searcher, queries.chosen(chosen.tolist()), options)
        curves[title] = full_curve(trial)
    return curves, len(chosen)


def curve_blocks(
    precision: Mapping[str, Floats],
    recall: Mapping[str, Floats],
    precision_caption: str,
    recall_caption: str,
    *,
    by_chance: Mapping[str, float] | None = None,
    under: str = "",
) -> list[Block]:
    """Precision over ranks and over recall, each as a plot and as a table.

    `under`: the protocol, if all curves share one.
    """
    longest = max(len(values) for values in precision.values())
    ranks = [rank for rank in _RANKS if rank <= longest]
    title, name = (f", {under}", f"-{under.replace(' ', '-')}") if under else ("", "")
    ends = "; ".join(
        f"{curve} from {values[0]:.3f} at k=1 to {values[-1]:.3f} at k={len(values)}"
        for curve, values in precision.items()
        if len(values)
    )
    levels = "; ".join(f"{n} {c[0]:.3f}, {c[50]:.3f}, {c[100]:.3f}" for n, c in recall.items())
    return [
        Plot(
            f"precision-at-k{name}",
            f"Precision of the first k hits{title}",
            precision_plot(precision, by_chance or {}),
            f"Lines over ranks: {ends or 'no hits'}.",
            precision_caption,
        ),
        Plot(
            f"precision-recall{name}",
            f"Precision and recall{title}",
            recall_precision_plot(recall, by_chance or {}),
            f"Falling lines: precision at recall 0, 0.5, 1: {levels}.",
            recall_caption,
        ),
        Table(
            f"Values of the curves: P@k{title}",
            ["k", *precision],
            [
                [str(k), *(f"{c[k - 1]:.4f}" if k <= len(c) else "" for c in precision.values())]
                for k in ranks
            ],
            folded=True,
        ),
        Table(
            f"Values of the curves: precision over recall{title}",
            ["recall", *recall],
            [
                [f"{v / 100:.1f}", *(f"{c[v]:.4f}" for c in recall.values())]
                for v in range(0, 101, 10)
            ],
            folded=True,
        ),
    ]


def spread_block(values: Mapping[str, Floats], measure: str, under: str = "") -> Plot:
    """The distribution of queries by value; `values` (q,) by the name of their curve."""
    quartiles = {name: np.quantile(of, (0.25, 0.5, 0.75)) for name, of in values.items()}
    said = " ".join(
        f"{name}: a quarter of the queries have at most {low:.3f}, half {half:.3f}, three quarters "
        f"{high:.3f}."
        for name, (low, half, high) in quartiles.items()
    )
    title = f"Queries by their {measure}{f', {under}' if under else ''}"
    return Plot("spread", title, spread_plot(values, measure), said, said)


def score_sections(case: Case) -> list[Section]:
    """The scores of right and wrong hits; nothing if there are no hits."""
    hits = case.hits
    there, found = hits.retrieved, hits.found
    if not there.any():
        return []
    lowest = float(np.quantile(hits.scores[there], TAIL))
    right, wrong = hits.scores[found], hits.scores[there & ~found]
    means = [
        f"{name} hits {scores.mean():.3f}"
        for name, scores in (("right", right), ("wrong", wrong))
        if len(scores)
    ]
    said = f"Mean score: {', '.join(means)}."
    depth = hits.labels.shape[1]
    blocks: list[Block] = [
        Plot(
            "scores",
            "Scores of right and wrong hits",
            score_plot(right, wrong, lowest),
            f"Two histograms. {said}",
            f"The first {counted(depth, 'hit')} of every query; the shares of each kind sum to "
            f"100%. The lowest {TAIL:.0%} are counted in the first bar. {said}",
        )
    ]
    rows = _limits(case)
    if rows:
        header = ["precision", "score at least", "share of all hits"]
        blocks.append(Table("Score thresholds", header, rows))
    return [Section("scores", "Scores as a sign of right hits", blocks)]


def _limits(case: Case) -> list[list[str]]:
    """The score thresholds for several precisions, down to the precision of all hits."""
    scores = case.hits.scores[case.hits.retrieved]
    rows: list[list[str]] = []
    for share in (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5):
        score = score_for(case.hits, share)
        if score is not None:
            above = float((scores >= score).mean())
            rows.append([f"{100 * share:.0f}%", f"{score:.4f}", f"{above:.1%}"])
            if above == 1:
                break
    return rows
