"""The truth: the tables of `index.sqlite`, and the statements over them.

Functions take a connection that is inside a transaction; who opens it decides what is atomic.
A record that changes is deleted and inserted with a new key, so that whoever has read all keys up
to some number finds what came later above it, and what went in the log `removed`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cbir.errors import QueryError, RecordGoneError
from cbir.index.base import Entry, Stamp
from cbir.types import DescriptorSpec, Failure, ImageRecord, MetadataValue, Vectors

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
_RECORD = (
    "r.key, r.id, r.source, r.location, r.label, r.content_hash, r.width, r.height, r.file_size, "
    "r.mtime_ns, r.missing"
)
_THESE = "(SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Meta:
    """What is said once an index: format, its own random id, spec, and its model's checksums."""

    format: int
    index_id: str
    spec: DescriptorSpec
    model: Mapping[str, str]


def create(connection: sqlite3.Connection, meta: Meta) -> None:
    """Make the tables of an index; nothing of them is there unless all of it is."""
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


def read_meta(connection: sqlite3.Connection) -> Meta | None:
    """What the index says of itself; None where no index was ever completed."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return None
    values = dict(connection.execute("SELECT name, value FROM meta"))
    if values["format"] != FORMAT:  # what the rest means is not known
        return Meta(values["format"], "", DescriptorSpec("", 0, ""), {})
    spec = DescriptorSpec(**json.loads(values["spec"]))
    return Meta(values["format"], values["index_id"], spec, json.loads(values["model"]))


def generation(connection: sqlite3.Connection) -> int:
    """A number that grows with every transaction that changes what a search may answer."""
    return _number(connection, "generation")


def next_generation(connection: sqlite3.Connection) -> int:
    """Start a new generation, and return it."""
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")
    return generation(connection)


def last_key(connection: sqlite3.Connection) -> int:
    """The highest key ever given; keys are never used again."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return int(row[0]) if row else 0


def rows_after(connection: sqlite3.Connection, key: int) -> int:
    """Number of vectors of records with a key above `key`."""
    row = connection.execute("SELECT count(*) FROM vectors WHERE record > ?", (key,)).fetchone()
    return int(row[0])


def log_from(connection: sqlite3.Connection) -> int:
    """The generation after which the log of removed keys is complete."""
    return _number(connection, "log_from")


def removed_since(connection: sqlite3.Connection, since: int) -> list[int]:
    """Keys removed after generation `since`, which must not be below `log_from`."""
    rows = connection.execute("SELECT key FROM removed WHERE generation > ?", (since,))
    return [key for (key,) in rows]


def forget_removed(connection: sqlite3.Connection, until: int) -> None:
    """Shorten the log of removed keys: nobody needs what happened up to generation `until`."""
    connection.execute("DELETE FROM removed WHERE generation <= ?", (until,))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'log_from'", (until,))


