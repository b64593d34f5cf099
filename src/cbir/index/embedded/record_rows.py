"""The records of `index.sqlite`: their vectors, metadata and keys.

Functions take a connection inside a transaction that the caller opened. A record whose vectors
change is deleted and inserted with a new key. So a reader that has seen all keys up to some number
finds newer records above it, and deleted ones in the log `removed`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from cbir.errors import RecordGoneError
from cbir.index.base import Details, Entry, FileStates, Stamp
from cbir.index.embedded.checksums import (
    RECORDS,
    any_damaged,
    resealing,
    row_checksum,
    stored,
)
from cbir.index.embedded.schema import (
    SEALED_SINCE,
    THESE,
    damaged,
    format_of,
    listed,
    next_generation,
    number,
    typed,
)
from cbir.index.filters import FIELDS
from cbir.types import Box, ImageRecord, MetadataValue, Vectors

_FIELDS = RECORDS["records"].columns[1:]
"""The columns of `records` that are attributes of `ImageRecord`."""
_SINCE_2 = {"stamp": "NULL", "decoder": "0", "phash": "NULL"}
"""What an index of format 1 has in the place of columns that it lacks."""
_VECTOR = ", ".join(RECORDS["vectors"].columns)
_ROWS_AT_ONCE = 4096
_row = attrgetter(*_FIELDS[:-1])


def rows_after(connection: sqlite3.Connection, key: int) -> int:
    """The number of vectors of records with a key above `key`."""
    return number(connection, "SELECT count(*) FROM vectors WHERE record > ?", key)


def removed_since(connection: sqlite3.Connection, since: int) -> list[int]:
    """The keys removed after generation `since`, which must be at least `log_from`."""
    rows = typed(
        ("key",), connection.execute("SELECT key FROM removed WHERE generation > ?", (since,))
    )
    return [key for (key,) in rows]


def forget_removed(connection: sqlite3.Connection, until: int) -> None:
    """Truncate the log of removed keys up to generation `until`."""
    connection.execute("DELETE FROM removed WHERE generation <= ?", (until,))
    with resealing(connection, "meta", "name = 'log_from'"):
        connection.execute("UPDATE meta SET value = ? WHERE name = 'log_from'", (until,))


def keys_of(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Id -> key of the ids that exist."""
    wanted = list(ids)
    query = f"SELECT id, key FROM records WHERE id IN {THESE}"
    found: dict[str, int] = dict(connection.execute(query, (listed(wanted),)))
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
    rows = (
        (key, part, *(float(side) + 0.0 for side in box), vector.tobytes())
        for key, entry in keyed
        for part, (box, vector) in enumerate(
            zip(entry.boxes, entry.vectors.astype("<f4", copy=False), strict=True)
        )
    )
    connection.executemany(
        f"INSERT INTO vectors ({_VECTOR}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(*row, row_checksum(row)) for row in rows],
    )


def rename(
    connection: sqlite3.Connection, renamed: Mapping[int, ImageRecord], first_key: int
) -> None:
    """Replace records, old key -> new record, under keys from `first_key` on; vectors stay.

    No other record has one of the new ids. Raises `IndexStateError` if one of them is damaged.
    """
    these = listed(renamed)
    check_records(connection, renamed)
    connection.execute(f"DELETE FROM records WHERE key IN {THESE}", (these,))
    connection.execute(f"DELETE FROM metadata WHERE record IN {THESE}", (these,))
    keyed = list(enumerate(renamed.items(), first_key))
    _insert_records(connection, ((key, record) for key, (_, record) in keyed))
    _move_vectors(connection, {old: key for key, (old, _) in keyed})
    _log_removed(connection, these)


def _move_vectors(connection: sqlite3.Connection, moved: Mapping[int, int]) -> None:
    """Give vectors to other records, old key -> new key."""
    keys = list(moved)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        rows = connection.execute(
            f"SELECT {_VECTOR}, checksum FROM vectors WHERE record IN {THESE}",
            (listed(keys[start : start + _ROWS_AT_ONCE]),),
        ).fetchall()
        check_vectors(rows)
        connection.executemany(
            "UPDATE vectors SET record = ?, checksum = ? WHERE record = ? AND part = ?",
            [
                (moved[old], row_checksum((moved[old], part, *rest)), old, part)
                for old, part, *rest, _ in rows
            ],
        )


