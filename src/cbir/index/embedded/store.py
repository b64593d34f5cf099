"""The tables of `index.sqlite` and `thumbs.sqlite`, and the statements that use them.

Functions take a connection inside a transaction that the caller opened. A record whose vectors
change is deleted and inserted with a new key. So a reader that has seen all keys up to some number
finds newer records above it, and deleted ones in the log `removed`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.errors import IndexStateError, RecordGoneError
from cbir.index.base import Details, Entry, FileStates, Stamp
from cbir.index.filters import FIELDS, TEXT_FIELDS, Condition
from cbir.types import Box, DescriptorSpec, Failure, ImageRecord, MetadataValue, Vectors

FORMAT = 1

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
_THUMBNAILS = "CREATE TABLE IF NOT EXISTS thumbs (key INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
_FIELDS = (
    *("id", "source", "location", "label", "content_hash"),
    *("width", "height", "file_size", "mtime_ns", "missing"),
)
"""The columns of `records` after the key, named as attributes of `ImageRecord`."""
_SELECT = f"SELECT key, {', '.join(_FIELDS)} FROM records"
_THESE = "(SELECT value FROM json_each(?))"

_row = attrgetter(*_FIELDS[:-1])

_Clause: TypeAlias = tuple[str, list[MetadataValue]]


@dataclass(frozen=True, slots=True)
class Meta:
    """The index's metadata: format, random id, spec and model checksums."""

    format: int
    index_id: str
    spec: DescriptorSpec
    model: Mapping[str, str]


def create(connection: sqlite3.Connection, meta: Meta) -> None:
    """Create the tables of an index."""
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)
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
            "upgrade cbir: pip install --upgrade cbir",
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


def rows_after(connection: sqlite3.Connection, key: int) -> int:
    """The number of vectors of records with a key above `key`."""
    return number(connection, "SELECT count(*) FROM vectors WHERE record > ?", key)


def log_from(connection: sqlite3.Connection) -> int:
    """The generation after which the log of removed keys is complete."""
    return number(connection, "SELECT value FROM meta WHERE name = 'log_from'")


def removed_since(connection: sqlite3.Connection, since: int) -> list[int]:
    """The keys removed after generation `since`, which must be at least `log_from`."""
    rows = connection.execute("SELECT key FROM removed WHERE generation > ?", (since,))
    return [key for (key,) in rows]


def forget_removed(connection: sqlite3.Connection, until: int) -> None:
    """Truncate the log of removed keys up to generation `until`."""
    connection.execute("DELETE FROM removed WHERE generation <= ?", (until,))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'log_from'", (until,))


