"""`cbir evaluate`: how good the answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cbir.cli.comparing import (
    compare_indexes,
    print_indexes,
    short_names,
    with_intervals,
    write_per_query,
)
from cbir.cli.options import descriptor_option
from cbir.cli.output import print_json, progress_bar, progress_stages
from cbir.cli.protocols import print_accuracy, print_protocols, protocol_options
from cbir.cli.report import check_report, report_evaluation, report_indexes
from cbir.wording import counted

if TYPE_CHECKING:
    from cbir.cli.comparing import PerQuery
    from cbir.evaluation import Compared, Evaluation
    from cbir.search.searcher import Searcher

_WITH_RECALL = frozenset(
    ("recall_at", "indexes", "queries", "sample", "label_from_folder", "as_json", "descriptor")
)
_WITH_QRELS = frozenset(
    ("qrels", "runs", "measures", "label_from_folder", "per_query", "report", "as_json")
)


@click.command(short_help="Measure how good the answers are.")
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--qrels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Judge the RUN files by this file.",
)
@click.option(
    "--in",
    "indexes",
    multiple=True,
    metavar="INDEX",
    help="Search this index; given again, both are asked the same and compared.",
)
@click.option("--queries", metavar="SOURCE", help="The labelled images to search for.")
@click.option(
    "-m", "--measure", "measures", multiple=True, metavar="NAME", help="AP@100, nDCG@10 ..."
)
@protocol_options
@click.option(
    "--recall",
    "recall_at",
    type=click.IntRange(1),
    metavar="K",
    help="Measure the index's own search against exact search instead; no labels are needed.",
)
@click.option("--label-from-folder", is_flag=True, help="Label each query with its folder's name.")
@click.option(
    "--per-query",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Write every query's values there.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a page into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@descriptor_option
@click.pass_context
def command(
    context: click.Context,
    /,
    runs: tuple[Path, ...],
    qrels: Path | None,
    indexes: tuple[str, ...],
    queries: str | None,
    measures: tuple[str, ...],
    recall_at: int | None,
    label_from_folder: bool,
    per_query: Path | None,
    report: Path | None,
    as_json: bool,
    descriptor: str | None,
    **asked: Any,
) -> None:
    """Measure run files (--qrels Q RUN...), or an index with labelled queries (--in, --queries).

    AP@100 is trec_eval's map_cut_100, divided by all relevant images; nAP@100 divides by
    min(100, relevant images); AP reads the whole ranking. Search is exact. The usual protocol
    asks the index; the unseen index is the queries searched among each other. Several run files or
    indexes are compared: paired randomisation test, bootstrap intervals, wins and losses, class by
    class.
    """
    from cbir.cli.judge import judge, print_runs
    from cbir.cli.recall import print_recall, recall
    from cbir.measures.trec import check_target

    if recall_at is not None:
        _only(context, "--recall", _WITH_RECALL)
        if len(indexes) != 1 or queries is None:
            raise click.UsageError("--recall goes with one --in INDEX and --queries SOURCE")
        sample = asked["sample"]
        figures = recall(indexes[0], queries, recall_at, sample, label_from_folder, descriptor)
        _show(figures, as_json, print_recall)
    elif qrels is not None and runs:
        _only(context, "--qrels", _WITH_QRELS)
        figures = judge(qrels, runs, measures, label_from_folder, per_query, report)
        _show(figures, as_json, print_runs)
    elif indexes and queries is not None and not runs and qrels is None:
        names = short_names(indexes)
        check_report(report, [*indexes, queries])
        if per_query is not None:
            check_target(per_query)
        with ExitStack() as opened:
            searchers = _opened(opened, indexes, descriptor)
            evaluations = [
                _experiment(searcher, queries, measures, label_from_folder, **asked)
                for searcher in searchers
            ]
            if per_query is not None:
                write_per_query(per_query, _columns(names, evaluations))
            if len(indexes) > 1:
                compared = _compared(names, evaluations)
                figures = compare_indexes(compared)
                if report is not None:
                    report_indexes(report, compared, searchers)
                _show(figures, as_json, print_indexes)
            else:
                if report is not None:
                    report_evaluation(report, evaluations[0], searchers[0])
                _show(with_intervals(evaluations[0]), as_json, print_evaluation)
    else:
        raise click.UsageError("give --qrels Q RUN..., or --in INDEX --queries SOURCE")


def print_evaluation(figures: dict[str, Any]) -> None:
    """An experiment's figures as a table on standard output."""
    memory = " (index = training images)" if figures["training_images_indexed"] else ""
    click.echo(
        f"{figures['descriptor']}: {counted(figures['n_queries'], 'query')}, "
        f"{figures['n_indexed']:,} indexed{memory}"
    )
    print_protocols(figures)
    print_accuracy(figures["accuracy"])
    seconds = figures["seconds"]
    click.echo(
        f"described in {seconds['describe']:.1f} s, searched in {seconds['search']:.1f} s, "
        f"measured in {seconds['measure']:.1f} s"
    )


def _only(context: click.Context, mode: str, allowed: frozenset[str]) -> None:
    """Refuse an option that was given and means nothing beside `mode`."""
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in allowed:
            shown = "RUN" if isinstance(parameter, click.Argument) else parameter.opts[0]
            raise click.UsageError(f"{shown} does not go with {mode}")


def _show(
    answer: dict[str, Any], as_json: bool, as_tables: Callable[[dict[str, Any]], None]
) -> None:
    (print_json if as_json else as_tables)(answer)


def _opened(opened: ExitStack, indexes: Sequence[str], descriptor: str | None) -> list[Searcher]:
    """All of them, before the long work: a place may be mistyped."""
    from cbir.search.searcher import Searcher

    return [opened.enter_context(closing(Searcher.open(i, descriptor))) for i in indexes]


def _experiment(
    searcher: Searcher,
    queries: str,
    measures: tuple[str, ...],
    label_from_folder: bool,
    **asked: Any,
) -> Evaluation:
    from cbir.evaluation import evaluate
    from cbir.images.sources import open_source
    from cbir.measures.names import DEFAULT_MEASURES

    source = open_source(queries, label_from_folder)
    with progress_stages() as update:
        return evaluate(searcher, source, measures or DEFAULT_MEASURES, on_stage=update, **asked)


def _compared(names: Sequence[str], evaluations: Sequence[Evaluation]) -> Compared:
    from cbir.evaluation import compare_evaluations

    with progress_bar("comparing"):
        return compare_evaluations(names, evaluations)


def _columns(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[PerQuery]:
    """Every query's values under each protocol, as `write_per_query` takes them."""
    columns: list[PerQuery] = []
    for name, one in zip(names, evaluations, strict=True):
        named = {"run": name} if len(names) > 1 else {}
        main = "unseen" if one.protocol == "unseen" else "usual"
        columns.append(({**named, "protocol": main}, one.queries.ids, one.per_query))
        if main == "usual" and one.unseen_per_query is not None:
            unseen = one.unseen_per_query
            columns.append(({**named, "protocol": "unseen"}, one.queries.ids, unseen))
    return columns
