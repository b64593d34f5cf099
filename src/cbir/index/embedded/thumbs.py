"""The table of `thumbs.sqlite`: one encoded thumbnail a record, under the record's key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from cbir.index.base import Entry


def create(connection: sqlite3.Connection) -> None:
    """Make the table, unless it is there."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS thumbs (key INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
    )


def insert(connection: sqlite3.Connection, entries: Sequence[Entry], first_key: int) -> None:
    """Keep the thumbnails of `entries` under the keys from `first_key` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO thumbs VALUES (?, ?)",
        [(key, entry.thumbnail) for key, entry in enumerate(entries, first_key) if entry.thumbnail],
    )


def delete(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Drop the thumbnails of these keys."""
    connection.execute(
        "DELETE FROM thumbs WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(keys)),),
    )


def delete_after(connection: sqlite3.Connection, key: int) -> None:
    """Drop the thumbnails of all keys above `key`."""
    connection.execute("DELETE FROM thumbs WHERE key > ?", (key,))


def pictures(connection: sqlite3.Connection, keys: Iterable[int]) -> dict[int, bytes]:
    """Key -> thumbnail, of those that there are."""
    rows = connection.execute(
        "SELECT key, picture FROM thumbs WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(keys)),),
    )
    return dict(rows)


def keys(connection: sqlite3.Connection) -> set[int]:
    """The keys that have a thumbnail."""
    return {key for (key,) in connection.execute("SELECT key FROM thumbs")}
