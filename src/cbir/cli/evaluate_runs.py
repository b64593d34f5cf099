"""`cbir evaluate --qrels`: evaluates run files against relevance judgements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cbir.cli.evaluate_output import check_targets, short_names, write_page, write_per_query
from cbir.cli.output import print_json, progress_bar, say
from cbir.evaluation.judging import JudgedRun, folder_labels, judge_run, require_answers
from cbir.measures.names import DEFAULT_MEASURES, with_pairs
from cbir.measures.significance import compare_runs
from cbir.measures.trec import read_qrels, read_run
from cbir.measures.trec_eval import require_trec_eval
from cbir.report.tables import runs_words
from cbir.report.terminal import show


def evaluate_runs(
    qrels: Path,
    runs: Sequence[Path],
    measures: Sequence[str],
    *,
    label_from_folder: bool,
    per_query: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Judge `runs` by `qrels`, compare several, and warn of likely mistakes.

    With `label_from_folder`, a query's class is the folder that its id names.
    """
    require_trec_eval()
    names = short_names(map(str, runs))
    asked = with_pairs(measures or DEFAULT_MEASURES)
    check_targets(per_query, report)
    with progress_bar("reading qrels", "MB") as update:
        judgements = read_qrels(qrels, update)
    labels = folder_labels(judgements, qrels) if label_from_folder else None
    judged: list[JudgedRun] = []
    curves = []
    for path, name in zip(runs, names, strict=True):
        with progress_bar("reading run", "MB") as update:
            run = read_run(path, update)
        require_answers(judgements, run, qrels, path)
        with progress_bar("evaluating") as update:
            judged.append(judge_run(name, judgements, run, asked, labels, update))
        for note in judged[-1].notes:
            say(note)
        if report is not None:
            from cbir.report.run_files import run_curves

            curves.append(run_curves(judgements, run))
    if per_query is not None:
        several = len(runs) > 1
        columns = [
            ({"run": one.name} if several else {}, one.measures.queries, one.measures.values)
            for one in judged
        ]
        write_per_query(per_query, columns)
    comparisons = compare_runs([(one.name, one.measures.values) for one in judged], labels)
    if report is not None:
        from cbir.report.write import write_runs_report

        write_page(
            lambda command: write_runs_report(
                report, judged, curves, comparisons, files=[qrels, *runs], command=command
            )
        )
    if not as_json:
        show(runs_words(judged, comparisons))
    elif len(judged) == 1:
        print_json(judged[0].to_json())
    else:
        figures = [one.to_json() for one in judged]
        print_json({"runs": figures, "comparisons": [one.to_json() for one in comparisons]})
