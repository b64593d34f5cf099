"""`cbir evaluate`: how good the answers are."""

from __future__ import annotations

from collections.abc import Callable
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
from cbir.cli.output import print_json, progress_stages, say
from cbir.cli.protocols import print_protocols, protocol_options

if TYPE_CHECKING:
    from cbir.experiment import Evaluation


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
@click.option("--sample", type=click.IntRange(1), help="Only so many of the queries, at random.")
@click.option("--expand", default=0, metavar="M", help="Average the query with its first M hits.")
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
def command(
    runs: tuple[Path, ...],
    qrels: Path | None,
    indexes: tuple[str, ...],
    queries: str | None,
    measures: tuple[str, ...],
    sample: int | None,
    expand: int,
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
    from cbir.cli.report import check_report, report_evaluations

    if recall_at is not None:
        if len(indexes) != 1 or queries is None or runs or qrels or report or per_query:
            raise click.UsageError("--recall goes with one --in INDEX and --queries SOURCE alone")
        figures = recall(indexes[0], queries, recall_at, sample, label_from_folder, descriptor)
        _show(figures, as_json, print_recall)
    elif qrels is not None and runs and not indexes and queries is None:
        _show(
            judge(qrels, runs, measures, label_from_folder, per_query, report), as_json, print_runs
        )
    elif indexes and queries is not None and not runs and qrels is None:
        check_report(report)
        evaluations = [
            _experiment(
                index, queries, measures, sample, expand, label_from_folder, descriptor, **asked
            )
            for index in indexes
        ]
        names = short_names(indexes)
        if per_query is not None:
            named = zip(names, evaluations, strict=True)
            write_per_query(per_query, [(n, one.queries.ids, one.per_query) for n, one in named])
        several = len(indexes) > 1
        figures = compare_indexes(names, evaluations) if several else with_intervals(evaluations[0])
        if report is not None:
            found = figures.get("comparisons", [])
            report_evaluations(report, indexes, evaluations, descriptor, found)
        _show(figures, as_json, print_indexes if several else print_evaluation)
    else:
        raise click.UsageError("give --qrels Q RUN..., or --in INDEX --queries SOURCE")


def _show(
    answer: dict[str, Any], as_json: bool, as_tables: Callable[[dict[str, Any]], None]
) -> None:
    (print_json if as_json else as_tables)(answer)


def print_evaluation(figures: dict[str, Any]) -> None:
    """An experiment's figures as a table on standard output."""
    memory = " (index = training images)" if figures["training_images_indexed"] else ""
    click.echo(
        f"{figures['descriptor']}: {figures['n_queries']:,} queries, "
        f"{figures['n_indexed']:,} indexed{memory}"
    )
    print_protocols(figures)
    accuracy = (figures["accuracy"] or {}).items()
    shares = [f"{kind.replace('_', ' ')} {share:.4f}" for kind, share in accuracy if share]
    if shares:
        click.echo(f"accuracy of its own classifier: {', '.join(shares)}")
    seconds = figures["seconds"]
    click.echo(
        f"described in {seconds['describe']:.1f} s, searched in {seconds['search']:.1f} s, "
        f"measured in {seconds['measure']:.1f} s"
    )
    if figures["failed"]:
        say(f"{figures['failed']} queries could not be read and are left out")


def _experiment(
    index: str,
    queries: str,
    measures: tuple[str, ...],
    sample: int | None,
    expand: int,
    label_from_folder: bool,
    descriptor: str | None,
    **asked: Any,
) -> Evaluation:
    from contextlib import closing

    from cbir.evaluation.measures import DEFAULT_MEASURES
    from cbir.experiment import evaluate
    from cbir.images.sources import open_source
    from cbir.search import Searcher

    source = open_source(queries, label_from_folder)
    with (
        closing(Searcher.open(index, descriptor)) as searcher,
        progress_stages() as update,
    ):
        return evaluate(
            searcher,
            source,
            measures or DEFAULT_MEASURES,
            sample=sample,
            expand=expand,
            on_stage=update,
            **asked,
        )
