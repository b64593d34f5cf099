"""The tables of `index.sqlite` and `thumbs.sqlite`, and the statements that use them.

Functions take a connection inside a transaction that the caller opened. A record whose vectors
change is deleted and inserted with a new key. So a reader that has seen all keys up to some number
finds newer records above it, and deleted ones in the log `removed`.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.errors import HOW_TO_UPDATE, IndexStateError, RecordGoneError
from cbir.index.base import Details, Entry, FileStates, SourceRun, Stamp, Tombstone
from cbir.index.filters import FIELDS, TEXT_FIELDS, Condition
from cbir.types import Box, DescriptorSpec, Failure, ImageRecord, MetadataValue, Vectors

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
_THUMBNAILS = "CREATE TABLE IF NOT EXISTS thumbs (key INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
_THUMBNAILS_MIGRATION = "ALTER TABLE thumbs ADD COLUMN checksum BLOB"
_FIELDS = (
    *("id", "source", "location", "label", "content_hash"),
    *("width", "height", "file_size", "mtime_ns", "stamp", "decoder", "phash", "missing"),
)
"""The columns of `records` that are attributes of `ImageRecord`."""
_SINCE_2 = {"stamp": "NULL", "decoder": "0", "phash": "NULL"}
"""What an index of format 1 has in the place of columns that it lacks."""
_BOXES = ("x0", "y0", "x1", "y1")
_THESE = "(SELECT value FROM json_each(?))"
_MATCHES = "cbir_matches"

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
    _insert_records(connection, ((key, entry.record) for key, entry in keyed))
    connection.executemany(
        f"INSERT INTO vectors (record, part, {', '.join(_BOXES)}, vector) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (key, part, *box, vector.tobytes())
            for key, entry in keyed
            for part, (box, vector) in enumerate(
                zip(entry.boxes, entry.vectors.astype("<f4", copy=False), strict=True)
            )
        ],
    )


def rename(
    connection: sqlite3.Connection, renamed: Mapping[int, ImageRecord], first_key: int
) -> None:
    """Replace records, old key -> new record, under keys from `first_key` on; vectors stay.

    No other record has one of the new ids.
    """
    these = _listed(renamed)
    connection.execute(f"DELETE FROM records WHERE key IN {_THESE}", (these,))
    connection.execute(f"DELETE FROM metadata WHERE record IN {_THESE}", (these,))
    keyed = list(enumerate(renamed.items(), first_key))
    _insert_records(connection, ((key, record) for key, (_, record) in keyed))
    connection.executemany(
        "UPDATE vectors SET record = ? WHERE record = ?", [(key, old) for key, (old, _) in keyed]
    )
    _log_removed(connection, these)


def delete(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Delete records by key in a new generation, and log their keys as removed."""
    these = _listed(keys)
    connection.execute(f"DELETE FROM records WHERE key IN {_THESE}", (these,))
    for table in ("vectors", "metadata"):
        connection.execute(f"DELETE FROM {table} WHERE record IN {_THESE}", (these,))
    _log_removed(connection, these)


def _log_removed(connection: sqlite3.Connection, these: str) -> None:
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
    """Set the file state of records, by id, and clear `missing`."""
    keys = keys_of(connection, files)
    connection.executemany(
        "UPDATE records SET file_size = ?, mtime_ns = ?, stamp = ?, decoder = ?, missing = 0 "
        "WHERE key = ?",
        [(*files[record_id], key) for record_id, key in keys.items()],
    )


