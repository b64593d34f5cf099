"""A checksum for every row, so that a single flipped bit is found, and mostly undone.

The column `checksum` of each table covers all other columns of its row. It is written with the row.
A change of a damaged row keeps the wrong checksum, so that no damage is ever sealed.
"""

from __future__ import annotations

import marshal
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from types import NoneType
from typing import Any, NamedTuple, TypeAlias

Cell: TypeAlias = str | int | float | bytes | None

SIZE = 8
_ROWS_AT_ONCE = 4096
_SEARCHED_BYTES = 32 * 1024
"""The largest row in which a flipped bit is searched: this takes a few seconds."""


class Row(NamedTuple):
    """A row as it is stored: its keys, the cells that the checksum covers, the checksum."""

    keys: tuple[Cell, ...]
    cells: tuple[Cell, ...]
    checksum: Cell


@dataclass(frozen=True)
class Sealed:
    """A table with checksums: its key columns, and all columns that the checksum covers."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]


RECORDS: Mapping[str, Sealed] = {
    "meta": Sealed(("name",), ("name", "value")),
    "sources": Sealed(("name",), ("name", "uri", "run_at", "run_finished")),
    "records": Sealed(
        ("key",),
        (
            *("key", "id", "source", "location", "label", "content_hash", "width", "height"),
            *("file_size", "mtime_ns", "stamp", "decoder", "phash", "label_given", "missing"),
        ),
    ),
    "metadata": Sealed(("record", "name"), ("record", "name", "value", "given")),
    "vectors": Sealed(("record", "part"), ("record", "part", "x0", "y0", "x1", "y1", "vector")),
    "failures": Sealed(("rowid",), ("source", "location", "reason")),
    "tombstones": Sealed(
        ("id",),
        (
            *("id", "source", "location", "content_hash"),
            *("file_size", "mtime_ns", "stamp", "at"),
        ),
    ),
    "removed": Sealed(("generation", "key"), ("generation", "key")),
}
"""The tables of `index.sqlite`."""
THUMBNAILS: Mapping[str, Sealed] = {"thumbs": Sealed(("key",), ("key", "picture"))}
"""The tables of `thumbs.sqlite`."""
_ALL = {**RECORDS, **THUMBNAILS}
_NUMBERS = (
    *("key", "record", "part", "width", "height", "missing", "decoder", "generation", "at"),
    *("given", "label_given"),
)
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "source", "location", "content_hash", "name", "uri", "reason"), (str,)),
    **dict.fromkeys(("label", "stamp"), (str, NoneType)),
    **dict.fromkeys(_NUMBERS, (int,)),
    **dict.fromkeys(("file_size", "mtime_ns", "run_at", "run_finished"), (int, NoneType)),
    **dict.fromkeys(("x0", "y0", "x1", "y1"), (float,)),
    **dict.fromkeys(("vector", "picture"), (bytes,)),
    "phash": (bytes, NoneType),
    "value": (str, int, float),
}
"""What the columns of any table may hold."""
_LACKING = {"decoder": "0", "given": "1", "label_given": "0"}
"""What older indexes have in the place of columns that they lack, unless NULL."""


def row_checksum(cells: Sequence[Cell]) -> bytes:
    """The checksum, 8 bytes, of a row as SQLite gives it back: blake2b over its cells.

    They are joined by version 2 of `marshal`, which is fixed and takes a quarter of the time of
    JSON. Nothing is ever loaded from it.
    """
    try:
        joined = marshal.dumps(tuple(cells), 2)
    except ValueError:  # a subclass, such as NumPy's float
        joined = marshal.dumps(tuple(map(stored, cells)), 2)
    return blake2b(joined, digest_size=SIZE).digest()


def stored(cell: Cell) -> Cell:
    """`cell` as SQLite gives it back: without -0.0, True and subclasses of Python's types."""
    if type(cell) in (str, int):
        return cell
    if isinstance(cell, float):
        return float(cell) + 0.0
    return next((kind(cell) for kind in (str, int) if isinstance(cell, kind)), cell)


@contextmanager
def any_text(connection: sqlite3.Connection) -> Iterator[None]:
    """Read text that is not UTF-8, too: as surrogates, so that it differs from all valid text."""
    before = connection.text_factory
    connection.text_factory = _lenient
    try:
        yield
    finally:
        connection.text_factory = before


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def has_right_types(columns: Sequence[str], cells: Sequence[Cell]) -> bool:
    """Whether each cell is what its column holds; text that is no UTF-8 is not."""
    return all(
        isinstance(cell, _KINDS[column])
        and (not isinstance(cell, str) or cell.isascii() or _is_utf8(cell))
        for column, cell in zip(columns, cells, strict=True)
    )


def damaged_rows(connection: sqlite3.Connection, table: str) -> list[Row]:
    """The rows whose checksum is wrong or missing, or that hold cells of the wrong type.

    An older index has no checksums; its cells are checked.
    """
    sealed = is_sealed(connection, table)
    columns = _ALL[table].columns
    return [
        row
        for row in _rows(connection, table, sealed)
        if (sealed and row_checksum(row.cells) != row.checksum)
        or not has_right_types(columns, row.cells)
    ]


def damaged_among(
    connection: sqlite3.Connection, table: str, condition: str, *values: Any
) -> list[Row]:
    """The rows that meet `condition` and are damaged, in an index with checksums."""
    sealed = is_sealed(connection, table)
    rows = list(_rows(connection, table, sealed, condition, *values)) if sealed else []
    return [row for row in rows if row_checksum(row.cells) != row.checksum]


