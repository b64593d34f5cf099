"""`cbir evaluate`: how good the answers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cbir.cli.options import descriptor_option
from cbir.cli.output import print_json, print_table, progress_bar, say


@click.command(short_help="Measure how good the answers are.")
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--qrels", type=click.Path(path_type=Path), help="Judge the RUN files by this file.")
@click.option("--in", "index", metavar="INDEX", help="Search this index.")
@click.option("--queries", metavar="SOURCE", help="The labelled images to search for.")
@click.option(
    "-m", "--measure", "measures", multiple=True, metavar="NAME", help="AP@100, nDCG@10 ..."
)
@click.option("--sample", type=click.IntRange(1), help="Only so many of the queries, at random.")
@click.option("--expand", default=0, metavar="M", help="Average the query with its first M hits.")
@click.option("--label-from-folder", is_flag=True, help="Label each query with its folder's name.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a page into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@descriptor_option
def command(
    runs: tuple[Path, ...],
    qrels: Path | None,
    index: str | None,
    queries: str | None,
    measures: tuple[str, ...],
    sample: int | None,
    expand: int,
    label_from_folder: bool,
    report: Path | None,
    as_json: bool,
    descriptor: str | None,
) -> None:
    """Measure run files (--qrels Q RUN...), or an index with labelled queries (--in, --queries).

    AP@100 is trec_eval's map_cut_100, divided by all relevant images; nAP@100 divides by
    min(100, relevant images). Search is exact.
    """
    from cbir.cli.judge import judge, print_runs

    if qrels is not None and runs and index is None and queries is None:
        answer = judge(qrels, runs, measures, report)
        if as_json:
            print_json(answer)
        else:
            print_runs(answer)
    elif index is not None and queries is not None and not runs and qrels is None:
        figures = _experiment(
            index, queries, measures, sample, expand, label_from_folder, descriptor, report
        )
        if as_json:
            print_json(figures)
        else:
            print_evaluation(figures)
    else:
        raise click.UsageError("give --qrels Q RUN..., or --in INDEX --queries SOURCE")


def print_evaluation(figures: dict[str, Any]) -> None:
    """An experiment's figures as a table on standard output."""
    unseen = figures["unseen_index"] or {}
    memory = " (index = training images)" if figures["training_images_indexed"] else ""
    click.echo(
        f"{figures['descriptor']}: {figures['n_queries']:,} queries, "
        f"{figures['n_indexed']:,} indexed{memory}"
    )
    print_table(
        ["measure", "usual protocol", "unseen index"],
        [
            [name, f"{value:.4f}", f"{unseen[name]:.4f}" if unseen else "-"]
            for name, value in figures["measures"].items()
        ],
    )
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
    report: Path | None,
) -> dict[str, Any]:
    from contextlib import closing

    from cbir.cli.report import check_report, report_evaluation
    from cbir.evaluation.measures import DEFAULT_MEASURES
    from cbir.experiment import evaluate
    from cbir.images.sources import open_source
    from cbir.search import Searcher

    check_report(report)
    source = open_source(queries, label_from_folder)
    with closing(Searcher.open(index, descriptor)) as searcher:
        with progress_bar("evaluating") as update:
            result = evaluate(
                searcher,
                source,
                measures or DEFAULT_MEASURES,
                sample=sample,
                expand=expand,
                on_done=update,
            )
        if report is not None:
            report_evaluation(report, result, searcher, expand)
        return result.to_json()
