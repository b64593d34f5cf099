"""The sources of an index: where they are, their last runs, failures and tombstones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from cbir.index.base import SourceRun, Tombstone
from cbir.index.embedded.checksums import RECORDS, resealing, row_checksum, seal
from cbir.index.embedded.schema import format_of, note_sources, typed
from cbir.types import Failure

_TOMBSTONE = ", ".join(RECORDS["tombstones"].columns)


def sources(connection: sqlite3.Connection) -> dict[str, str]:
    """Registered source names and their URIs."""
    rows = connection.execute("SELECT name, uri FROM sources ORDER BY name")
    return dict(typed(("name", "uri"), rows))


def set_source(connection: sqlite3.Connection, name: str, uri: str) -> None:
    """Register the source `name` at `uri`, or move it there."""
    connection.execute(
        "INSERT INTO sources (name, uri) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET uri = excluded.uri",
        (name, uri),
    )
    seal(connection, "sources", "name = ?", name)
    note_sources(connection)


def rename_sources(connection: sqlite3.Connection, renamed: Mapping[str, str]) -> None:
    """Rename sources, old name -> new name; drop those whose new name is registered.

    Their tombstones are dropped, and so are the failures of dropped sources.
    """
    for old, new in renamed.items():
        if new in sources(connection):
            forget_source(connection, old)
        else:
            connection.execute("UPDATE sources SET name = ? WHERE name = ?", (new, old))
            seal(connection, "sources", "name = ?", new)
            connection.execute("UPDATE failures SET source = ? WHERE source = ?", (new, old))
            seal(connection, "failures", "source = ?", new)
            connection.execute("DELETE FROM tombstones WHERE source = ?", (old,))


def forget_source(connection: sqlite3.Connection, name: str) -> None:
    """Drop a source with its failures and tombstones."""
    connection.execute("DELETE FROM sources WHERE name = ?", (name,))
    for table in ("failures", "tombstones"):
        connection.execute(f"DELETE FROM {table} WHERE source = ?", (name,))


def source_counts(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Source name -> the numbers of its records, and of those marked as missing."""
    query = "SELECT source, count(*), sum(missing) FROM records GROUP BY source"
    return {name: (count, missing) for name, count, missing in connection.execute(query)}


def runs(connection: sqlite3.Connection) -> dict[str, SourceRun]:
    """Source name -> its last run."""
    if format_of(connection) < 2:
        return {}
    query = "SELECT name, run_at, run_finished FROM sources WHERE run_at IS NOT NULL ORDER BY name"
    rows = typed(("name", "run_at", "run_finished"), connection.execute(query))
    return {name: SourceRun(at, bool(done)) for name, at, done in rows}


def set_run(connection: sqlite3.Connection, source: str, run: SourceRun) -> None:
    """Store the last run of `source`."""
    with resealing(connection, "sources", "name = ?", source):
        connection.execute(
            "UPDATE sources SET run_at = ?, run_finished = ? WHERE name = ?",
            (run.at, int(run.finished), source),
        )


def tombstones(
    connection: sqlite3.Connection, ids: Iterable[str] | None = None
) -> dict[str, Tombstone]:
    """Id -> tombstone, in id order: all, or those of `ids`."""
    if format_of(connection) < 2:
        return {}
    query = f"SELECT {_TOMBSTONE} FROM tombstones"
    if ids is None:
        rows: Iterable[tuple[Any, ...]] = connection.execute(f"{query} ORDER BY id")
    else:
        one = f"{query} WHERE id = ?"
        rows = (row for name in sorted(set(ids)) for row in connection.execute(one, (name,)))
    return {row[0]: Tombstone(*row) for row in typed(RECORDS["tombstones"].columns, rows)}


def insert_tombstones(connection: sqlite3.Connection, tombstones: Iterable[Tombstone]) -> None:
    """Add tombstones, or replace them by id."""
    connection.executemany(
        f"INSERT OR REPLACE INTO tombstones ({_TOMBSTONE}, checksum) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*row, row_checksum(row)) for row in map(astuple, tombstones)],
    )


def delete_tombstones(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Delete the tombstones of these ids."""
    connection.executemany("DELETE FROM tombstones WHERE id = ?", ((i,) for i in ids))


def set_failures(connection: sqlite3.Connection, source: str, failures: Sequence[Failure]) -> None:
    """Replace the failures of `source`."""
    connection.execute("DELETE FROM failures WHERE source = ?", (source,))
    rows = [(source, failure.location, failure.reason) for failure in failures]
    connection.executemany(
        "INSERT INTO failures (source, location, reason, checksum) VALUES (?, ?, ?, ?)",
        [(*row, row_checksum(row)) for row in rows],
    )
