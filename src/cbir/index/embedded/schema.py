"""The tables of `index.sqlite`, their formats, and the meta table."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeAlias

from cbir.errors import HOW_TO_UPDATE, IndexStateError
from cbir.index.embedded.checksums import (
    Cell,
    Row,
    any_text,
    damaged_rows,
    has_right_types,
    mended,
    resealing,
    row_checksum,
)
from cbir.index.embedded.folder import RECORDS
from cbir.types import EXIF_FIELDS, DescriptorSpec
from cbir.wording import shell_word

FORMAT = 3
"""2 added what `_MIGRATION_2` lists: stamps of files, decoding rules, runs, tombstones; 3 checksums
of all rows, and which fields were given by people."""
SEALED_SINCE = 3
# As format 1 had it, so that a new index and a migrated one have the same columns.
_META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value"
_SCHEMA = f"""
{_META}) WITHOUT ROWID;
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
_MIGRATION_2 = """
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
EXIF_NAMES = ", ".join(f"'{name}'" for name in EXIF_FIELDS)
_MIGRATION_3 = f"""
ALTER TABLE meta ADD COLUMN checksum BLOB;
ALTER TABLE sources ADD COLUMN checksum BLOB;
ALTER TABLE metadata ADD COLUMN checksum BLOB;
ALTER TABLE failures ADD COLUMN checksum BLOB;
ALTER TABLE tombstones ADD COLUMN checksum BLOB;
ALTER TABLE removed ADD COLUMN checksum BLOB;
ALTER TABLE records ADD COLUMN label_given INTEGER NOT NULL DEFAULT 0;
ALTER TABLE metadata ADD COLUMN given INTEGER NOT NULL DEFAULT 1;
UPDATE metadata SET given = 0 WHERE name IN ({EXIF_NAMES});
"""
_STATEMENTS = (_SCHEMA, _MIGRATION_2, _MIGRATION_3)
"""What makes the tables of format 1, and of each later format from the one before it."""
_FORMAT = "SELECT value FROM meta WHERE name = 'format'"
Thing: TypeAlias = tuple[str, ...]
"""Type, name, table and SQL of one thing in a schema."""
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
    run(connection, "".join(_STATEMENTS))
    rows: list[tuple[Cell, ...]] = [
        ("format", meta.format),
        ("index_id", meta.index_id),
        ("spec", json.dumps(asdict(meta.spec))),
        ("model", json.dumps(dict(meta.model))),
        ("generation", 0),
        ("log_from", 0),
    ]
    connection.executemany(
        "INSERT INTO meta (name, value, checksum) VALUES (?, ?, ?)",
        [(*row, row_checksum(row)) for row in rows],
    )


def note_sources(connection: sqlite3.Connection) -> None:
    """Note that sources are registered, so that records of an unknown one are damage."""
    row = ("registered", 1)
    connection.execute(
        "INSERT OR IGNORE INTO meta (name, value, checksum) VALUES (?, ?, ?)",
        (*row, row_checksum(row)),
    )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables of an older index to today's format; their rows are sealed afterwards."""
    if format_of(connection) < 2:
        run(connection, _MIGRATION_2)
    run(connection, _MIGRATION_3)
    note_sources(connection)
    connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (FORMAT,))


