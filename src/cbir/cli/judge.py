"""`cbir evaluate --qrels`: run files judged by relevance judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cbir.cli.output import print_table, say


def judge(qrels: Path, runs: tuple[Path, ...], measures: tuple[str, ...]) -> dict[str, Any]:
    """Figures of run files by the judgements in `qrels`, as `--json` prints them."""
    from cbir.evaluation.measures import DEFAULT_MEASURES, with_pairs
    from cbir.evaluation.trec import read_qrels, read_run
    from cbir.evaluation.trec_eval import evaluate_run

    judged = read_qrels(qrels)
    names = with_pairs(measures or DEFAULT_MEASURES)
    answers = []
    for run in runs:
        result = evaluate_run(judged, read_run(run), names)
        answers.append(
            {
                "name": run.name,
                "n_queries": len(judged),
                "missing_queries": result.missing,
                "measures": result.means,
            }
        )
    return answers[0] if len(answers) == 1 else {"runs": answers, "comparisons": []}


def print_runs(answer: dict[str, Any]) -> None:
    """The figures of `judge` as a table on standard output."""
    answers = answer.get("runs", [answer])
    names = list(answers[0]["measures"])
    print_table(
        ["measure", *(one["name"] for one in answers)],
        [[name, *(f"{one['measures'][name]:.4f}" for one in answers)] for name in names],
    )
    for one in answers:
        if one["missing_queries"]:
            missing = one["missing_queries"]
            say(f"{one['name']}: {len(missing)} queries not answered count as 0: {missing[0]} ...")
