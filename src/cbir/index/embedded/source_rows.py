"""The sources of an index: where they are, their last runs, failures and tombstones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple

from cbir.index.base import SourceRun, Tombstone
from cbir.index.embedded.schema import is_migrated
from cbir.types import Failure


def sources(connection: sqlite3.Connection) -> dict[str, str]:
    """Registered source names and their URIs."""
    return dict(connection.execute("SELECT name, uri FROM sources ORDER BY name"))


def set_source(connection: sqlite3.Connection, name: str, uri: str) -> None:
    """Register the source `name` at `uri`, or move it there."""
    connection.execute(
        "INSERT INTO sources (name, uri) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET uri = excluded.uri",
        (name, uri),
    )


def rename_sources(connection: sqlite3.Connection, renamed: Mapping[str, str]) -> None:
    """Rename sources, old name -> new name; drop those whose new name is registered.

    Their tombstones are dropped, and so are the failures of dropped sources.
    """
    for old, new in renamed.items():
        if new in sources(connection):
            forget_source(connection, old)
        else:
            connection.execute("UPDATE sources SET name = ? WHERE name = ?", (new, old))
            connection.execute("UPDATE failures SET source = ? WHERE source = ?", (new, old))
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
    if not is_migrated(connection):
        return {}
    query = "SELECT name, run_at, run_finished FROM sources WHERE run_at IS NOT NULL ORDER BY name"
    return {name: SourceRun(at, bool(done)) for name, at, done in connection.execute(query)}


def set_run(connection: sqlite3.Connection, source: str, run: SourceRun) -> None:
    """Store the last run of `source`."""
    connection.execute(
        "UPDATE sources SET run_at = ?, run_finished = ? WHERE name = ?",
        (run.at, int(run.finished), source),
    )


def tombstones(connection: sqlite3.Connection) -> dict[str, Tombstone]:
    """Id -> tombstone."""
    if not is_migrated(connection):
        return {}
    rows = connection.execute("SELECT * FROM tombstones ORDER BY id")
    return {row[0]: Tombstone(*row) for row in rows}


def insert_tombstones(connection: sqlite3.Connection, tombstones: Iterable[Tombstone]) -> None:
    """Add tombstones, or replace them by id."""
    connection.executemany(
        "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        map(astuple, tombstones),
    )


def delete_tombstones(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Delete the tombstones of these ids."""
    connection.executemany("DELETE FROM tombstones WHERE id = ?", ((i,) for i in ids))


def set_failures(connection: sqlite3.Connection, source: str, failures: Sequence[Failure]) -> None:
    """Replace the failures of `source`."""
    connection.execute("DELETE FROM failures WHERE source = ?", (source,))
    connection.executemany(
        "INSERT INTO failures VALUES (?, ?, ?)",
        [(source, failure.location, failure.reason) for failure in failures],
    )
