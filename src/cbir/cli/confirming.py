"""Asks whether originals of an index from elsewhere may be opened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cbir.cli.output import say
from cbir.wording import one_line

if TYPE_CHECKING:
    from cbir.index.base import Index

_ASKED = 10
"""The largest number of sources that one question is about."""


def ask_to_confirm(index: Index, ask: bool = True) -> None:
    """Ask whether originals in sources that are not confirmed may be opened, or tell of them.

    A no is remembered, so the question is asked once. Nobody is asked if an answer or the question
    would pass through a pipe.
    """
    from cbir.index.confirmed import confirm, refuse, refused
    from cbir.search.originals import tell_unconfirmed, unconfirmed

    watched = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    sources = unconfirmed(index) if ask and watched else {}
    if sources:
        sources = dict(sources.items() - refused(index).items())
    if 0 < len(sources) <= _ASKED:
        say(f"{one_line(index.url)} may come from elsewhere. It says that its images are in:")
        for name, uri in sorted(sources.items()):
            say(f"  {one_line(uri)} ({one_line(name)})")
        answer = confirm if click.confirm("Open originals there?", err=True) else refuse
        answer(index, sources)
    tell_unconfirmed(index)
