"""`cbir evaluate --in`: evaluates indexes with images as queries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbir.cli.evaluate_output import (
    PerQuery,
    check_targets,
    short_names,
    write_page,
    write_per_query,
)
from cbir.cli.output import print_json, progress_bar, progress_stages, say
from cbir.evaluation import Evaluation, compare_evaluations, evaluate
from cbir.evaluation.recall import measure_recall
from cbir.images.sources import open_source
from cbir.measures.names import DEFAULT_MEASURES
from cbir.measures.significance import class_means, mean_intervals
from cbir.report.tables import compared_words, evaluation_words, recall_words
from cbir.report.terminal import show
from cbir.search.searcher import Searcher
from cbir.wording import counted


def evaluate_indexes(
    indexes: Sequence[str],
    queries: str,
    measures: Sequence[str],
    *,
    label_from_folder: bool,
    descriptor: str | None,
    per_query: Path | None,
    report: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Evaluate each of `indexes`, and compare several; `asked` is passed on to `evaluate`."""
    names = short_names(indexes)
    check_targets(per_query, report, [*indexes, queries])
    with ExitStack() as opened:
        # Open all indexes before the long work: an address may be mistyped.
        searchers = [opened.enter_context(closing(Searcher.open(i, descriptor))) for i in indexes]
        evaluations = []
        for searcher in searchers:
            source = open_source(queries, label_from_folder)
            with progress_stages() as update:
                evaluations.append(
                    evaluate(
                        searcher, source, measures or DEFAULT_MEASURES, on_stage=update, **asked
                    )
                )
        if per_query is not None:
            write_per_query(per_query, _columns(names, evaluations))
        if len(names) == 1:
            _finish_one(evaluations[0], searchers[0], report, as_json)
        else:
            _finish_several(names, evaluations, searchers, report, as_json)


def evaluate_recall(
    index: str,
    queries: str,
    k: int,
    *,
    sample: int | None,
    label_from_folder: bool,
    descriptor: str | None,
    as_json: bool,
) -> None:
    """Measure recall at `k` of the search in `index` for the images of `queries`."""
    source = open_source(queries, label_from_folder)
    with (
        closing(Searcher.open(index, descriptor)) as searcher,
        progress_stages() as update,
    ):
        recall = measure_recall(searcher, source, k, sample=sample, on_stage=update)
    if as_json:
        print_json(recall.to_json())
    else:
        show(recall_words(recall))


def _finish_one(
    evaluation: Evaluation, searcher: Searcher, report: Path | None, as_json: bool
) -> None:
    if report is not None:
        from cbir.report.write import write_report

        write_page(lambda command: write_report(report, evaluation, searcher, command=command))
    if as_json:
        print_json(_to_json(evaluation))
    else:
        show(evaluation_words(evaluation))


def _finish_several(
    names: Sequence[str],
    evaluations: Sequence[Evaluation],
    searchers: Sequence[Searcher],
    report: Path | None,
    as_json: bool,
) -> None:
    with progress_bar("comparing"):
        compared = compare_evaluations(names, evaluations)
    for name, one in zip(names, evaluations, strict=True):
        lacking = one.n_queries - len(compared.labels)
        if lacking:
            said = counted(lacking, "query")
            say(f"{name}: not compared: {said} that another index lacks")
    if report is not None:
        from cbir.report.write import write_comparison

        write_page(lambda command: write_comparison(report, compared, searchers, command=command))
    if as_json:
        runs = [
            {"name": name, **_to_json(one)} for name, one in zip(names, evaluations, strict=True)
        ]
        print_json({"runs": runs, "comparisons": compared.to_json()})
    else:
        show(compared_words(compared))


def _to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of one index, with intervals of its means and its classes."""
    unseen = evaluation.unseen_per_query
    classes = class_means(evaluation.per_query, evaluation.queries.labels)
    return {
        **evaluation.to_json(),
        "intervals": mean_intervals(evaluation.per_query),
        "unseen_intervals": mean_intervals(unseen) if unseen else None,
        "classes": {label: asdict(of) for label, of in classes.items()},
    }


def _columns(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[PerQuery]:
    """Every query's values under each protocol, as `write_per_query` takes them."""
    return [
        (
            {**({"run": name} if len(names) > 1 else {}), "protocol": protocol},
            one.queries.ids,
            values,
        )
        for name, one in zip(names, evaluations, strict=True)
        for protocol, values in one.values.items()
    ]
