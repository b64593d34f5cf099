"""The tables of `index.sqlite`, their formats, and the meta table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cbir.errors import HOW_TO_UPDATE, IndexStateError
from cbir.types import DescriptorSpec

FORMAT = 2
"""2 added what `_MIGRATION` lists: stamps of files, decoding rules, runs, tombstones, checksums."""

# As format 1 had it, so that a new index and a migrated one have the same columns.
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE sources (name TEXT PRIMARY KEY, uri TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE records (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    location TEXT NOT NULL, label TEXT, content_hash TEXT NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, file_size INTEGER, mtime_ns INTEGER, missing INTEGER NOT NULL);
CREATE TABLE metadata (
    record INTEGER NOT NULL, name TEXT NOT NULL, value NOT NULL, PRIMARY KEY (record, name)
) WITHOUT ROWID;
CREATE TABLE vectors (
    record INTEGER NOT NULL, part INTEGER NOT NULL, x0 REAL NOT NULL, y0 REAL NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (record, part));
CREATE TABLE failures (source TEXT NOT NULL, location TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE removed (
    generation INTEGER NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (generation, key)
) WITHOUT ROWID;
"""
_MIGRATION = """
ALTER TABLE records ADD COLUMN stamp TEXT;
ALTER TABLE records ADD COLUMN decoder INTEGER NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN phash BLOB;
ALTER TABLE records ADD COLUMN checksum BLOB;
ALTER TABLE vectors ADD COLUMN checksum BLOB;
ALTER TABLE sources ADD COLUMN run_at INTEGER;
ALTER TABLE sources ADD COLUMN run_finished INTEGER;
CREATE TABLE tombstones (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, location TEXT NOT NULL, content_hash TEXT NOT NULL,
    file_size INTEGER, mtime_ns INTEGER, stamp TEXT, at INTEGER NOT NULL) WITHOUT ROWID;
"""
THESE = "(SELECT value FROM json_each(?))"
"""The values that `listed` wrote, as a subquery."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The index's metadata: format, random id, spec and model checksums."""

    format: int
    index_id: str
    spec: DescriptorSpec
    model: Mapping[str, str]


def create(connection: sqlite3.Connection, meta: Meta) -> None:
    """Create the tables of an index."""
    _run(connection, _SCHEMA + _MIGRATION)
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [
            ("format", meta.format),
            ("index_id", meta.index_id),
            ("spec", json.dumps(asdict(meta.spec))),
            ("model", json.dumps(dict(meta.model))),
            ("generation", 0),
            ("log_from", 0),
        ],
    )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the records of an index of format 1 to today's format."""
    _run(connection, _MIGRATION)
    connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (FORMAT,))


def read_meta(connection: sqlite3.Connection, name: str) -> Meta | None:
    """The metadata of the index `name`, None if it was never completed.

    Raises `IndexStateError` for a newer format.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return None
    values = dict(connection.execute("SELECT name, value FROM meta"))
    if values["format"] > FORMAT:
        raise IndexStateError(
            f"{name} has format {values['format']}; this version of cbir reads up to {FORMAT}",
            HOW_TO_UPDATE,
        )
    spec = DescriptorSpec(**json.loads(values["spec"]))
    return Meta(values["format"], values["index_id"], spec, json.loads(values["model"]))


def generation(connection: sqlite3.Connection) -> int:
    """A number that grows with every transaction that may change search results."""
    return number(connection, "SELECT value FROM meta WHERE name = 'generation'")


def next_generation(connection: sqlite3.Connection) -> int:
    """Start a new generation and return it."""
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")
    return generation(connection)


def last_key(connection: sqlite3.Connection) -> int:
    """The highest key ever assigned; keys are never reused."""
    query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'records'"
    return number(connection, query)


def log_from(connection: sqlite3.Connection) -> int:
    """The generation after which the log of removed keys is complete."""
    return number(connection, "SELECT value FROM meta WHERE name = 'log_from'")


def is_migrated(connection: sqlite3.Connection) -> bool:
    """Whether the index has today's format; one that only readers opened may be older."""
    return number(connection, "SELECT value FROM meta WHERE name = 'format'") >= FORMAT


def number(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    """The single number that `query` selects."""
    return int(connection.execute(query, values).fetchone()[0])


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """The names of the columns of `table`."""
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def listed(values: Iterable[Any]) -> str:
    """Values for `json_each`, so that one statement takes any number of values."""
    return json.dumps(list(values))


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";\n"):
        connection.execute(statement)
