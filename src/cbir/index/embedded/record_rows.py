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
from cbir.index.base import Detail, Details, Entry, FileStates, Stamp
from cbir.index.embedded.checksums import (
    RECORDS,
    damaged_among,
    resealing,
    row_checksum,
    stored,
)
from cbir.index.embedded.schema import (
    EXIF_NAMES,
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
from cbir.types import LABEL, Box, ImageRecord, MetadataValue, Vectors

_FIELDS = RECORDS["records"].columns[1:]
"""The columns of `records`; all but the last two are attributes of `ImageRecord`."""
_NOT_BEFORE = {
    "stamp": (2, "NULL"),
    "decoder": (2, "0"),
    "phash": (2, "NULL"),
    "label_given": (3, "0"),
    "given": (3, f"name NOT IN ({EXIF_NAMES})"),
}
"""Columns that older indexes lack: their first format, and what stands for them before."""
_VECTOR = ", ".join(RECORDS["vectors"].columns)
_ROWS_AT_ONCE = 4096
_row = attrgetter(*_FIELDS[:-2])


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
    if damaged_among(connection, "records", f"key IN {THESE}", these) or damaged_among(
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
            "UPDATE records SET label = ?, label_given = ? WHERE key = ?",
            [
                (details[record_id].label, int(LABEL in details[record_id].given), key)
                for record_id, key in keys.items()
            ],
        )
    connection.execute(f"DELETE FROM metadata WHERE record IN {THESE}", (listed(keys.values()),))
    _insert_metadata(connection, ((key, details[record_id]) for record_id, key in keys.items()))


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


def known_contents(connection: sqlite3.Connection, hashes: Iterable[str]) -> set[str]:
    """Those of `hashes` that a record has; reads all records."""
    query = f"SELECT DISTINCT content_hash FROM records WHERE content_hash IN {THESE}"
    return {content_hash for (content_hash,) in connection.execute(query, (listed(hashes),))}


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
    metadata, given = _metadata(connection, "(SELECT key FROM records WHERE source = ?)", source)
    parts = dict(connection.execute("SELECT record, count(*) FROM vectors GROUP BY record"))
    names = _columns(connection, ("label", "stamp", "decoder", "label_given"))
    rows = connection.execute(
        f"SELECT key, id, content_hash, file_size, mtime_ns, missing, {', '.join(names)} "
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
            _given(given.get(key), by_file),
        )
        for key, record_id, content_hash, size, mtime, missing, label, stamp, rules, by_file in rows
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


def _columns(connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    """The columns `names`, or what stands for them in an older index."""
    now = format_of(connection)
    found = ((name, *_NOT_BEFORE.get(name, (1, name))) for name in names)
    return [name if now >= since else instead for name, since, instead in found]


def _select(connection: sqlite3.Connection) -> str:
    return f"SELECT key, {', '.join(_columns(connection, _FIELDS))} FROM records"


def _insert_records(
    connection: sqlite3.Connection, keyed: Iterable[tuple[int, ImageRecord]]
) -> None:
    rows = list(keyed)
    # Integers, because Python's sqlite3 binds a bool several times slower.
    cells = (
        (key, *_row(record), int(LABEL in record.given), int(record.missing))
        for key, record in rows
    )
    connection.executemany(
        f"INSERT INTO records (key, {', '.join(_FIELDS)}, checksum) "
        f"VALUES ({', '.join('?' * (2 + len(_FIELDS)))})",
        [(*row, row_checksum(row)) for row in cells],
    )
    _insert_metadata(connection, rows)


def _insert_metadata(
    connection: sqlite3.Connection, keyed: Iterable[tuple[int, ImageRecord | Detail]]
) -> None:
    rows = (
        (key, name, stored(value), int(name in facts.given))
        for key, facts in keyed
        for name, value in facts.metadata.items()
    )
    connection.executemany(
        "INSERT INTO metadata (record, name, value, given, checksum) VALUES (?, ?, ?, ?, ?)",
        [(*row, row_checksum(row)) for row in rows],
    )


def _with_metadata(
    connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]
) -> list[tuple[int, ImageRecord]]:
    """The key and record of each of `rows`, which `_SELECT` returned."""
    metadata, given = _metadata(connection, THESE, listed(row[0] for row in rows))
    found = []
    for key, *values, stamp, decoder, phash, by_file, missing in typed(
        RECORDS["records"].columns, rows
    ):
        values += [metadata.get(key, {}), bool(missing), stamp, decoder, phash]
        values.append(_given(given.get(key), by_file))
        found.append((key, ImageRecord(*values)))
    return found


def _metadata(
    connection: sqlite3.Connection, keys: str, *values: str
) -> tuple[dict[int, dict[str, MetadataValue]], dict[int, set[str]]]:
    """Key -> metadata, and key -> names of the fields that were given, of the records in `keys`."""
    [is_given] = _columns(connection, ["given"])
    query = f"SELECT record, name, value, {is_given} FROM metadata WHERE record IN {keys}"
    metadata: dict[int, dict[str, MetadataValue]] = {}
    given: dict[int, set[str]] = {}
    for key, name, value, by_file in connection.execute(query, values):
        if not isinstance(value, MetadataValue):
            raise damaged("a value of its metadata is neither text nor a number")
        metadata.setdefault(key, {})[name] = value
        if by_file:
            given.setdefault(key, set()).add(name)
    return metadata, given


def _given(names: Iterable[str] | None, label: int) -> frozenset[str]:
    return frozenset([*(names or ()), *([LABEL] if label else [])])


def _matrix(blobs: Sequence[bytes], dim: int) -> Vectors:
    if {len(blob) for blob in blobs} != {4 * dim}:
        raise damaged("a vector has the wrong size")
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, dim).astype(np.float32)
