"""`cbir run`: a TREC run file of every image in a source."""

from __future__ import annotations

from pathlib import Path

import click

from cbir.cli.options import INDEX, descriptor_option, expand_option


@click.command(short_help="Search with every image of a source; write a TREC run.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--in", "index", required=True, type=INDEX, metavar="INDEX", help="The index to search."
)
@click.option("-k", default=100, show_default=True, help="Number of hits per query.")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help='Run file (.gz too), "-": stdout.'
)
@expand_option
@descriptor_option
def command(
    source: str, index: str, k: int, output: str, expand: int, descriptor: str | None
) -> None:
    """Search exactly with every image of SOURCE, and write the rankings in trec_eval's format."""
    from contextlib import closing
    from functools import partial

    from cbir.cli.output import data_output, progress_stages, say
    from cbir.evaluation import describe_queries, rank
    from cbir.images.sources import open_source
    from cbir.measures.trec import check_target, write_run
    from cbir.search.query import SearchOptions
    from cbir.search.searcher import Searcher
    from cbir.wording import counted

    target = data_output() if output == "-" else Path(output)
    check_target(target)
    with (
        closing(Searcher.open(index, descriptor)) as searcher,
        progress_stages() as update,
    ):
        update("describing", 0, None)
        queries = describe_queries(
            searcher, open_source(source), on_done=partial(update, "describing")
        )
        # One batch: searching in parts, to show progress, takes up to 70% longer.
        update("searching", 0, None)
        matches = rank(searcher, queries, k, SearchOptions(expand=expand, exact=True))
        tag = searcher.index.spec.short
    rankings = (
        (query, found.ids, found.scores) for query, found in zip(queries.ids, matches, strict=True)
    )
    lines = write_run(target, rankings, tag)
    say(f"{counted(len(queries.ids), 'query')}, {counted(lines, 'line')}")
    for failure in queries.failures:
        say(f"failed: {failure.location}: {failure.reason}")
