"""`cbir evaluate`: how good the answers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cbir.cli.options import descriptor_option
from cbir.cli.output import print_json, progress_bar, say
from cbir.cli.protocols import print_protocols, protocol_options


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
@protocol_options
@click.option(
    "--recall",
    "recall_at",
    type=click.IntRange(1),
    metavar="K",
    help="Measure the index's own search against exact search instead; no labels are needed.",
)
@click.option("--label-from-folder", is_flag=True, help="Label each query with its folder's name.")
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
    recall_at: int | None,
    label_from_folder: bool,
    as_json: bool,
    descriptor: str | None,
    **asked: Any,
) -> None:
    """Measure run files (--qrels Q RUN...), or an index with labelled queries (--in, --queries).

    AP@100 is trec_eval's map_cut_100, divided by all relevant images; nAP@100 divides by
    min(100, relevant images); AP reads the whole ranking. Search is exact. The usual protocol
    asks the index; the unseen index is the queries searched among each other.
    """
    from cbir.cli.judge import judge, print_runs
    from cbir.cli.recall import print_recall, recall

    if qrels is not None and runs and index is None and queries is None:
        answer = judge(qrels, runs, measures)
        if as_json:
            print_json(answer)
        else:
            print_runs(answer)
    elif index is not None and queries is not None and not runs and qrels is None:
        if recall_at is not None:
            figures = recall(index, queries, recall_at, sample, label_from_folder, descriptor)
        else:
            figures = _experiment(
                index, queries, measures, sample, expand, label_from_folder, descriptor, **asked
            )
        if as_json:
            print_json(figures)
        elif recall_at is not None:
            print_recall(figures)
        else:
            print_evaluation(figures)
    else:
        raise click.UsageError("give --qrels Q RUN..., or --in INDEX --queries SOURCE")


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
) -> dict[str, Any]:
    from contextlib import closing

    from cbir.evaluation.measures import DEFAULT_MEASURES
    from cbir.experiment import evaluate
    from cbir.images.sources import open_source
    from cbir.search import Searcher

    source = open_source(queries, label_from_folder)
    with (
        closing(Searcher.open(index, descriptor)) as searcher,
        progress_bar("evaluating") as update,
    ):
        return evaluate(
            searcher,
            source,
            measures or DEFAULT_MEASURES,
            sample=sample,
            expand=expand,
            on_done=update,
            **asked,
        ).to_json()
