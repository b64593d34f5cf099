"""`cbir evaluate --qrels`: run files judged by relevance judgements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cbir.cli.output import print_table, say


def judge(
    qrels: Path, runs: tuple[Path, ...], measures: tuple[str, ...], report: Path | None = None
) -> dict[str, Any]:
    """Figures of run files by the judgements in `qrels`, as `--json` prints them.

    With `report` a page about them is written into that folder.
    """
    from cbir.cli.report import check_report, report_runs
    from cbir.evaluation.measures import DEFAULT_MEASURES, with_pairs
    from cbir.evaluation.trec import read_qrels, read_run
    from cbir.evaluation.trec_eval import evaluate_run
    from cbir.report.runs import JudgedRun, judged_run

    check_report(report)
    reported: list[JudgedRun] = []
    judged = read_qrels(qrels)
    names = with_pairs(measures or DEFAULT_MEASURES)
    answers = []
    for run in runs:
        ranking = read_run(run)
        result = evaluate_run(judged, ranking, names)
        if report is not None:
            reported.append(judged_run(run.name, judged, ranking, result))
        answers.append(
            {
                "name": run.name,
                "n_queries": len(judged),
                "missing_queries": result.missing,
                "measures": result.means,
            }
        )
    answer: dict[str, Any] = (
        answers[0] if len(answers) == 1 else {"runs": answers, "comparisons": []}
    )
    if report is not None:
        report_runs(report, reported, qrels, answer.get("comparisons", []))
    return answer


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