def keys_of(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Id -> key, of those that are there."""
    wanted = list(ids)
    query = f"SELECT id, key FROM records WHERE id IN {_THESE}"
    found: dict[str, int] = dict(connection.execute(query, (_listed(wanted),)))
    # SQLite's JSON ends text at a zero byte, so that it may find what nobody asked for.
    return {record_id: found[record_id] for record_id in wanted if record_id in found}


def insert(connection: sqlite3.Connection, entries: Sequence[Entry], first_key: int) -> None:
    """Insert records of new ids with the keys from `first_key` on."""
    keyed = list(enumerate(entries, first_key))
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(key, *_record_row(entry.record)) for key, entry in keyed],
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


def delete(connection: sqlite3.Connection, keys: Iterable[int], at: int) -> None:
    """Delete records by key, and log that they went in generation `at`."""
    these = _listed(keys)
    connection.execute(f"DELETE FROM records WHERE key IN {_THESE}", (these,))
    for table in ("vectors", "metadata"):
        connection.execute(f"DELETE FROM {table} WHERE record IN {_THESE}", (these,))
    connection.execute(
        "INSERT INTO removed SELECT ?, value FROM json_each(?) WHERE true", (at, these)
    )


def set_details(
    connection: sqlite3.Connection,
    details: Mapping[str, tuple[str | None, Mapping[str, MetadataValue]]],
) -> None:
    """Replace label and metadata of records by id."""
    keys = keys_of(connection, details)
    connection.executemany(
        "UPDATE records SET label = ? WHERE key = ?",
        [(details[record_id][0], key) for record_id, key in keys.items()],
    )
    connection.execute(f"DELETE FROM metadata WHERE record IN {_THESE}", (_listed(keys.values()),))
    _insert_metadata(connection, ((key, details[record_id][1]) for record_id, key in keys.items()))


def touch(
    connection: sqlite3.Connection, files: Mapping[str, tuple[int | None, int | None]]
) -> None:
    """Set file size and mtime of records by id, and clear the mark of a file not found."""
    keys = keys_of(connection, files)
    connection.executemany(
        "UPDATE records SET file_size = ?, mtime_ns = ?, missing = 0 WHERE key = ?",
        [(*files[record_id], key) for record_id, key in keys.items()],
    )


def mark_missing(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Mark records whose file was not found."""
    keys = _listed(keys_of(connection, ids).values())
    connection.execute(f"UPDATE records SET missing = 1 WHERE key IN {_THESE}", (keys,))


def mark_changed(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Forget what the files of these records looked like, so that the next run reads them."""
    connection.execute(
        "UPDATE records SET content_hash = '', file_size = NULL, mtime_ns = NULL "
        f"WHERE key IN {_THESE}",
        (_listed(keys),),
    )


def records(connection: sqlite3.Connection, ids: Sequence[str]) -> list[ImageRecord]:
    """The records of `ids`, in that order; raises `QueryError` for one that is not there."""
    rows = connection.execute(
        f"SELECT {_RECORD} FROM records r WHERE r.id IN {_THESE}", (_listed(ids),)
    ).fetchall()
    found = {record.id: record for _, record in _with_metadata(connection, rows)}
    for record_id in ids:
        if record_id not in found:
            raise no_such_record(record_id)
    return [found[record_id] for record_id in ids]


def records_after(
    connection: sqlite3.Connection, record_id: str, count: int
) -> list[tuple[int, ImageRecord]]:
    """The next `count` records after `record_id` in id order, with their keys."""
    rows = connection.execute(
        f"SELECT {_RECORD} FROM records r WHERE r.id > ? ORDER BY r.id LIMIT ?",
        (record_id, count),
    ).fetchall()
    return _with_metadata(connection, rows)


def stamps(connection: sqlite3.Connection, source: str) -> dict[str, Stamp]:
    """Id -> stamp of every record of `source`."""
    values: dict[int, dict[str, MetadataValue]] = {}
    for key, name, value in connection.execute(
        "SELECT m.record, m.name, m.value FROM metadata m "
        "JOIN records r ON r.key = m.record WHERE r.source = ?",
        (source,),
    ):
        values.setdefault(key, {})[name] = value
    parts = dict(connection.execute("SELECT record, count(*) FROM vectors GROUP BY record"))
    rows = connection.execute(
        "SELECT key, id, content_hash, file_size, mtime_ns, missing, label FROM records "
        "WHERE source = ?",
        (source,),
    )
    return {
        record_id: Stamp(
            content_hash, size, mtime, bool(missing), parts.get(key, 0), label, values.get(key, {})
        )
        for key, record_id, content_hash, size, mtime, missing, label in rows
    }


def register_source(connection: sqlite3.Connection, name: str, uri: str) -> str:
    """The name registered for `uri`: the one it has, else `name`, `name-2`, ..."""
    taken: dict[str, str] = dict(connection.execute("SELECT name, uri FROM sources"))
    for known, at in taken.items():
        if at == uri:
            return known
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    connection.execute("INSERT INTO sources VALUES (?, ?)", (free, uri))
    return free


def move_source(connection: sqlite3.Connection, name: str, uri: str) -> None:
    """Set where the source `name` lies; raises `QueryError` if that cannot be."""
    taken: dict[str, str] = dict(connection.execute("SELECT name, uri FROM sources"))
    if name not in taken:
        known = ", ".join(taken) or "none"
        raise QueryError(f"no source is called '{name}'", f"registered sources: {known}")
    other = next((known for known, at in taken.items() if at == uri and known != name), None)
    if other is not None:
        raise QueryError(f"{uri} is registered as '{other}' already", f"index it without '{name}'")
    connection.execute("UPDATE sources SET uri = ? WHERE name = ?", (uri, name))


def set_failures(connection: sqlite3.Connection, source: str, failures: Sequence[Failure]) -> None:
    """Replace the failures of `source`."""
    connection.execute("DELETE FROM failures WHERE source = ?", (source,))
    connection.executemany(
        "INSERT INTO failures VALUES (?, ?, ?)",
        [(source, failure.location, failure.reason) for failure in failures],
    )


def part_vectors(
    connection: sqlite3.Connection, keys: Iterable[int], dim: int
) -> dict[int, tuple[Vectors, list[tuple[float, float, float, float]]]]:
    """Key -> its vectors (parts, dim) and boxes."""
    rows = connection.execute(
        "SELECT record, x0, y0, x1, y1, vector FROM vectors "
        f"WHERE record IN {_THESE} ORDER BY record, part",
        (_listed(keys),),
    )
    blobs: dict[int, list[bytes]] = {}
    boxes: dict[int, list[tuple[float, float, float, float]]] = {}
    for key, x0, y0, x1, y1, vector in rows:
        blobs.setdefault(key, []).append(vector)
        boxes.setdefault(key, []).append((x0, y0, x1, y1))
    return {key: (_matrix(blobs[key], dim), boxes[key]) for key in blobs}


def metadata_fields(connection: sqlite3.Connection) -> list[str]:
    """The metadata keys that any record has."""
    rows = connection.execute("SELECT DISTINCT name FROM metadata ORDER BY name")
    return [name for (name,) in rows]


def no_such_record(record_id: str) -> RecordGoneError:
    """The error for an id that is not in the index."""
    return RecordGoneError(
        f"no record '{record_id}' in the index", "ids look like SOURCE/path/in/it"
    )


def _record_row(record: ImageRecord) -> tuple[Any, ...]:
    return (
        record.id,
        record.source,
        record.location,
        record.label,
        record.content_hash,
        record.width,
        record.height,
        record.file_size,
        record.mtime_ns,
        int(record.missing),
    )


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
    values: dict[int, dict[str, MetadataValue]] = {}
    for key, name, value in connection.execute(
        f"SELECT record, name, value FROM metadata WHERE record IN {_THESE}",
        (_listed(row[0] for row in rows),),
    ):
        values.setdefault(key, {})[name] = value
    return [(row[0], _record(row[1:], values.get(row[0], {}))) for row in rows]


def _record(row: tuple[Any, ...], metadata: Mapping[str, MetadataValue]) -> ImageRecord:
    record_id, source, location, label, content_hash, width, height, size, mtime, missing = row
    return ImageRecord(
        record_id,
        source,
        location,
        label,
        content_hash,
        width,
        height,
        size,
        mtime,
        metadata,
        bool(missing),
    )


def _matrix(blobs: Iterator[bytes] | Sequence[bytes], dim: int) -> Vectors:
    flat = np.frombuffer(b"".join(blobs), dtype="<f4")
    return flat.reshape(-1, dim).astype(np.float32)


def _listed(values: Iterable[Any]) -> str:
    """Values for `json_each`, so that one statement takes any number of them."""
    return json.dumps(list(values))


def _number(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])
