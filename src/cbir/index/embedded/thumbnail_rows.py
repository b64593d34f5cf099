"""The thumbnails in `thumbs.sqlite`, by the key of their record."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from cbir.index.base import Entry
from cbir.index.embedded.schema import THESE, columns_of, listed

_THUMBNAILS = "CREATE TABLE IF NOT EXISTS thumbs (key INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
_THUMBNAILS_MIGRATION = "ALTER TABLE thumbs ADD COLUMN checksum BLOB"


def create_thumbnails(connection: sqlite3.Connection) -> None:
    """Create the thumbnail table if it does not exist, or bring it to today's format."""
    connection.execute(_THUMBNAILS)
    if "checksum" not in columns_of(connection, "thumbs"):
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
    connection.execute(f"DELETE FROM thumbs WHERE key IN {THESE}", (listed(keys),))


def thumbnails(connection: sqlite3.Connection, keys: Iterable[int]) -> dict[int, bytes]:
    """Key -> thumbnail of the keys that have one."""
    query = f"SELECT key, picture FROM thumbs WHERE key IN {THESE}"
    return dict(connection.execute(query, (listed(keys),)))
