"""Bits to flip in the cells of an index: damage as failing memory or a failing disk does it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cbir.index.embedded.checksums import RECORDS, THUMBNAILS, Cell, any_text, as_bytes, flipped

FILES = {"index.sqlite": RECORDS, "thumbs.sqlite": THUMBNAILS}


@dataclass(frozen=True)
class Flip:
    """One bit of a cell: the `bit`-th of the value in `column` of the row number `row`."""

    file: str
    table: str
    row: int
    column: str
    bit: int


def flips(folder: Path, table: str, dice: random.Random) -> Iterator[Flip]:
    """Random bits of random cells of `table` in the index `folder`, without end."""
    (file,) = (name for name, tables in FILES.items() if table in tables)
    columns = (*FILES[file][table].columns, "checksum")
    with closing(sqlite3.connect(folder / file)) as connection, any_text(connection):
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
    while True:
        row, column = dice.randrange(len(rows)), dice.randrange(len(columns))
        if size := 8 * len(as_bytes(rows[row][column])):
            yield Flip(file, table, row, columns[column], dice.randrange(size))


def apply(folder: Path, flip: Flip) -> bool:
    """Flip the bit; False if SQLite refuses the new value (a NULL, or a key that is in use)."""
    kind = FILES[flip.file][flip.table]
    keys = ", ".join(kind.keys)
    with closing(sqlite3.connect(folder / flip.file)) as connection, any_text(connection):
        found = connection.execute(
            f"SELECT {', '.join(kind.keys)}, {flip.column} FROM {flip.table} LIMIT 1 OFFSET ?",
            (flip.row,),
        ).fetchone()
        value = flipped(found[-1], flip.bit)
        given = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
        try:
            with connection:
                connection.execute(
                    f"UPDATE {flip.table} SET {flip.column} = {given} WHERE ({keys}) = "
                    f"({', '.join('?' * len(kind.keys))})",
                    (_bound(value), *found[:-1]),
                )
        except sqlite3.IntegrityError:
            return False
        return True


def _bound(value: Cell) -> Cell:
    """Text as bytes, since it may be no UTF-8."""
    return as_bytes(value) if isinstance(value, str) else value
