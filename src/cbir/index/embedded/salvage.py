"""Reads what can be read of a damaged SQLite file into a new one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from cbir.errors import CbirError, IndexStateError
from cbir.files import put_in_place
from cbir.foreign_sqlite import harden
from cbir.index.embedded import folder as files
from cbir.index.embedded.checksums import RECORDS, THUMBNAILS
from cbir.index.embedded.index import CHECKS
from cbir.index.embedded.sqlite import primary_code

_TRIES = 100_000
"""Statements a table: every unreadable row takes about one."""
_PARTS = 16
_BY_NUMBER = {
    "records": "key",
    "vectors": "rowid",
    "failures": "rowid",
    "metadata": "record",
    "removed": "generation",
    "thumbs": "key",
}
"""A column of whole numbers by which a table is stored; the others are stored by text."""


def is_sound(path: Path) -> bool:
    """Whether the tables are those of an index, and SQLite finds no contradiction in the file."""
    try:
        with closing(_connect(path)) as connection:
            CHECKS[path.name](connection, "")
            lines = connection.execute("PRAGMA integrity_check(1)").fetchall()
    except (sqlite3.DatabaseError, IndexStateError):
        return False
    return lines == [("ok",)]


def salvage(path: Path, name: str) -> list[str]:
    """Replace a damaged file of the index `name` by one with all rows that can be read.

    The damaged file stays beside it. Returns what was done, one line. Raises `IndexStateError` if
    not even the tables of `index.sqlite` can be read, or are not those of an index; `CbirError`,
    and changes nothing, if the disk is full. The caller has the writer lock.
    """
    draft = path.with_name(path.name + files.SALVAGED)
    files.remove_database(draft)
    tables = RECORDS if path.name == files.RECORDS else THUMBNAILS
    counts = {}
    try:
        with closing(_connect(path)) as old:
            CHECKS[path.name](old, name)  # from here on, reading runs nothing of the file
        with closing(_connect(draft, "rwc")) as new:
            new.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)
            new.execute("ATTACH ? AS old", (f"{path.absolute().as_uri()}?mode=rw",))
            _create_like(new, set(tables))
            counts = {table: _copy(new, table) for table in tables}
            with suppress(sqlite3.DatabaseError):
                given = "(SELECT max(seq) FROM old.sqlite_sequence)"
                new.execute(f"UPDATE sqlite_sequence SET seq = max(seq, {given})")
        if path.name == files.RECORDS and not counts["meta"]:
            raise sqlite3.DatabaseError("its table 'meta' cannot be read")
    except BaseException as error:
        files.remove_database(draft)
        if not isinstance(error, sqlite3.DatabaseError | IndexStateError):
            raise
        if path.name == files.RECORDS:
            if isinstance(error, IndexStateError):
                raise
            raise IndexStateError(
                f"{name}/{path.name} is damaged, and nothing of it can be read: {error}",
                "index the sources again into a new index",
            ) from error
        kept = _move_aside(path)
        return [f"{path.name} could not be read; it is {kept} now, and a new one was begun"]
    kept = _move_aside(path, keep=True)
    put_in_place(draft, path)
    number = counts["records" if path.name == files.RECORDS else "thumbs"]
    what = "records" if path.name == files.RECORDS else "thumbnails"
    return [
        f"{path.name} was damaged: {number} {what} were read into a new file; the old one is {kept}"
    ]


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    harden(connection)
    return connection


def _create_like(new: sqlite3.Connection, tables: set[str]) -> None:
    """Create the tables as the old file has them, of whatever format it is."""
    made = new.execute("SELECT name, sql FROM old.sqlite_master WHERE type = 'table'").fetchall()
    for table, statement in made:
        if table in tables:
            new.execute(statement)
    version = new.execute("PRAGMA old.user_version").fetchone()[0]
    new.execute(f"PRAGMA user_version={int(version)}")


def _copy(new: sqlite3.Connection, table: str) -> int:
    """Copy the readable rows of `table`; returns how many there are."""
    if not new.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
        return 0
    query = f"INSERT OR IGNORE INTO main.{table} SELECT * FROM old.{table}"
    if not _runs(new, query):
        if table in _BY_NUMBER:
            _by_number(new, query, _BY_NUMBER[table], _last(new, table))
        else:
            _from_both_ends(new, query)
    return int(new.execute(f"SELECT count(*) FROM main.{table}").fetchone()[0])


def _last(new: sqlite3.Connection, table: str) -> int:
    """The highest number by which `table` is stored, or more."""
    for query in (
        f"SELECT max({_BY_NUMBER[table]}) FROM old.{table}",
        f"SELECT {_PARTS} * max(seq) FROM old.sqlite_sequence",
        f"SELECT {_PARTS} * max(key) FROM main.{'thumbs' if table == 'thumbs' else 'records'}",
    ):
        with suppress(sqlite3.DatabaseError):
            return int(new.execute(query).fetchone()[0] or 0)
    return _TRIES


def _by_number(new: sqlite3.Connection, query: str, column: str, last: int) -> None:
    """Copy ranges of rows, and halve those that cannot be read."""
    ranges = [(0, last)]
    for _ in range(_TRIES):
        if not ranges:
            return
        first, end = ranges.pop()
        read = _runs(new, f"{query} WHERE {column} BETWEEN ? AND ?", first, end)
        if not read and first < end:
            middle = (first + end) // 2
            ranges += [(middle + 1, end), (first, middle)]


def _from_both_ends(new: sqlite3.Connection, query: str) -> None:
    """Copy rows in ascending, then in descending order, each up to the first unreadable one."""
    table = query.rpartition(".")[2]
    key = RECORDS[table].keys[0]
    for order in ("ASC", "DESC"):

        def reads(count: int, order: str = order) -> bool:
            return _runs(new, f"{query} ORDER BY {key} {order} LIMIT ?", count)

        _most(reads)


def _most(reads: Callable[[int], bool]) -> None:
    """Call `reads` so that the largest number of rows that it can read has been read."""
    good, bad = 0, 1
    while reads(bad) and bad < _TRIES:
        good, bad = bad, 2 * bad
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if reads(middle) else (good, middle)


def _runs(new: sqlite3.Connection, statement: str, *values: int) -> bool:
    try:
        new.execute(statement, values)
    except sqlite3.DatabaseError as error:
        if primary_code(error) == sqlite3.SQLITE_FULL:  # the row may well be readable
            raise CbirError(
                "the disk is full: what can be read of the index cannot be written",
                "free some space and run the same command again; nothing was changed",
            ) from error
        return False
    return True


def _move_aside(path: Path, keep: bool = False) -> str:
    """Give a damaged file, and its log, another name; with `keep` it also stays where it is."""
    number = 1
    # A link that leads nowhere is there, too: a copy would be written to its target.
    while os.path.lexists(aside := path.with_name(f"{path.name}{files.DAMAGED}-{number}")):
        number += 1
    if keep:
        try:
            os.link(path, aside)
        except OSError:  # such as exFAT, which has no links
            shutil.copyfile(path, aside)
    else:
        path.rename(aside)
    # A log of the old file would be taken for one of the new file.
    for side in ("-wal", "-shm"):
        log = path.with_name(path.name + side)
        if log.exists():
            log.rename(aside.with_name(aside.name + side))
    return aside.name
