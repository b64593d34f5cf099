"""`cbir serve`: serves the search page and the HTTP API."""

from __future__ import annotations

from typing import Any

import click

from cbir.cli.options import access_of, descriptor_option, serving_options


@click.command()
@click.argument("index", metavar="INDEX")
@serving_options
@descriptor_option
def command(index: str, host: str, port: int, descriptor: str | None, **who: Any) -> None:
    """Serve the search page of an index until Ctrl-C.

    With --host, other machines reach it, too. The printed link then holds a token that opens the
    page; programs send it in the header "Authorization: Bearer TOKEN".
    """
    from contextlib import closing

    from cbir.cli.confirming import ask_to_confirm
    from cbir.cli.output import say
    from cbir.search.searcher import Searcher
    from cbir.web.serve import serve
    from cbir.wording import counted

    access = access_of(host, **who)
    with closing(Searcher.open(index, descriptor)) as searcher:
        ask_to_confirm(searcher.index)
        count = counted(searcher.index.count(), "image")
        serve(
            searcher,
            host,
            port,
            ready=lambda url: say(f"{index}: {count} at {url}  (Ctrl-C stops)"),
            access=access,
        )