def read_meta(connection: sqlite3.Connection, name: str) -> Meta | None:
    """The metadata of the index `name`, None if it was never completed.

    Raises `IndexStateError` for a newer format, and if the metadata are damaged.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return None
    with any_text(connection):
        values = dict(connection.execute("SELECT name, value FROM meta"))
    found = values.get("format")
    changed = damaged_rows(connection, "meta")
    if isinstance(found, int) and found > FORMAT and not any(map(_is_flipped_format, changed)):
        raise _newer(name, found)
    if changed:
        names = ", ".join(f"{row.keys[0]!r}" for row in changed)
        raise damaged(f"{names} in its table 'meta' has changed", name)
    try:
        spec = DescriptorSpec(**json.loads(values["spec"]))
        meta = Meta(values["format"], values["index_id"], spec, json.loads(values["model"]))
        numbers = [meta.format, values["generation"], values["log_from"], spec.dim]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a number is none")
        if not isinstance(meta.model, dict) or not isinstance(spec.preprocessing, dict):
            raise ValueError("names are missing")
        texts = [meta.index_id, spec.name, spec.fingerprint, spec.trained_on, spec.licence]
        if not all(type(text) is str for text in [*texts, *meta.model.values()]):
            raise ValueError("a text is none")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(f"its table 'meta' cannot be read: {error!r}", name) from error
    return meta


def damaged(what: str, name: str = "") -> IndexStateError:
    """The error of a reader that comes upon damage of the index `name`, which it may not know."""
    return IndexStateError(
        f"{name or 'the index'} is damaged: {what}",
        f"cbir verify {shell_word(name) if name else 'INDEX'} --repair, or index the sources again",
    )


def _newer(name: str, found: int) -> IndexStateError:
    return IndexStateError(
        f"{name} has format {found}; this version of cbir reads up to {FORMAT}", HOW_TO_UPDATE
    )


def _is_flipped_format(row: Row) -> bool:
    """Whether the row holds our format but for a flipped bit, and no newer one."""
    good = mended(row.cells, row.checksum) if row.keys == ("format",) else None
    return good is not None and isinstance(good[1], int) and good[1] <= FORMAT


def typed(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows; raises `IndexStateError` if a cell is not what its column holds."""
    found = list(rows)
    if not all(has_right_types(columns, row) for row in found):
        raise damaged("a cell of it does not hold what its column is for")
    return found


def generation(connection: sqlite3.Connection) -> int:
    """A number that grows with every transaction that may change search results."""
    return number(connection, "SELECT value FROM meta WHERE name = 'generation'")


def next_generation(connection: sqlite3.Connection) -> int:
    """Start a new generation and return it."""
    with resealing(connection, "meta", "name = 'generation'"):
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")
    return generation(connection)


def last_key(connection: sqlite3.Connection) -> int:
    """The highest key ever assigned; keys are never reused."""
    query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'records'"
    return number(connection, query)


def log_from(connection: sqlite3.Connection) -> int:
    """The generation after which the log of removed keys is complete."""
    return number(connection, "SELECT value FROM meta WHERE name = 'log_from'")


def format_of(connection: sqlite3.Connection) -> int:
    """The format of the index; one that only readers opened may be older than today's."""
    return number(connection, _FORMAT)


def number(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    """The single number that `query` selects; raises `IndexStateError` if it is none."""
    row = connection.execute(query, values).fetchone()
    if row is None or type(row[0]) is not int:
        raise damaged("a number in it is missing or has changed")
    return int(row[0])


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """The names of the columns of `table`."""
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def listed(values: Iterable[Any]) -> str:
    """Values for `json_each`, so that one statement takes any number of values."""
    return json.dumps(list(values))


def check_tables(connection: sqlite3.Connection, name: str) -> None:
    """Raise `IndexStateError` unless the schema is exactly that of a format.

    A file without tables passes: it is an index that was never completed.
    """
    connection.execute("BEGIN")
    found = tables(connection)
    if found not in (made_by("".join(_STATEMENTS[:count])) for count in range(FORMAT + 1)):
        row = connection.execute(_FORMAT).fetchone() if any(map(_is_meta, found)) else None
        if row and isinstance(row[0], int) and row[0] > FORMAT:
            raise _newer(name, row[0])
        raise foreign(name, RECORDS)
    connection.rollback()


def _is_meta(thing: Thing) -> bool:
    """Whether this is the table that says the format, also in formats that add columns to it."""
    return thing[:3] == ("table", "meta", "meta") and thing[3].startswith(
        (f"{_META})", f"{_META},")
    )


def tables(connection: sqlite3.Connection) -> list[Thing]:
    """The schema of a file, sorted; equal statements are equal, whatever their white space."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return sorted((*map(str, row[:3]), re.sub(r"[ \n]+", " ", str(row[3]))) for row in rows)


@cache
def made_by(statements: str) -> list[Thing]:
    """The schema that these statements make."""
    with closing(sqlite3.connect(":memory:")) as connection:
        run(connection, statements)
        return tables(connection)


def foreign(name: str, file: str) -> IndexStateError:
    """The error for a file whose schema is not cbir's."""
    return IndexStateError(
        f"{name}/{file} is not an index of cbir: its tables were changed by another program",
        "index the sources again into a new index"
        if file == RECORDS
        else f"cbir verify {shell_word(name)} --repair",
    )


def run(connection: sqlite3.Connection, statements: str) -> None:
    """Execute statements, each of which ends a line."""
    for statement in statements.split(";\n"):
        connection.execute(statement)
