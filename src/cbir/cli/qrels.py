"""`cbir qrels`: TREC relevance judgements from labels."""

from __future__ import annotations

from pathlib import Path

import click

from cbir.cli.options import INDEX


@click.command(short_help="Write TREC relevance judgements from labels.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--in", "index", required=True, type=INDEX, metavar="INDEX", help="The index that is judged."
)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help='Qrels file (.gz too), "-": stdout.'
)
@click.option("--label-from-folder", is_flag=True, help="Label each image with its folder's name.")
def command(source: str, index: str, output: str, label_from_folder: bool) -> None:
    """Judge every indexed image relevant to the images of SOURCE that have its label."""
    import sys
    from contextlib import closing

    from cbir.cli.output import say
    from cbir.errors import QueryError
    from cbir.evaluation.relevance import class_qrels
    from cbir.evaluation.trec import write_qrels
    from cbir.experiment import query_labels
    from cbir.images.sources import open_source
    from cbir.index.open import open_index

    with closing(open_index(index)) as opened:
        queries = query_labels(opened, open_source(source, label_from_folder))
        labels = opened.labels()
    if not any(label for _, label in queries):
        raise QueryError(f"the images of {source} have no labels", "--label-from-folder adds them")
    target = sys.stdout if output == "-" else Path(output)
    lines = write_qrels(target, class_qrels(queries, labels))
    say(f"{len(queries):,} queries, {lines:,} lines")
