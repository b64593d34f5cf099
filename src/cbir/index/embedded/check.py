"""Checks and repairs an embedded index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from cbir.errors import IndexStateError
from cbir.files import sha256_of
from cbir.index.embedded import cache, record_rows, schema, thumbnail_rows
from cbir.index.embedded import folder as files
from cbir.index.embedded.block import read_block
from cbir.index.embedded.sqlite import Database
from cbir.types import UNIT_TOLERANCE

_ROWS_AT_ONCE = 4096
_ORPHANS = "WHERE record NOT IN (SELECT key FROM records)"


def check(records: Database, thumbnails: Database, folder: Path, meta: schema.Meta) -> list[str]:
    """The problems of the index in `folder`, one line each."""
    problems = _damage(records, files.RECORDS)
    if problems:  # its content cannot be trusted
        return problems + _model_problems(folder, meta)
    with records.read() as connection:
        problems += _vector_problems(connection, meta.spec.dim)
        sound = not problems
        problems += _orphan_problems(connection)
    problems += _damage(thumbnails, files.THUMBNAILS) or _thumbnail_problems(records, thumbnails)
    problems += _model_problems(folder, meta)
    if sound:
        problems += _cache_problems(records, folder, meta)
    return problems


def repair(records: Database, thumbnails: Database, folder: Path, meta: schema.Meta) -> list[str]:
    """Repair the index and return the remaining problems, one line each.

    Removes records with damaged vectors and the search cache, and marks records without a
    thumbnail as changed. The next indexing run of their source adds both kinds again.
    """
    if is_damaged(records):
        with records.write() as connection:
            connection.execute("REINDEX")
        if is_damaged(records):
            return [f"{files.RECORDS} cannot be repaired; index the sources again elsewhere"]
    left = _model_problems(folder, meta)
    with records.write() as connection:
        broken = _broken_records(connection, meta.spec.dim)
        record_rows.delete(connection, broken)
        for table in ("vectors", "metadata"):
            connection.execute(f"DELETE FROM {table} {_ORPHANS}")
    if damage := _damage(thumbnails, files.THUMBNAILS):
        left += [f"{line}; delete {files.THUMBNAILS} and repair again" for line in damage]
    else:
        left += _mend_thumbnails(records, thumbnails)
    if broken:
        left.append(f"{len(broken)} records were removed; index their sources again")
    (folder / files.CACHE).unlink(missing_ok=True)
    return left


def is_damaged(records: Database) -> bool:
    """Whether the records database itself is damaged."""
    return bool(_damage(records, files.RECORDS))


def _broken_records(connection: sqlite3.Connection, dim: int) -> list[int]:
    """Keys of records with missing, misnumbered, wrongly sized or non-unit vectors."""
    structural = connection.execute(
        "SELECT key FROM records WHERE key NOT IN (SELECT record FROM vectors) "
        "UNION SELECT record FROM vectors GROUP BY record "
        "HAVING min(part) != 0 OR max(part) != count(*) - 1 OR min(length(vector)) != ? "
        "OR max(length(vector)) != ?",
        (4 * dim, 4 * dim),
    )
    broken = {key for (key,) in structural}
    cursor = connection.execute(
        "SELECT record, vector FROM vectors WHERE length(vector) = ?", (4 * dim,)
    )
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4").reshape(-1, dim)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        off = ~(np.abs(norms - 1) <= UNIT_TOLERANCE)  # also true for NaN
        broken.update(rows[number][0] for number in np.flatnonzero(off).tolist())
    return sorted(broken)


def _damage(database: Database, name: str) -> list[str]:
    try:
        with database.read() as connection:
            lines = [line for (line,) in connection.execute("PRAGMA integrity_check(3)")]
    except IndexStateError as error:
        return [error.message]
    return [] if lines == ["ok"] else [f"{name}: {' '.join(line.split())}" for line in lines]


def _vector_problems(connection: sqlite3.Connection, dim: int) -> list[str]:
    broken = _broken_records(connection, dim)
    if not broken:
        return []
    named = connection.execute("SELECT id FROM records WHERE key = ?", (broken[0],)).fetchone()
    first = named[0] if named else f"number {broken[0]}"
    return [f"{len(broken)} records have missing or damaged vectors, starting with {first}"]


def _orphan_problems(connection: sqlite3.Connection) -> list[str]:
    counts = {
        table: schema.number(connection, f"SELECT count(*) FROM {table} {_ORPHANS}")
        for table in ("vectors", "metadata")
    }
    return [f"{n} rows of {table} belong to no record" for table, n in counts.items() if n]


def _thumbnail_problems(records: Database, thumbnails: Database) -> list[str]:
    without, orphans = _unmatched(records, thumbnails)
    problems = []
    if without:
        problems.append(f"{len(without)} records have no thumbnail")
    if orphans:
        problems.append(f"{len(orphans)} thumbnails belong to no record")
    return problems


def _unmatched(records: Database, thumbnails: Database) -> tuple[set[int], set[int]]:
    """The keys of records without a thumbnail and of thumbnails without a record."""
    with records.read() as connection, thumbnails.read() as pictures:
        recorded = {key for (key,) in connection.execute("SELECT key FROM records")}
        pictured = {key for (key,) in pictures.execute("SELECT key FROM thumbs")}
    return recorded - pictured, pictured - recorded


def _mend_thumbnails(records: Database, thumbnails: Database) -> list[str]:
    without, orphans = _unmatched(records, thumbnails)
    with thumbnails.write() as connection:
        thumbnail_rows.delete_thumbnails(connection, orphans)
    if not without:
        return []
    with records.write() as connection:
        record_rows.mark_changed(connection, without)
    return [f"{len(without)} records have no thumbnail; index their sources again"]


def _model_problems(folder: Path, meta: schema.Meta) -> list[str]:
    problems = []
    for name, digest in meta.model.items():
        path = folder / files.MODEL / name
        if not path.is_file():
            problems.append(f"{files.MODEL}/{name} is missing")
        elif sha256_of(path) != digest:
            problems.append(f"{files.MODEL}/{name} has changed: its checksum is wrong")
    return problems


def _cache_problems(records: Database, folder: Path, meta: schema.Meta) -> list[str]:
    if not (folder / files.CACHE).exists():
        return []  # it is built on demand
    try:
        cached = cache.read(folder / files.CACHE, meta.index_id, meta.spec.dim)
    except cache.UnusableCacheError as error:
        return [f"{files.CACHE}: {error}"]
    with records.read() as connection:
        generation = schema.generation(connection)
        truth = read_block(connection, meta.spec.dim)
    if cached.generation > generation:
        return [f"{files.CACHE}: it is newer than the records"]
    block = cached.block
    kept = np.flatnonzero(np.isin(block.keys, truth.keys))
    covered = np.isin(truth.keys, block.keys)
    old = np.flatnonzero(covered)
    ours, theirs = block.select(kept), truth.select(old)
    same = (
        bool(np.all(truth.keys[~covered] > cached.max_key))
        and np.array_equal(block.keys[kept], truth.keys[old])
        and [block.ids.raw(n) for n in kept.tolist()] == [truth.ids.raw(n) for n in old.tolist()]
        and np.array_equal(ours.starts, theirs.starts)
        and np.array_equal(ours.matrix, theirs.matrix)
        and np.array_equal(block.inner_boxes(kept), truth.inner_boxes(old))
    )
    return [] if same else [f"{files.CACHE}: it does not match the records"]