def check_records(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Raise `IndexStateError` if one of these records, or its metadata, is damaged."""
    these = listed(keys)
    if any_damaged(connection, "records", f"key IN {THESE}", these) or any_damaged(
        connection, "metadata", f"record IN {THESE}", these
    ):
        raise damaged("a record has changed")


def check_vectors(rows: Iterable[Sequence[Any]]) -> None:
    """Raise `IndexStateError` if a row of `vectors`, with its checksum, is damaged."""
    if any(row_checksum(row[:-1]) != row[-1] for row in rows):
        raise damaged("a stored vector has changed")


def delete(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Delete records by key in a new generation, and log their keys as removed."""
    these = listed(keys)
    connection.execute(f"DELETE FROM records WHERE key IN {THESE}", (these,))
    for table in ("vectors", "metadata"):
        connection.execute(f"DELETE FROM {table} WHERE record IN {THESE}", (these,))
    _log_removed(connection, these)


def _log_removed(connection: sqlite3.Connection, these: str) -> None:
    now = next_generation(connection)
    rows = [(now, key) for key in json.loads(these)]
    connection.executemany(
        "INSERT INTO removed (generation, key, checksum) VALUES (?, ?, ?)",
        [(*row, row_checksum(row)) for row in rows],
    )


def set_details(connection: sqlite3.Connection, details: Details) -> None:
    """Replace the label and metadata of records, by id."""
    keys = keys_of(connection, details)
    with resealing(connection, "records", f"key IN {THESE}", listed(keys.values())):
        connection.executemany(
            "UPDATE records SET label = ? WHERE key = ?",
            [(details[record_id][0], key) for record_id, key in keys.items()],
        )
    connection.execute(f"DELETE FROM metadata WHERE record IN {THESE}", (listed(keys.values()),))
    _insert_metadata(connection, ((key, details[record_id][1]) for record_id, key in keys.items()))


def touch(connection: sqlite3.Connection, files: FileStates) -> None:
    """Set the file state of records, by id, and clear `missing`."""
    keys = keys_of(connection, files)
    with resealing(connection, "records", f"key IN {THESE}", listed(keys.values())):
        connection.executemany(
            "UPDATE records SET file_size = ?, mtime_ns = ?, stamp = ?, decoder = ?, missing = 0 "
            "WHERE key = ?",
            [(*files[record_id], key) for record_id, key in keys.items()],
        )


def mark_missing(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Mark records as missing."""
    keys = listed(keys_of(connection, ids).values())
    with resealing(connection, "records", f"key IN {THESE}", keys):
        connection.execute(f"UPDATE records SET missing = 1 WHERE key IN {THESE}", (keys,))


def mark_changed(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Clear the file state of these records, so that the next run reads the files again."""
    these = listed(keys)
    with resealing(connection, "records", f"key IN {THESE}", these):
        connection.execute(
            "UPDATE records SET content_hash = '', file_size = NULL, mtime_ns = NULL, "
            f"stamp = NULL WHERE key IN {THESE}",
            (these,),
        )


def records(connection: sqlite3.Connection, ids: Sequence[str]) -> list[ImageRecord]:
    """The records of `ids`, in that order; raises `RecordGoneError` for an unknown id."""
    query = f"{_select(connection)} WHERE id IN {THESE}"
    rows = connection.execute(query, (listed(ids),)).fetchall()
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


def by_key(connection: sqlite3.Connection, keys: Iterable[int]) -> list[tuple[int, ImageRecord]]:
    """The keys and records that exist of `keys`."""
    query = f"{_select(connection)} WHERE key IN {THESE}"
    return _with_metadata(connection, connection.execute(query, (listed(keys),)).fetchall())


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


def part_vectors(
    connection: sqlite3.Connection, keys: Iterable[int], dim: int
) -> dict[int, tuple[Vectors, list[Box]]]:
    """Key -> vectors (parts, dim) and boxes."""
    sealed = format_of(connection) >= SEALED_SINCE
    rows = connection.execute(
        f"SELECT {_VECTOR}, {'checksum' if sealed else 'NULL'} FROM vectors "
        f"WHERE record IN {THESE} ORDER BY record, part",
        (listed(keys),),
    ).fetchall()
    if sealed:
        check_vectors(rows)
    blobs: dict[int, list[bytes]] = {}
    boxes: dict[int, list[Box]] = {}
    for key, _, x0, y0, x1, y1, vector, _ in rows:
        blobs.setdefault(key, []).append(vector)
        boxes.setdefault(key, []).append((x0, y0, x1, y1))
    return {key: (_matrix(blobs[key], dim), boxes[key]) for key in blobs}


def metadata_fields(connection: sqlite3.Connection) -> list[str]:
    """The metadata keys in use."""
    rows = typed(("name",), connection.execute("SELECT DISTINCT name FROM metadata ORDER BY name"))
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
    found = [value for (value,) in connection.execute(query, given)]
    if not all(isinstance(value, MetadataValue) for value in found):
        raise damaged(f"a value of '{field}' is neither text nor a number")
    return found


def _column(connection: sqlite3.Connection, name: str) -> str:
    """The column `name` of `records`, or what stands for it in an older index."""
    return name if name not in _SINCE_2 or format_of(connection) >= 2 else _SINCE_2[name]


def _select(connection: sqlite3.Connection) -> str:
    old = format_of(connection) < 2
    names = [_SINCE_2.get(name, name) for name in _FIELDS] if old else _FIELDS
    return f"SELECT key, {', '.join(names)} FROM records"


def _insert_records(
    connection: sqlite3.Connection, keyed: Iterable[tuple[int, ImageRecord]]
) -> None:
    rows = list(keyed)
    # An int, because Python's sqlite3 binds a bool several times slower.
    cells = ((key, *_row(record), int(record.missing)) for key, record in rows)
    connection.executemany(
        f"INSERT INTO records (key, {', '.join(_FIELDS)}, checksum) "
        f"VALUES ({', '.join('?' * (2 + len(_FIELDS)))})",
        [(*row, row_checksum(row)) for row in cells],
    )
    _insert_metadata(connection, ((key, record.metadata) for key, record in rows))


def _insert_metadata(
    connection: sqlite3.Connection,
    keyed: Iterable[tuple[int, Mapping[str, MetadataValue]]],
) -> None:
    rows = ((key, name, stored(value)) for key, values in keyed for name, value in values.items())
    connection.executemany(
        "INSERT INTO metadata (record, name, value, checksum) VALUES (?, ?, ?, ?)",
        [(*row, row_checksum(row)) for row in rows],
    )


def _with_metadata(
    connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]
) -> list[tuple[int, ImageRecord]]:
    """The key and record of each of `rows`, which `_SELECT` returned."""
    query = f"SELECT record, name, value FROM metadata WHERE record IN {THESE}"
    metadata = _metadata(connection.execute(query, (listed(row[0] for row in rows),)))
    found = []
    for key, *values, stamp, decoder, phash, missing in typed(RECORDS["records"].columns, rows):
        values += [metadata.get(key, {}), bool(missing), stamp, decoder, phash]
        found.append((key, ImageRecord(*values)))
    return found


def _metadata(
    rows: Iterable[tuple[int, str, MetadataValue]],
) -> dict[int, dict[str, MetadataValue]]:
    values: dict[int, dict[str, MetadataValue]] = {}
    for key, name, value in rows:
        if not isinstance(value, MetadataValue):
            raise damaged("a value of its metadata is neither text nor a number")
        values.setdefault(key, {})[name] = value
    return values


def _matrix(blobs: Sequence[bytes], dim: int) -> Vectors:
    if {len(blob) for blob in blobs} != {4 * dim}:
        raise damaged("a vector has the wrong size")
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, dim).astype(np.float32)
