"""`cbir evaluate --qrels`: run files judged by relevance judgements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cbir.cli.comparing import (
    print_classes,
    print_comparisons,
    print_means,
    short_names,
    write_per_query,
)
from cbir.cli.output import print_table, say


def judge(
    qrels: Path,
    runs: Sequence[Path],
    measures: Sequence[str],
    label_from_folder: bool = False,
    per_query: Path | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Figures of run files by the judgements in `qrels`, as `--json` prints them.

    With `label_from_folder` a query's class is the folder that its id names. `per_query`: see
    `write_per_query`. With `report` a page about them is written into that folder.
    """
    import numpy as np

    from cbir.cli.report import check_report, report_runs
    from cbir.evaluation.compare import class_means, compare_runs, mean_intervals
    from cbir.evaluation.measures import DEFAULT_MEASURES, with_pairs
    from cbir.evaluation.trec import read_qrels, read_run
    from cbir.evaluation.trec_eval import evaluate_run

    if report is not None:
        from cbir.report.runs import JudgedRun, judged_run

    check_report(report)
    judged = read_qrels(qrels)
    names = with_pairs(measures or DEFAULT_MEASURES)
    labels = _folders(qrels, list(judged)) if label_from_folder else None
    answers = []
    values = []
    reported: list[JudgedRun] = []
    for run, shown in zip(runs, short_names(map(str, runs)), strict=True):
        ranking = read_run(run)
        result = evaluate_run(judged, ranking, names)
        if report is not None:
            reported.append(judged_run(shown, judged, ranking, result))
        of_queries = {
            name: np.fromiter(of_query.values(), dtype=np.float64, count=len(judged))
            for name, of_query in result.per_query.items()
        }
        values.append((shown, of_queries))
        answers.append(
            {
                "name": shown,
                "n_queries": len(judged),
                "missing_queries": result.missing,
                "measures": result.means,
                "intervals": mean_intervals(of_queries),
                **({"classes": class_means(of_queries, labels)} if labels else {}),
            }
        )
    if per_query is not None:
        several = len(runs) > 1
        columns = [({"run": n} if several else {}, list(judged), of) for n, of in values]
        write_per_query(per_query, columns)
    comparisons = compare_runs(values, labels) if len(runs) > 1 else []
    if report is not None:
        report_runs(report, reported, [qrels, *runs], comparisons)
    return {"runs": answers, "comparisons": comparisons} if len(runs) > 1 else answers[0]


def print_runs(answer: dict[str, Any]) -> None:
    """The figures of `judge` as tables and sentences on standard output."""
    answers = answer.get("runs", [answer])
    if len(answers) == 1:
        _print_one(answer)
    else:
        print_means("measure", [(one["name"], one["measures"]) for one in answers])
        print_comparisons([one["name"] for one in answers], answer["comparisons"])
    for one in answers:
        if one["missing_queries"]:
            missing = one["missing_queries"]
            say(f"{one['name']}: {len(missing)} queries not answered count as 0: {missing[0]} ...")


def _print_one(answer: dict[str, Any]) -> None:
    print_table(
        ["measure", answer["name"], "95% interval"],
        [
            [name, f"{mean:.4f}", "{:.4f} to {:.4f}".format(*answer["intervals"][name])]
            for name, mean in answer["measures"].items()
        ],
    )
    if "classes" in answer:
        print_classes(answer["classes"])


def _folders(qrels: Path, queries: Sequence[str]) -> list[str | None]:
    """The folder of each query id, as `open_source` takes it for a label."""
    from cbir.errors import QueryError
    from cbir.images.ids import decode_path

    folders = [query.rpartition("/")[0].rpartition("/")[2] for query in queries]
    if not any(folders):
        raise QueryError(
            f"no query id of {qrels} names a folder, so there are no classes",
            "leave --label-from-folder out",
        )
    return [decode_path(folder).decode(errors="replace") or None for folder in folders]
