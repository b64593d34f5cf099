"""`cbir evaluate --recall`: how much of the true answer an index finds."""

from __future__ import annotations

from typing import Any

import click

from cbir.cli.output import progress_stages
from cbir.wording import counted


def recall(
    index: str,
    queries: str,
    k: int,
    sample: int | None,
    label_from_folder: bool,
    descriptor: str | None,
) -> dict[str, Any]:
    """Recall at `k` of the search in `index` for the images of `queries`, as `--json` prints it."""
    from contextlib import closing

    from cbir.evaluation.recall import measure_recall
    from cbir.images.sources import open_source
    from cbir.search.searcher import Searcher

    source = open_source(queries, label_from_folder)
    with (
        closing(Searcher.open(index, descriptor)) as searcher,
        progress_stages() as update,
    ):
        return measure_recall(searcher, source, k, sample=sample, on_stage=update).to_json()


def print_recall(figures: dict[str, Any]) -> None:
    """The figures of `recall` in words on standard output."""
    asked = counted(figures["n_queries"], "query")
    click.echo(
        f"recall@{figures['k']} {figures['recall']:.4f} against exact search: {asked} that are not "
        f"indexed, {figures['n_indexed']:,} indexed"
    )
    click.echo(
        f"all {figures['k']} found for {figures['complete']:.1%} of the queries; "
        f"worst query {figures['worst']:.2f}"
    )
    exactly = "" if figures["exact_ms"] is None else f", exactly {figures['exact_ms']:.2f} ms"
    click.echo(
        f"one query alone takes {figures['own_ms']:.2f} ms{exactly} (median, n={figures['timed']})"
    )
    if figures["exact"]:
        click.echo("search in this index is exact")
    if figures["left_out"]:
        click.echo(f"left out because they are indexed themselves: {figures['left_out']:,}")
