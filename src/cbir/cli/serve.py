"""`cbir serve`: serves the search page and the HTTP API."""

from __future__ import annotations

import click

from cbir.cli.options import descriptor_option


@click.command()
@click.argument("index", metavar="INDEX")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=5000, show_default=True, help="Port to listen on; 0 takes a free one."
)
@descriptor_option
def command(index: str, host: str, port: int, descriptor: str | None) -> None:
    """Serve the search page of an index until Ctrl-C."""
    from contextlib import closing

    from cbir.cli.confirming import ask_to_confirm
    from cbir.cli.output import say
    from cbir.search.searcher import Searcher
    from cbir.web.serve import serve
    from cbir.wording import counted

    with closing(Searcher.open(index, descriptor)) as searcher:
        ask_to_confirm(searcher.index)
        count = counted(searcher.index.count(), "image")
        serve(
            searcher,
            host,
            port,
            ready=lambda url: say(f"{index}: {count} at {url}  (Ctrl-C stops)"),
        )
