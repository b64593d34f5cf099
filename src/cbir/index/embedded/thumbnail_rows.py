"""The thumbnails in `thumbs.sqlite`, by the key of their record."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from cbir.index.base import Entry
from cbir.index.embedded.checksums import (
    THUMBNAILS,
    damaged_among,
    is_sealed,
    row_checksum,
    seal_all,
)
from cbir.index.embedded.folder import THUMBNAILS as FILE
from cbir.index.embedded.schema import (
    FORMAT,
    THESE,
    columns_of,
    damaged,
    foreign,
    listed,
    made_by,
    tables,
)

_THUMBNAILS = "CREATE TABLE IF NOT EXISTS thumbs (key INTEGER PRIMARY KEY, picture BLOB NOT NULL)"
_THUMBNAILS_MIGRATION = "ALTER TABLE thumbs ADD COLUMN checksum BLOB"


def create_thumbnails(connection: sqlite3.Connection) -> None:
    """Create the thumbnail table if it does not exist, or bring it to today's format."""
    if connection.execute("PRAGMA user_version").fetchone()[0] >= FORMAT:
        return
    connection.execute(_THUMBNAILS)
    if "checksum" not in columns_of(connection, "thumbs"):
        connection.execute(_THUMBNAILS_MIGRATION)
    if not is_sealed(connection, "thumbs"):
        seal_all(connection, THUMBNAILS)
    connection.execute(f"PRAGMA user_version={FORMAT}")


def check_tables(connection: sqlite3.Connection, name: str) -> None:
    """Raise `IndexStateError` unless the schema is exactly that of a format, or empty."""
    of_format_1 = f"{_THUMBNAILS};\n"
    known = [[], made_by(of_format_1), made_by(of_format_1 + _THUMBNAILS_MIGRATION)]
    if tables(connection) not in known:
        raise foreign(name, FILE)


def insert_thumbnails(
    connection: sqlite3.Connection, entries: Sequence[Entry], first_key: int
) -> None:
    """Store the thumbnails of `entries` under keys from `first_key` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO thumbs (key, picture, checksum) VALUES (?, ?, ?)",
        [
            (key, entry.thumbnail, row_checksum((key, entry.thumbnail)))
            for key, entry in enumerate(entries, first_key)
            if entry.thumbnail
        ],
    )


def copy_thumbnails(connection: sqlite3.Connection, keys: Iterable[int], first_key: int) -> None:
    """Store the thumbnails of `keys` a second time, under keys from `first_key` on.

    Damaged ones are left out, so that `verify` finds them missing.
    """
    for new, old in enumerate(keys, first_key):
        query = "SELECT picture, checksum FROM thumbs WHERE key = ?"
        for picture, checksum in connection.execute(query, (old,)).fetchall():
            if row_checksum((old, picture)) == checksum:
                insert_thumbnail(connection, new, picture)


def insert_thumbnail(connection: sqlite3.Connection, key: int, picture: bytes) -> None:
    """Store one thumbnail under `key`."""
    connection.execute(
        "INSERT OR REPLACE INTO thumbs (key, picture, checksum) VALUES (?, ?, ?)",
        (key, picture, row_checksum((key, picture))),
    )


def check_thumbnails(connection: sqlite3.Connection, ids: Mapping[int, str]) -> None:
    """Raise `IndexStateError` if a thumbnail of these keys, with the ids of records, is damaged."""
    rows = damaged_among(connection, "thumbs", f"key IN {THESE}", listed(ids))
    changed = {row.cells[0] for row in rows}
    if named := [name for key, name in ids.items() if key in changed]:
        raise damaged(f"the thumbnail of {named[0]} has changed")


def sweep(connection: sqlite3.Connection, last: int, removed: Iterable[int]) -> None:
    """Delete the thumbnails of `removed` keys and of keys above `last`, which have no record.

    Damaged ones stay: their keys may be wrong.
    """
    rows = connection.execute(
        f"SELECT key, picture, checksum FROM thumbs WHERE key > ? OR key IN {THESE}",
        (last, listed(removed)),
    )
    delete_thumbnails(
        connection, [key for key, *rest in rows if [row_checksum((key, rest[0]))] == rest[1:]]
    )


def delete_thumbnails(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Delete the thumbnails of these keys."""
    connection.execute(f"DELETE FROM thumbs WHERE key IN {THESE}", (listed(keys),))


def thumbnails(connection: sqlite3.Connection, keys: Iterable[int]) -> dict[int, bytes]:
    """Key -> thumbnail of the keys that have one."""
    query = f"SELECT key, picture FROM thumbs WHERE key IN {THESE}"
    return dict(connection.execute(query, (listed(keys),)))
