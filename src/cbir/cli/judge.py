"""`cbir evaluate --qrels`: run files judged by relevance judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.cli.comparing import (
    print_classes,
    print_comparisons,
    print_means,
    short_names,
    write_per_query,
)
from cbir.cli.output import print_table, progress_bar, say
from cbir.wording import counted, listed

if TYPE_CHECKING:
    from cbir.measures.trec_eval import Evaluation

_LOOKED_AT = 10_000
"""Queries among which the one that was meant is looked for."""

_Run = Mapping[str, Sequence[tuple[str, float]]]


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
    `write_per_query`. With `report` a page about them is written into that folder. What may be a
    mistake is said on standard error.
    """
    import numpy as np

    from cbir.cli.report import check_report, report_runs
    from cbir.measures.names import DEFAULT_MEASURES, with_pairs
    from cbir.measures.significance import class_means, compare_runs, mean_intervals
    from cbir.measures.trec import check_target, read_qrels, read_run
    from cbir.measures.trec_eval import evaluate_run, require_trec_eval

    if report is not None:
        from cbir.report.run_files import JudgedRun, judged_run

    require_trec_eval()
    called = short_names(map(str, runs))
    names = with_pairs(measures or DEFAULT_MEASURES)
    check_report(report)
    if per_query is not None:
        check_target(per_query)
    with progress_bar("reading qrels", "MB") as update:
        judged = read_qrels(qrels, update)
    labels = _folders(qrels, list(judged)) if label_from_folder else None
    answers = []
    values = []
    reported: list[JudgedRun] = []
    for run, shown in zip(runs, called, strict=True):
        with progress_bar("reading run", "MB") as update:
            ranking = read_run(run, update)
        _require_answers(qrels, judged, run, ranking)
        with progress_bar("evaluating") as update:
            result = evaluate_run(judged, ranking, names, update)
        _say_mistakes(shown, judged, ranking, result)
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
                "unjudged_queries": result.unjudged,
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
    """The figures of `judge` as tables on standard output."""
    answers = answer.get("runs", [answer])
    if len(answers) == 1:
        _print_one(answer)
    else:
        print_means("measure", [(one["name"], one["measures"]) for one in answers])
        print_comparisons([one["name"] for one in answers], answer["comparisons"])


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


def _require_answers(
    qrels: Path, judged: Mapping[str, Mapping[str, int]], run: Path, ranking: _Run
) -> None:
    """Raise `QueryError` where no query of the run is one of the qrels: every figure would be 0."""
    from itertools import islice

    from cbir.errors import QueryError
    from cbir.wording import nearest

    if judged.keys().isdisjoint(ranking):
        asked, first = next(iter(ranking)), next(iter(judged))
        meant = nearest(asked, islice(judged, _LOOKED_AT)) or first
        raise QueryError(
            f"{run} answers none of the queries of {qrels}",
            f"the run has '{asked}', the qrels have '{meant}': "
            "write both for the same SOURCE and INDEX",
        )


def _say_mistakes(
    name: str, judged: Mapping[str, Mapping[str, int]], ranking: _Run, result: Evaluation
) -> None:
    """What lowers the figures of a run, or makes them zeros, and may not be meant."""
    from cbir.measures.trec_eval import cut_short

    if result.missing:
        missing = counted(len(result.missing), "query")
        say(f"{name}: {missing} not answered, counted as 0: {listed(result.missing)}")
    if result.unjudged:
        unjudged = counted(len(result.unjudged), "query")
        say(f"{name}: {unjudged} unknown to the qrels, not counted: {listed(result.unjudged, 3)}")
    answered = [query for query in judged if ranking.get(query)]
    if not any(document in judged[query] for query in answered for document, _ in ranking[query]):
        ranked, known = ranking[answered[0]][0][0], next(iter(judged[answered[0]]))
        say(f"{name}: no document is in the qrels; it ranks '{ranked}', they have '{known}'")
    longest, measures = cut_short(judged, ranking, result.means)
    if measures:
        count = "count" if len(measures) > 1 else "counts"
        held = counted(longest, "rank")
        say(f"{name} holds {held} at most: {', '.join(measures)} {count} the rest as wrong")


def _folders(qrels: Path, queries: Sequence[str]) -> list[str | None]:
    """The folder of each query id, as `open_source` takes it for a label."""
    from cbir.errors import QueryError
    from cbir.images.members import label_of

    folders = [
        label_of(key, source) if slash else None
        for source, slash, key in (query.partition("/") for query in queries)
    ]
    if not any(folders):
        raise QueryError(
            f"no query id of {qrels} names a folder, so there are no classes",
            "leave --label-from-folder out",
        )
    return folders