def keys_of(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Id -> key of the ids that exist."""
    wanted = list(ids)
    query = f"SELECT id, key FROM records WHERE id IN {_THESE}"
    found: dict[str, int] = dict(connection.execute(query, (_listed(wanted),)))
    # SQLite's JSON truncates text at a zero byte, so it may match other ids.
    return {record_id: found[record_id] for record_id in wanted if record_id in found}


def key_of(connection: sqlite3.Connection, record_id: str) -> int:
    """The key of one record; raises `RecordGoneError` if it does not exist."""
    for key in keys_of(connection, [record_id]).values():
        return key
    raise RecordGoneError(record_id)


def insert(connection: sqlite3.Connection, entries: Sequence[Entry], first_key: int) -> None:
    """Insert records with new ids, under keys from `first_key` on."""
    keyed = list(enumerate(entries, first_key))
    connection.executemany(
        f"INSERT INTO records VALUES ({', '.join('?' * (1 + len(_FIELDS)))})",
        # An int, because Python's sqlite3 binds a bool several times slower.
        [(key, *_row(entry.record), int(entry.record.missing)) for key, entry in keyed],
    )
    _insert_metadata(connection, ((key, entry.record.metadata) for key, entry in keyed))
    connection.executemany(
        "INSERT INTO vectors VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (key, part, *box, vector.tobytes())
            for key, entry in keyed
            for part, (box, vector) in enumerate(
                zip(entry.boxes, entry.vectors.astype("<f4", copy=False), strict=True)
            )
        ],
    )


def delete(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Delete records by key in a new generation, and log their keys as removed."""
    these = _listed(keys)
    connection.execute(f"DELETE FROM records WHERE key IN {_THESE}", (these,))
    for table in ("vectors", "metadata"):
        connection.execute(f"DELETE FROM {table} WHERE record IN {_THESE}", (these,))
    connection.execute(
        "INSERT INTO removed SELECT ?, value FROM json_each(?) WHERE true",
        (next_generation(connection), these),
    )


def set_details(connection: sqlite3.Connection, details: Details) -> None:
    """Replace the label and metadata of records, by id."""
    keys = keys_of(connection, details)
    connection.executemany(
        "UPDATE records SET label = ? WHERE key = ?",
        [(details[record_id][0], key) for record_id, key in keys.items()],
    )
    connection.execute(f"DELETE FROM metadata WHERE record IN {_THESE}", (_listed(keys.values()),))
    _insert_metadata(connection, ((key, details[record_id][1]) for record_id, key in keys.items()))


def touch(connection: sqlite3.Connection, files: FileStates) -> None:
    """Set the file size and mtime of records, by id, and clear `missing`."""
    keys = keys_of(connection, files)
    connection.executemany(
        "UPDATE records SET file_size = ?, mtime_ns = ?, missing = 0 WHERE key = ?",
        [(*files[record_id], key) for record_id, key in keys.items()],
    )


def mark_missing(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Mark records as missing."""
    keys = _listed(keys_of(connection, ids).values())
    connection.execute(f"UPDATE records SET missing = 1 WHERE key IN {_THESE}", (keys,))


def mark_changed(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Clear the file state of these records, so that the next run reads the files again."""
    connection.execute(
        "UPDATE records SET content_hash = '', file_size = NULL, mtime_ns = NULL "
        f"WHERE key IN {_THESE}",
        (_listed(keys),),
    )


def records(connection: sqlite3.Connection, ids: Sequence[str]) -> list[ImageRecord]:
    """The records of `ids`, in that order; raises `RecordGoneError` for an unknown id."""
    rows = connection.execute(f"{_SELECT} WHERE id IN {_THESE}", (_listed(ids),)).fetchall()
    found = {record.id: record for _, record in _with_metadata(connection, rows)}
    for record_id in ids:
        if record_id not in found:
            raise RecordGoneError(record_id)
    return [found[record_id] for record_id in ids]


def records_after(
    connection: sqlite3.Connection, record_id: str, count: int
) -> list[tuple[int, ImageRecord]]:
    """The next `count` records after `record_id` in id order, with their keys."""
    query = f"{_SELECT} WHERE id > ? ORDER BY id LIMIT ?"
    return _with_metadata(connection, connection.execute(query, (record_id, count)).fetchall())


def stamps(connection: sqlite3.Connection, source: str) -> dict[str, Stamp]:
    """Id -> stamp of every record of `source`."""
    metadata = _metadata(
        connection.execute(
            "SELECT m.record, m.name, m.value FROM metadata m "
            "JOIN records r ON r.key = m.record WHERE r.source = ?",
            (source,),
        )
    )
    parts = dict(connection.execute("SELECT record, count(*) FROM vectors GROUP BY record"))
    rows = connection.execute(
        "SELECT key, id, content_hash, file_size, mtime_ns, missing, label FROM records "
        "WHERE source = ?",
        (source,),
    )
    return {
        record_id: Stamp(
            content_hash,
            size,
            mtime,
            bool(missing),
            parts.get(key, 0),
            label,
            metadata.get(key, {}),
        )
        for key, record_id, content_hash, size, mtime, missing, label in rows
    }


def sources(connection: sqlite3.Connection) -> dict[str, str]:
    """Registered source names and their URIs."""
    return dict(connection.execute("SELECT name, uri FROM sources ORDER BY name"))


def set_source(connection: sqlite3.Connection, name: str, uri: str) -> None:
    """Register the source `name` at `uri`, or move it there."""
    connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", (name, uri))


def set_failures(connection: sqlite3.Connection, source: str, failures: Sequence[Failure]) -> None:
    """Replace the failures of `source`."""
    connection.execute("DELETE FROM failures WHERE source = ?", (source,))
    connection.executemany(
        "INSERT INTO failures VALUES (?, ?, ?)",
        [(source, failure.location, failure.reason) for failure in failures],
    )


def part_vectors(
    connection: sqlite3.Connection, keys: Iterable[int], dim: int
) -> dict[int, tuple[Vectors, list[Box]]]:
    """Key -> vectors (parts, dim) and boxes."""
    rows = connection.execute(
        "SELECT record, x0, y0, x1, y1, vector FROM vectors "
        f"WHERE record IN {_THESE} ORDER BY record, part",
        (_listed(keys),),
    )
    blobs: dict[int, list[bytes]] = {}
    boxes: dict[int, list[Box]] = {}
    for key, x0, y0, x1, y1, vector in rows:
        blobs.setdefault(key, []).append(vector)
        boxes.setdefault(key, []).append((x0, y0, x1, y1))
    return {key: (_matrix(blobs[key], dim), boxes[key]) for key in blobs}


def metadata_fields(connection: sqlite3.Connection) -> list[str]:
    """The metadata keys in use."""
    rows = connection.execute("SELECT DISTINCT name FROM metadata ORDER BY name")
    return [name for (name,) in rows]


def matching_keys(
    connection: sqlite3.Connection, conditions: Sequence[Condition]
) -> NDArray[np.int64]:
    """The keys of the records that meet every condition, ascending."""
    clauses = [_clause(condition) for condition in conditions]
    query = "SELECT key FROM records WHERE " + " AND ".join(sql for sql, _ in clauses)
    values = [value for _, given in clauses for value in given]
    rows = connection.execute(query + " ORDER BY key", values).fetchall()
    return np.array(rows, dtype=np.int64).reshape(-1)


def create_thumbnails(connection: sqlite3.Connection) -> None:
    """Create the thumbnail table if it does not exist."""
    connection.execute(_THUMBNAILS)


def insert_thumbnails(
    connection: sqlite3.Connection, entries: Sequence[Entry], first_key: int
) -> None:
    """Store the thumbnails of `entries` under keys from `first_key` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO thumbs VALUES (?, ?)",
        [(key, entry.thumbnail) for key, entry in enumerate(entries, first_key) if entry.thumbnail],
    )


def delete_thumbnails(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Delete the thumbnails of these keys."""
    connection.execute(f"DELETE FROM thumbs WHERE key IN {_THESE}", (_listed(keys),))


def thumbnails(connection: sqlite3.Connection, keys: Iterable[int]) -> dict[int, bytes]:
    """Key -> thumbnail of the keys that have one."""
    query = f"SELECT key, picture FROM thumbs WHERE key IN {_THESE}"
    return dict(connection.execute(query, (_listed(keys),)))


def number(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    """The single number that `query` selects."""
    return int(connection.execute(query, values).fetchone()[0])


def _insert_metadata(
    connection: sqlite3.Connection,
    keyed: Iterable[tuple[int, Mapping[str, MetadataValue]]],
) -> None:
    connection.executemany(
        "INSERT INTO metadata VALUES (?, ?, ?)",
        [(key, name, value) for key, values in keyed for name, value in values.items()],
    )


def _with_metadata(
    connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]
) -> list[tuple[int, ImageRecord]]:
    """The key and record of each of `rows`, which `_SELECT` returned."""
    query = f"SELECT record, name, value FROM metadata WHERE record IN {_THESE}"
    metadata = _metadata(connection.execute(query, (_listed(row[0] for row in rows),)))
    found = []
    for key, *values, missing in rows:
        values += [metadata.get(key, {}), bool(missing)]
        found.append((key, ImageRecord(*values)))
    return found


def _metadata(
    rows: Iterable[tuple[int, str, MetadataValue]],
) -> dict[int, dict[str, MetadataValue]]:
    values: dict[int, dict[str, MetadataValue]] = {}
    for key, name, value in rows:
        values.setdefault(key, {})[name] = value
    return values


def _matrix(blobs: Sequence[bytes], dim: int) -> Vectors:
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, dim).astype(np.float32)


def _listed(values: Iterable[Any]) -> str:
    """Values for `json_each`, so that one statement takes any number of values."""
    return json.dumps(list(values))


def _clause(condition: Condition) -> _Clause:
    if condition.field not in FIELDS:
        sql, values = _compared("value", condition, mixed=True)
        query = f"key IN (SELECT record FROM metadata WHERE name = ? AND {sql})"
        return query, [condition.field, *values]
    column = "location" if condition.field == "path" else condition.field
    return _compared(column, condition, mixed=False)


def _compared(column: str, condition: Condition, mixed: bool) -> _Clause:
    """`column OP value`. A `mixed` column holds numbers and text; NULL never matches."""
    texts: list[MetadataValue] = list(condition.values)
    numbers: list[MetadataValue] = [n for n in condition.numbers() if n is not None]
    plain = texts if condition.field in TEXT_FIELDS else numbers
    if condition.operator in ("=", "!="):
        values = texts + numbers if mixed else plain
        negated = "NOT " if condition.operator == "!=" else ""
        return f"{column} {negated}IN ({', '.join('?' * len(values))})", values
    if not mixed:
        return f"{column} {condition.operator} ?", plain
    as_text = f"typeof({column}) = 'text' AND {column} {condition.operator} ?"
    if not numbers:
        return f"({as_text})", texts
    as_number = f"typeof({column}) != 'text' AND {column} {condition.operator} ?"
    return f"(({as_text}) OR ({as_number}))", texts + numbers
