"""The curves of an evaluation: precision over ranks and recall, and the scores of hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cbir.evaluation.protocols import unseen_trial, whole_image_trial
from cbir.report.case import UNSEEN, USUAL, Case
from cbir.report.content import Block, Plot, Section, Table
from cbir.report.drawing import drawing
from cbir.report.plots import precision_plot, recall_precision_plot, score_plot
from cbir.report.rankings import (
    Floats,
    chance,
    encoded,
    full_curve,
    precision_at_ranks,
    sampled,
    score_for,
)
from cbir.wording import counted

TAIL = 0.01
"""This share of the scores, the lowest, would leave no room for the others."""


def curve_section(case: Case) -> Section:
    """Precision of the first k hits, and over the whole ranking."""
    usual = precision_at_ranks(case.hits.found)
    precision = {case.main: usual}
    if case.unseen is not None:
        precision[UNSEEN] = case.unseen.precision
    by_chance = {
        case.main: chance(case.hits.asked, encoded(case.hits.classes, list(case.labels.values())))
    }
    if case.unseen is not None:
        others = len(case.hits.asked) - 1
        by_chance[UNSEEN] = case.unseen.relevant / max(1, others)
    recall, sample = recall_curves(case)
    asked = case.evaluation.n_queries
    of = "all queries" if sample == asked else f"a seeded sample of {sample:,} of {asked:,} queries"
    with drawing():
        at_ranks = precision_plot(precision, by_chance)
        over_recall = recall_precision_plot(recall, by_chance)
    ranks = [rank for rank in (1, 2, 5, 10, 20, 50, 100) if rank <= len(usual)]
    levels = range(0, 101, 10)
    return Section(
        "curves",
        "Precision, hit by hit",
        [
            Plot(
                "precision-at-k",
                "Precision of the first k hits",
                at_ranks,
                f"Falling lines: {_ends(precision, ranks)}.",
                f"Mean P@k over {counted(asked, 'query')}.",
            ),
            Plot(
                "precision-recall",
                "Precision and recall over the whole ranking",
                over_recall,
                f"Falling lines: precision at recall 0, 0.5, 1: {_at_levels(recall)}.",
                f"Interpolated precision over full rankings of {of}, by whole-image vectors.",
            ),
            Table(
                "The curves as numbers: P@k",
                ["k", *precision],
                [
                    [
                        str(k),
                        *(f"{c[k - 1]:.4f}" if k <= len(c) else "" for c in precision.values()),
                    ]
                    for k in ranks
                ],
                folded=True,
            ),
            Table(
                "The curves as numbers: precision over recall",
                ["recall", *recall],
                [[f"{v / 100:.1f}", *(f"{c[v]:.4f}" for c in recall.values())] for v in levels],
                folded=True,
            ),
        ],
    )


def recall_curves(case: Case) -> tuple[dict[str, Floats], int]:
    """A curve a protocol, and of how many queries: the same for both."""
    evaluation = case.evaluation
    queries, expand, shuffle = evaluation.queries, evaluation.expand, evaluation.shuffle
    chosen = sampled(len(queries.ids), max(len(queries.ids), len(case.labels)))
    curves = {}
    if case.main == USUAL:
        some = queries.chosen(chosen.tolist())
        curves[USUAL] = full_curve(whole_image_trial(case.searcher, some, expand, shuffle))
    if case.main == UNSEEN or case.unseen is not None:
        curves[UNSEEN] = full_curve(unseen_trial(queries, expand, shuffle).asking(chosen))
    return curves, len(chosen)


def score_sections(case: Case) -> list[Section]:
    """How the scores of right and wrong hits differ; nothing where there are no hits."""
    hits = case.hits
    there, found = hits.retrieved, hits.found
    if not there.any():
        return []
    lowest = float(np.quantile(hits.scores[there], TAIL))
    right, wrong = hits.scores[found], hits.scores[there & ~found]
    with drawing():
        figure = score_plot(right, wrong, lowest)
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
            "Scores of right and of wrong hits",
            figure,
            f"Two histograms. {said}",
            f"The first {counted(depth, 'hit')} of every query; the shares of each kind sum to "
            f"100%. The lowest {TAIL:.0%} are counted in the first bar. {said}",
        )
    ]
    rows = _limits(case)
    if rows:
        header = ["right are at least", "from score", "share of all hits"]
        blocks.append(Table("From which score on hits can be trusted", header, rows))
    return [Section("scores", "Scores, and how they tell right from wrong", blocks)]


def _limits(case: Case) -> list[list[str]]:
    """From which score on so many hits are right, down to the share that is true of all hits."""
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


def _ends(curves: Mapping[str, Floats], ranks: Sequence[int]) -> str:
    if not ranks:
        return "no hits"
    first, last = ranks[0], ranks[-1]
    return "; ".join(
        f"{name} from {values[first - 1]:.3f} at k={first} "
        f"to {values[min(last, len(values)) - 1]:.3f} at k={min(last, len(values))}"
        for name, values in curves.items()
        if len(values)
    )


def _at_levels(curves: Mapping[str, Floats]) -> str:
    return "; ".join(f"{n} {c[0]:.3f}, {c[50]:.3f}, {c[100]:.3f}" for n, c in curves.items())
