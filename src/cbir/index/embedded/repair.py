"""Repairs an embedded index from whichever copy is good, and deletes nothing that is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from cbir.files import sha256_of, write_files
from cbir.home import cbir_home
from cbir.index.base import Spares
from cbir.index.embedded import check, record_rows, schema, thumbnail_rows
from cbir.index.embedded import folder as files
from cbir.index.embedded.cache import Cached
from cbir.index.embedded.checksums import (
    RECORDS,
    Row,
    any_text,
    damaged_rows,
    delete,
    has_right_types,
    is_sealed,
    mended,
    restore,
    row_checksum,
)
from cbir.index.embedded.sqlite import Database
from cbir.index.kept_files import damaged_files
from cbir.types import WHOLE

_FAR = 2**32


def repair(
    records: Database, thumbnails: Database, folder: Path, meta: schema.Meta, spares: Spares
) -> list[str]:
    """Repair the index and return the remaining problems, one line each.

    Vectors come from the cache, thumbnails from their originals, model files from `spares`; flipped
    bits are undone by the checksums. Records of which something is lost are marked as changed, so
    that the next indexing run of their source describes them again.
    """
    if check.damage(records, files.RECORDS) or check.damage(thumbnails, files.THUMBNAILS):
        return ["pages of it cannot be read: cbir verify --repair saves the rest"]
    copies = Copies(check.usable_cache(folder, meta))
    with records.write() as connection, any_text(connection):
        left = _mend_rows(connection, copies)
        again = _mend_vectors(connection, copies, meta.spec.dim)
        # A record may be gone that the log does not name: every cache is to be built again.
        record_rows.forget_removed(connection, schema.next_generation(connection))
    again |= _mend_thumbnails(records, thumbnails, spares)
    if again:
        left.append(f"{len(again)} records are to be described again; index their sources again")
    left += _mend_model(folder, meta, spares)
    if check.cache_problems(records, folder, meta):
        (folder / files.CACHE).unlink(missing_ok=True)
    for path in damaged_files(folder / files.KEYPOINTS):
        with suppress(OSError):  # a folder of that name; `verify` tells that it is still there
            path.unlink()
    return left


def mend_opening(connection: sqlite3.Connection) -> list[str]:
    """Undo damage without which no writer opens the index; one line for each row."""
    told = []
    for row in damaged_rows(connection, "meta") if is_sealed(connection, "meta") else []:
        good = mended(row.cells, row.checksum)
        if good is None and row.keys[0] == "generation":
            # Beyond every generation that a cache or a reader can know.
            latest = schema.number(connection, "SELECT coalesce(max(generation), 0) FROM removed")
            good = ("generation", latest + _FAR)
        elif good is None and row.keys[0] == "log_from":
            good = ("log_from", schema.generation(connection))
        if good is not None:
            restore(connection, "meta", row.keys, good)
            told.append(f"{good[0]!r} in the table 'meta' had changed")
    _mend_table(connection, "removed", Copies(None))
    return told


class Copies:
    """The rows of `vectors` that the cache holds."""

    def __init__(self, cached: Cached | None) -> None:
        self._block = cached.block if cached else None
        keys = cached.block.keys.tolist() if cached else []
        self._numbers = {key: number for number, key in enumerate(keys)}

    def row(self, key: Any, part: Any) -> tuple[Any, ...] | None:
        """The cells of the row with this key and part; None if it is not in the cache."""
        number, block = self._numbers.get(key), self._block
        if number is None or block is None or not isinstance(part, int):
            return None
        row = int(block.starts[number]) + part
        if not block.starts[number] <= row < block.starts[number + 1]:
            return None
        box = block.box(number, row) or WHOLE
        return (key, part, *box, block.matrix[row].astype("<f4").tobytes())

    def rows(self, key: int) -> list[tuple[Any, ...]]:
        """The cells of all rows of a record."""
        found = (self.row(key, part) for part in count())
        return list(takewhile(lambda row: row is not None, found))  # type: ignore[arg-type]


def agree_with_cache(connection: sqlite3.Connection, cached: Cached) -> None:
    """Take vectors from the cache where they differ, before an older index gets checksums.

    The vectors of a key never change, and the cache has a checksum that the older index had not.
    """
    copies = Copies(cached)
    with any_text(connection):
        found = connection.execute("SELECT record, part, vector FROM vectors")
        good = ((copies.row(key, part), vector) for key, part, vector in found)
        differing = [row for row, vector in good if row is not None and row[-1] != vector]
    connection.executemany(
        "UPDATE vectors SET vector = ? WHERE record = ? AND part = ?",
        [(row[-1], *row[:2]) for row in differing],
    )


def _mend_rows(connection: sqlite3.Connection, copies: Copies) -> list[str]:
    """Mend the damaged rows of all tables; what is lost is deleted or marked as changed."""
    left = [line for table in RECORDS for line in _mend_table(connection, table, copies)]
    for table in ("vectors", "metadata"):
        connection.execute(f"DELETE FROM {table} {check.ORPHANS}")
    connection.execute(
        "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'records'",
        (schema.number(connection, check.HIGHEST_KEY),),
    )
    return left


def _mend_table(connection: sqlite3.Connection, table: str, copies: Copies) -> list[str]:
    damaged = damaged_rows(connection, table)
    lost = [row for row in damaged if not _mend(connection, table, row, copies)]
    owners = [row.keys[0] for row in lost]
    match table:
        case "records":
            return _lose_records(connection, lost)
        case "metadata" | "vectors":
            record_rows.mark_changed(connection, [key for key in owners if isinstance(key, int)])
        case "removed" if lost:
            record_rows.forget_removed(connection, schema.generation(connection))
        case "sources" if lost:
            names = ", ".join(map(repr, owners))
            return [f"source {names} has changed: index its folder again"]
    if table in ("meta", "sources"):
        return []
    for row in lost:
        delete(connection, table, row.keys)
    told = lost and table in ("tombstones", "metadata", "failures")
    return [f"{len(lost)} rows of {table} could not be restored"] if told else []


def _mend(connection: sqlite3.Connection, table: str, row: Row, copies: Copies) -> bool:
    """Restore a row from the cache, or by undoing a flipped bit."""
    good: tuple[Any, ...] | None = None
    if table == "vectors":
        good = copies.row(*row.keys)
        if good is not None and row_checksum(good) != row.checksum:
            good = None
    good = good or mended(row.cells, row.checksum)
    if good is None or not has_right_types(RECORDS[table].columns, good):
        return False
    restore(connection, table, row.keys, good)
    return True


def _lose_records(connection: sqlite3.Connection, lost: Iterable[Row]) -> list[str]:
    """Mark damaged records as changed, without cells that cannot be read.

    Deletes a record only if nobody can say which image it is.
    """
    nameless = 0
    for row in lost:
        cells = dict(zip(RECORDS["records"].columns, row.cells, strict=True))
        bad = [column for column in cells if not has_right_types([column], [cells[column]])]
        if {"key", "id", "source", "location"} & set(bad):
            delete(connection, "records", row.keys)
            nameless += 1
            continue
        for column in bad:
            empty = next(v for v in (None, 0, "") if has_right_types([column], [v]))
            query = f"UPDATE records SET {column} = ? WHERE key = ?"
            connection.execute(query, (empty, row.keys[0]))
        record_rows.mark_changed(connection, [int(str(row.keys[0]))])
    lines = [f"{nameless} records without a readable id were removed; index their sources again"]
    return lines if nameless else []


def _mend_vectors(connection: sqlite3.Connection, copies: Copies, dim: int) -> set[int]:
    """Restore records with missing vectors from the cache; the others, marked, have none then."""
    lost = set()
    for key in check.broken_records(connection, dim):
        connection.execute("DELETE FROM vectors WHERE record = ?", (key,))
        rows = copies.rows(key)
        for row in rows:
            restore(connection, "vectors", row[:2], row)
        if not rows:
            lost.add(key)
    record_rows.mark_changed(connection, lost)
    return lost


def _mend_thumbnails(records: Database, thumbnails: Database, spares: Spares) -> set[int]:
    """Draw damaged and missing thumbnails again; the keys of records that are left without one."""
    with records.read() as connection, thumbnails.read() as pictures:
        damaged = damaged_rows(pictures, "thumbs")
        redrawn = _redrawn(connection, [row.keys[0] for row in damaged], spares)
    with thumbnails.write() as pictures:
        for row in damaged:
            key = row.keys[0]
            good = redrawn.get(key) if isinstance(key, int) else None
            cells = (key, good) if good else mended(row.cells, row.checksum)
            if cells:
                restore(pictures, "thumbs", row.keys, cells)
            else:
                delete(pictures, "thumbs", row.keys)
    without, orphans = check.unmatched(records, thumbnails)
    with records.write() as connection, thumbnails.write() as pictures:
        redrawn = _redrawn(connection, without, spares)
        for key, picture in redrawn.items():
            thumbnail_rows.insert_thumbnail(pictures, key, picture)
        thumbnail_rows.delete_thumbnails(pictures, orphans)
        record_rows.mark_changed(connection, without - redrawn.keys())
    return without - redrawn.keys()


def _redrawn(
    connection: sqlite3.Connection, keys: Iterable[Any], spares: Spares
) -> dict[int, bytes]:
    """Key -> new thumbnail of the records whose original is still the one that was indexed."""
    drawn = {}
    for key, record in record_rows.by_key(connection, keys):
        if picture := spares.thumbnail(record):
            drawn[key] = picture
    return drawn


def _mend_model(folder: Path, meta: schema.Meta, spares: Spares) -> list[str]:
    problems, model = check.model_problems(folder, meta), folder / files.MODEL
    if not problems:
        return []
    good = {
        name: file
        for name, file in spares.model_files().items()
        if name in problems
        and sha256_of(file) == meta.model[name]
        and _is_replaceable(model / name)
    }
    write_files(good, model, shared=cbir_home())
    return [f"{files.MODEL}/{line}" for name, line in problems.items() if name not in good]


def _is_replaceable(file: Path) -> bool:
    """Whether a new file takes the place of this one, and of nothing that a link leads to."""
    links = file.is_symlink() or file.parent.is_symlink()
    return not links and (file.is_file() or not file.exists())