def is_sealed(connection: sqlite3.Connection, table: str) -> bool:
    """Whether `table` has checksums, as all have since format 3."""
    sealed_last = table if table in THUMBNAILS else "removed"
    columns = connection.execute(f"PRAGMA table_info({sealed_last})").fetchall()
    if not any(column[1] == "checksum" for column in columns):
        return False
    # Format 2 had the column of thumbnails, but nothing in it. The version in the file's header has
    # no checksum, so it must not be what tells.
    return (
        table not in THUMBNAILS
        or not connection.execute(
            "SELECT 1 FROM (SELECT checksum FROM thumbs LIMIT 1) WHERE checksum IS NULL"
        ).fetchone()
    )


def seal_all(connection: sqlite3.Connection, tables: Mapping[str, Sealed]) -> None:
    """Write the checksums of all rows of an older index; rows with damaged cells get none."""
    for table, kind in tables.items():
        rows = _rows(connection, table, sealed=False)
        _write(connection, table, (r for r in rows if has_right_types(kind.columns, r.cells)))


def seal(connection: sqlite3.Connection, table: str, condition: str, *values: Any) -> None:
    """Write the checksums of the rows that meet `condition`, whatever they were before."""
    _write(connection, table, _rows(connection, table, True, condition, *values))


@contextmanager
def resealing(
    connection: sqlite3.Connection, table: str, condition: str, *values: Any
) -> Iterator[None]:
    """Write the checksums of the rows that meet `condition` after the block has changed them.

    Not of rows that were damaged before, nor in an older index. The block changes neither keys nor
    the condition.
    """
    if not is_sealed(connection, table):
        yield
        return
    before = _rows(connection, table, True, condition, *values)
    damaged = {row.keys for row in before if row_checksum(row.cells) != row.checksum}
    yield
    after = _rows(connection, table, True, condition, *values)
    _write(connection, table, (row for row in after if row.keys not in damaged))


def mended(row: Sequence[Cell], checksum: Cell) -> tuple[Cell, ...] | None:
    """The row as it was before one bit of it, or of its checksum, flipped; None for other damage.

    Of the 2**64 checksums so few fit a flip that a wrong answer is out of the question.
    """
    if not isinstance(checksum, bytes) or len(checksum) != SIZE:
        return None
    now = int.from_bytes(row_checksum(row)) ^ int.from_bytes(checksum)
    if now.bit_count() == 1:
        return tuple(row)
    if sum(len(cell) for cell in row if isinstance(cell, str | bytes)) > _SEARCHED_BYTES:
        return None
    for place, cell in enumerate(row):
        for other in flips(cell):
            candidate = (*row[:place], other, *row[place + 1 :])
            if row_checksum(candidate) == checksum:
                return candidate
    return None


def flips(cell: Cell) -> Iterator[Cell]:
    """`cell` with each of its bits flipped, one at a time; NULL has none."""
    for bit in range(8 * len(as_bytes(cell))):
        yield flipped(cell, bit)


def flipped(cell: Cell, bit: int) -> Cell:
    """`cell` with one bit flipped; text that is no UTF-8 afterwards comes with surrogates."""
    raw = bytearray(as_bytes(cell))
    raw[bit // 8] ^= 1 << bit % 8
    if isinstance(cell, str):
        return _lenient(bytes(raw))
    if isinstance(cell, int):
        return int(struct.unpack("<q", raw)[0])
    return float(struct.unpack("<d", raw)[0]) if isinstance(cell, float) else bytes(raw)


def as_bytes(cell: Cell) -> bytes:
    """The bytes of a cell: UTF-8, 64-bit integers, doubles or the BLOB itself."""
    if isinstance(cell, str):
        return cell.encode("utf-8", "surrogateescape")
    if isinstance(cell, int):
        return struct.pack("<q", cell)
    return struct.pack("<d", cell) if isinstance(cell, float) else cell or b""


def restore(
    connection: sqlite3.Connection, table: str, keys: Sequence[Cell], row: Sequence[Cell]
) -> None:
    """Replace the row that is now under `keys` with `row`, sealed."""
    delete(connection, table, keys)
    columns = _ALL[table].columns
    connection.execute(
        f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}, checksum) "
        f"VALUES ({', '.join('?' * (1 + len(columns)))})",
        (*row, row_checksum(row)),
    )


def delete(connection: sqlite3.Connection, table: str, keys: Sequence[Cell]) -> None:
    """Delete the row under `keys`, whose text may be no UTF-8."""
    connection.execute(f"DELETE FROM {table} WHERE {_where(table)}", [None, *map(_bound, keys)])


def _write(connection: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
    connection.executemany(
        f"UPDATE {table} SET checksum = ? WHERE {_where(table)}",
        [(row_checksum(row.cells), *map(_bound, row.keys)) for row in rows],
    )


def _rows(
    connection: sqlite3.Connection, table: str, sealed: bool, condition: str = "1", *values: Any
) -> Iterator[Row]:
    kind = _ALL[table]
    existing = {column[1] for column in connection.execute(f"PRAGMA table_info({table})")}
    if not existing:
        return  # the index has an older format
    columns = [c if c in existing else _LACKING.get(c, "NULL") for c in kind.columns]
    names = ", ".join((*kind.keys, *columns, "checksum" if sealed else "NULL"))
    cursor = connection.cursor()
    with any_text(connection):
        cursor.execute(f"SELECT {names} FROM {table} WHERE {condition}", values)
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            ends = len(kind.keys)
            yield from (Row(row[:ends], row[ends:-1], row[-1]) for row in rows)


def _where(table: str) -> str:
    # Text is bound as a BLOB, because only so it need not be valid.
    return " AND ".join(
        f"{key} = iif(typeof(?{n}) = 'blob', CAST(?{n} AS TEXT), ?{n})"
        for n, key in enumerate(_ALL[table].keys, 2)
    )


def _bound(key: Cell) -> Cell:
    return key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "ignore").decode() == text