def mark_missing(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Mark records as missing."""
    keys = _listed(keys_of(connection, ids).values())
    connection.execute(f"UPDATE records SET missing = 1 WHERE key IN {_THESE}", (keys,))


def mark_changed(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Clear the file state of these records, so that the next run reads the files again."""
    connection.execute(
        "UPDATE records SET content_hash = '', file_size = NULL, mtime_ns = NULL, stamp = NULL "
        f"WHERE key IN {_THESE}",
        (_listed(keys),),
    )


def records(connection: sqlite3.Connection, ids: Sequence[str]) -> list[ImageRecord]:
    """The records of `ids`, in that order; raises `RecordGoneError` for an unknown id."""
    query = f"{_select(connection)} WHERE id IN {_THESE}"
    rows = connection.execute(query, (_listed(ids),)).fetchall()
    found = {record.id: record for _, record in _with_metadata(connection, rows)}
    for record_id in ids:
        if record_id not in found:
            raise RecordGoneError(record_id)
    return [found[record_id] for record_id in ids]


def records_after(
    connection: sqlite3.Connection, record_id: str, count: int
) -> list[tuple[int, ImageRecord]]:
    """The next `count` records after `record_id` in id order, with their keys."""
    query = f"{_select(connection)} WHERE id > ? ORDER BY id LIMIT ?"
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
    stamp, decoder = (_column(connection, name) for name in ("stamp", "decoder"))
    rows = connection.execute(
        f"SELECT key, id, content_hash, file_size, mtime_ns, missing, label, {stamp}, {decoder} "
        "FROM records WHERE source = ?",
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
            stamp,
            rules,
        )
        for key, record_id, content_hash, size, mtime, missing, label, stamp, rules in rows
    }


def contents(connection: sqlite3.Connection, parts: int) -> dict[str, list[str]]:
    """Content hash -> ids, in byte order, of the records that have `parts` vectors."""
    rows = connection.execute(
        "SELECT content_hash, id FROM records JOIN "
        "(SELECT record FROM vectors GROUP BY record HAVING count(*) = ?) ON record = key "
        "ORDER BY id",
        (parts,),
    )
    found: dict[str, list[str]] = {}
    for content_hash, record_id in rows:
        found.setdefault(content_hash, []).append(record_id)
    return found


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
    if not _is_migrated(connection):
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
    if not _is_migrated(connection):
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


def values(
    connection: sqlite3.Connection, field: str, most: int, among: int | None
) -> list[MetadataValue]:
    """Up to `most` different values of a field in the first `among` records that have it, the most
    frequent first."""
    given: list[str | int] = []
    rows = f"SELECT {field} AS value FROM records WHERE {field} IS NOT NULL"
    if field not in FIELDS:
        given, rows = [field], "SELECT value FROM metadata WHERE name = ?"
    query = (
        f"SELECT value FROM ({rows} LIMIT ?) GROUP BY value ORDER BY count(*) DESC, value LIMIT ?"
    )
    everything = -1
    given += [everything if among is None else among, most]
    return [value for (value,) in connection.execute(query, given)]


def matching_keys(
    connection: sqlite3.Connection, conditions: Sequence[Condition]
) -> NDArray[np.int64]:
    """The keys of the records that meet every condition, ascending."""
    rows = matching(connection, "key", conditions).fetchall()
    return np.array(rows, dtype=np.int64).reshape(-1)


def matching(
    connection: sqlite3.Connection, column: str, conditions: Sequence[Condition]
) -> sqlite3.Cursor:
    """Selects a column of the records that meet every condition, ascending."""
    if any(condition.pattern for condition in conditions):
        connection.create_function(_MATCHES, 2, _matches, deterministic=True)
    clauses = [_clause(condition) for condition in conditions]
    holds = " AND ".join(sql for sql, _ in clauses) or "true"
    values = [value for _, given in clauses for value in given]
    query = f"SELECT {column} FROM records WHERE {holds} ORDER BY {column}"
    return connection.execute(query, values)


def create_thumbnails(connection: sqlite3.Connection) -> None:
    """Create the thumbnail table if it does not exist, or bring it to today's format."""
    connection.execute(_THUMBNAILS)
    if "checksum" not in _columns(connection, "thumbs"):
        connection.execute(_THUMBNAILS_MIGRATION)


