"""`cbir qrels`: TREC relevance judgements from labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cbir.cli.options import INDEX, metadata_option

if TYPE_CHECKING:
    from cbir.types import OnDone

_Query = tuple[str, str | None]


@click.command(short_help="Write TREC relevance judgements from labels.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--in", "index", required=True, type=INDEX, metavar="INDEX", help="The index to judge."
)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help='Qrels file (.gz too), "-": stdout.'
)
@click.option("--label-from-folder", is_flag=True, help="Label each image with its folder's name.")
@metadata_option("the labels of queries")
def command(
    source: str, index: str, output: str, label_from_folder: bool, metadata: tuple[Path, ...]
) -> None:
    """For each image of SOURCE, judge the indexed images with its label as relevant."""
    from contextlib import closing

    from cbir.cli.output import data_output, progress_bar, say
    from cbir.evaluation import query_labels
    from cbir.evaluation.queries import require_relevant
    from cbir.images.sources import open_source
    from cbir.index.open import open_index
    from cbir.ingest.metadata import read_metadata_files
    from cbir.measures.by_class import class_qrels
    from cbir.measures.trec import check_target, write_qrels
    from cbir.wording import counted, listed

    target = data_output() if output == "-" else Path(output)
    check_target(target)
    images = open_source(source, label_from_folder)
    with closing(open_index(index)) as opened:
        queries = query_labels(opened, images, read_metadata_files(metadata))
        absent = require_relevant(opened, images, (label for _, label in queries))
        labels, place = opened.labels(), opened.url
    labelled = [(query, label) for query, label in queries if label is not None]
    with progress_bar("judging") as update:
        lines = write_qrels(target, class_qrels(_told(labelled, update), labels))
    say(f"{counted(len(labelled), 'query')}, {counted(lines, 'line')}")
    if len(labelled) < len(queries):
        say(f"left out: {counted(len(queries) - len(labelled), 'query')} without a label")
    if absent:
        said = f"not in {place}: {counted(len(absent), 'label')} of the queries"
        say(f"{said}, so nothing is relevant to them: {listed(absent)}")


def _told(queries: Sequence[_Query], on_done: OnDone) -> Iterator[_Query]:
    """Yield `queries` one by one and report progress."""
    for number, query in enumerate(queries):
        on_done(number, len(queries))
        yield query
