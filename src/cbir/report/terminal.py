"""Prints text and tables of a report in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TextIO

from cbir.report.content import Table, Text
from cbir.wording import escaped, one_line, plain_stream

if TYPE_CHECKING:
    from rich.console import Console

FOLDED_ROWS = 20
"""How many rows of a folded table are shown."""

_UNLIMITED = 100_000


def show(
    blocks: Iterable[Text | Table], out: TextIO | None = None, err: TextIO | None = None
) -> None:
    """Print `blocks` on standard output, notes on standard error.

    Tables fit the width of a terminal. In a file or a pipe, every row is one line.
    """
    console, for_notes = _console(out or sys.stdout), _console(err or sys.stderr)
    before: Text | Table | None = None
    for block in blocks:
        if isinstance(block, Text) and block.note:
            for_notes.print(escaped(block.text), soft_wrap=True)
            continue
        if before is not None and Table in (type(before), type(block)):
            console.print()
        if isinstance(block, Table):
            _print_table(console, block)
        else:
            console.print(escaped(block.text), soft_wrap=True)
        before = block


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    width = None if stream.isatty() else _UNLIMITED
    # What rich draws with control characters passes; the text in it is escaped here.
    file = plain_stream(stream)
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def _print_table(console: Console, table: Table) -> None:
    from rich.table import Table as RichTable

    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(table.header):
        justify: Literal["left", "right"] = "right" if number and table.numbers else "left"
        drawn.add_column(one_line(name), justify=justify, overflow="fold")
    rows = table.rows[:FOLDED_ROWS] if table.folded else table.rows
    for row in rows:
        drawn.add_row(*map(one_line, row))
    console.print(one_line(table.title), soft_wrap=True)
    console.print(drawn)
    if len(rows) < len(table.rows):
        console.print(f"{len(rows)} of {len(table.rows)} rows; --json has all", soft_wrap=True)