def insert_thumbnails(
    connection: sqlite3.Connection, entries: Sequence[Entry], first_key: int
) -> None:
    """Store the thumbnails of `entries` under keys from `first_key` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO thumbs (key, picture) VALUES (?, ?)",
        [(key, entry.thumbnail) for key, entry in enumerate(entries, first_key) if entry.thumbnail],
    )


def copy_thumbnails(connection: sqlite3.Connection, keys: Iterable[int], first_key: int) -> None:
    """Store the thumbnails of `keys` a second time, under keys from `first_key` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO thumbs (key, picture, checksum) "
        "SELECT ?, picture, checksum FROM thumbs WHERE key = ?",
        list(enumerate(keys, first_key)),
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


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";\n"):
        connection.execute(statement)


def _is_migrated(connection: sqlite3.Connection) -> bool:
    """Whether the index has today's format; one that only readers opened may be older."""
    return number(connection, "SELECT value FROM meta WHERE name = 'format'") >= FORMAT


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _column(connection: sqlite3.Connection, name: str) -> str:
    """The column `name` of `records`, or what stands for it in an older index."""
    return name if name not in _SINCE_2 or _is_migrated(connection) else _SINCE_2[name]


def _select(connection: sqlite3.Connection) -> str:
    names = _FIELDS if _is_migrated(connection) else [_SINCE_2.get(name, name) for name in _FIELDS]
    return f"SELECT key, {', '.join(names)} FROM records"


def _insert_records(
    connection: sqlite3.Connection, keyed: Iterable[tuple[int, ImageRecord]]
) -> None:
    rows = list(keyed)
    connection.executemany(
        f"INSERT INTO records (key, {', '.join(_FIELDS)}) "
        f"VALUES ({', '.join('?' * (1 + len(_FIELDS)))})",
        # An int, because Python's sqlite3 binds a bool several times slower.
        [(key, *_row(record), int(record.missing)) for key, record in rows],
    )
    _insert_metadata(connection, ((key, record.metadata) for key, record in rows))


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
    for key, *values, stamp, decoder, phash, missing in rows:
        values += [metadata.get(key, {}), bool(missing), stamp, decoder, phash]
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
    if condition.field in FIELDS:
        return _compared(condition.field, condition, mixed=False)
    sql, values = _compared("value", condition, mixed=True)
    return f"key IN (SELECT record FROM metadata WHERE name = ? AND {sql})", [
        condition.field,
        *values,
    ]


def _compared(column: str, condition: Condition, mixed: bool) -> _Clause:
    """`column OP value`. A `mixed` column holds numbers and text; NULL never matches."""
    texts: list[MetadataValue] = list(condition.texts)
    numbers: list[MetadataValue] = list(condition.numbers())
    plain = texts if condition.field in TEXT_FIELDS else numbers
    if condition.operator in ("=", "!="):
        sql, values = _among(column, condition, texts + numbers if mixed else plain)
        return f"{'NOT ' if condition.operator == '!=' else ''}({sql})", values
    if not mixed:
        return f"{column} {condition.operator} ?", plain
    as_text = f"typeof({column}) = 'text' AND {column} {condition.operator} ?"
    if not numbers:
        return f"({as_text})", texts
    as_number = f"typeof({column}) != 'text' AND {column} {condition.operator} ?"
    return f"(({as_text}) OR ({as_number}))", texts + numbers


def _among(column: str, condition: Condition, values: list[MetadataValue]) -> _Clause:
    """Whether `column` is one of `values`, or a text in the condition's spans or pattern."""
    if condition.pattern:
        return f"{_MATCHES}({column}, ?)", [condition.pattern]
    sql = [f"{column} IN ({', '.join('?' * len(values))})"]
    sql += [f"({column} >= ? AND {column} < ?)" for _ in condition.spans]
    while len(sql) > 1:  # SQLite limits the depth, so the clauses become a tree
        sql = [f"({' OR '.join(sql[at : at + 2])})" for at in range(0, len(sql), 2)]
    return sql[0], [*values, *(text for span in condition.spans for text in span)]


def _matches(value: MetadataValue | None, pattern: str) -> bool | None:
    """Whether `value` is text that `pattern` matches as a whole; NULL for NULL."""
    if value is None:
        return None
    return isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None
