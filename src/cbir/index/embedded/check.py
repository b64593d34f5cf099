"""Finds the damage of an embedded index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from cbir.errors import IndexStateError
from cbir.files import model_faults, sha256_of
from cbir.index.embedded import cache, record_rows, schema
from cbir.index.embedded import folder as files
from cbir.index.embedded.block import read_block
from cbir.index.embedded.cache import Cached
from cbir.index.embedded.checksums import RECORDS, any_text, damaged_rows
from cbir.index.embedded.sqlite import Database
from cbir.index.kept_files import damaged_files
from cbir.types import UNIT_TOLERANCE
from cbir.wording import counted

_ROWS_AT_ONCE = 4096
ORPHANS = "WHERE record NOT IN (SELECT key FROM records)"


def check(records: Database, thumbnails: Database, folder: Path, meta: schema.Meta) -> list[str]:
    """The problems of the index in `folder`, one line each."""
    problems = damage(records, files.RECORDS)
    if problems:  # its content cannot be trusted
        return problems + _model_lines(folder, meta)
    with records.read() as connection, any_text(connection):
        broken = broken_records(connection, meta.spec.dim)
        problems += _vector_problems(connection, broken)
        problems += _row_problems(connection)
        problems += _orphan_problems(connection) + _source_problems(connection)
        problems += _key_problems(connection)
    problems += damage(thumbnails, files.THUMBNAILS) or _thumbnail_problems(records, thumbnails)
    problems += _model_lines(folder, meta) + _keypoint_problems(folder)
    if not broken:
        problems += cache_problems(records, folder, meta)
    return problems


def damage(database: Database, name: str) -> list[str]:
    """What SQLite itself finds wrong with the file."""
    try:
        with database.read() as connection:
            lines = [line for (line,) in connection.execute("PRAGMA integrity_check(3)")]
    except IndexStateError as error:
        return [error.message]
    return [] if lines == ["ok"] else [f"{name}: {' '.join(line.split())}" for line in lines]


def broken_records(connection: sqlite3.Connection, dim: int) -> list[int]:
    """Keys of records with missing, misnumbered, wrongly sized, changed or non-unit vectors."""
    structural = connection.execute(
        "SELECT key FROM records WHERE key NOT IN (SELECT record FROM vectors) "
        "UNION SELECT record FROM vectors GROUP BY record "
        "HAVING min(part) != 0 OR max(part) != count(*) - 1 OR min(length(vector)) != ?1 "
        "OR max(length(vector)) != ?1",
        (4 * dim,),
    )
    broken = {key for (key,) in structural}
    owners = (row.keys[0] for row in damaged_rows(connection, "vectors"))
    broken.update(key for key in owners if isinstance(key, int))
    cursor = connection.execute(
        "SELECT record, vector FROM vectors WHERE typeof(vector) = 'blob' AND length(vector) = ?",
        (4 * dim,),
    )
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4").reshape(-1, dim)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        off = ~(np.abs(norms - 1) <= UNIT_TOLERANCE)  # also true for NaN
        broken.update(rows[number][0] for number in np.flatnonzero(off).tolist())
    return sorted(broken)


def unmatched(records: Database, thumbnails: Database) -> tuple[set[int], set[int]]:
    """The keys of records without a thumbnail and of thumbnails without a record."""
    with records.read() as connection, thumbnails.read() as pictures:
        recorded = {key for (key,) in connection.execute("SELECT key FROM records")}
        pictured = {key for (key,) in pictures.execute("SELECT key FROM thumbs")}
    return recorded - pictured, pictured - recorded


def model_problems(folder: Path, meta: schema.Meta) -> dict[str, str]:
    """Name of each model file that is missing or damaged -> what is wrong."""
    faults = model_faults(folder / files.MODEL, meta.model)
    for name, digest in meta.model.items():
        if name not in faults and sha256_of(folder / files.MODEL / name) != digest:
            faults[name] = "has changed: its checksum is wrong"
    return {name: f"{name} {fault}" for name, fault in faults.items()}


def _model_lines(folder: Path, meta: schema.Meta) -> list[str]:
    return [f"{files.MODEL}/{line}" for line in model_problems(folder, meta).values()]


def _keypoint_problems(folder: Path) -> list[str]:
    damaged = len(damaged_files(folder / files.KEYPOINTS))
    return [f"{files.KEYPOINTS}: {counted(damaged, 'file')} damaged"] if damaged else []


def cache_problems(records: Database, folder: Path, meta: schema.Meta) -> list[str]:
    """What is wrong with the vector cache, beside records whose vectors are sound."""
    if not (folder / files.CACHE).exists():
        return []  # it is built on demand
    try:
        cached = cache.read(folder / files.CACHE, meta.index_id, meta.spec.dim)
        with records.read() as connection, any_text(connection):
            generation = schema.generation(connection)
            truth = read_block(connection, meta.spec.dim)
            last = schema.last_key(connection)
            is_logged = schema.log_from(connection) <= cached.generation
            removed = record_rows.removed_since(connection, cached.generation)
    except cache.UnusableCacheError as error:
        return [f"{files.CACHE}: {error}"]
    except IndexStateError:
        return []  # damaged records, which are named already
    if cached.generation > generation:
        return [f"{files.CACHE}: it is newer than the records"]
    if cached.max_key > last:
        return [f"{files.CACHE}: it has a key that was never given"]
    block = cached.block
    kept = np.flatnonzero(np.isin(block.keys, truth.keys))
    gone = set(block.keys.tolist()).difference(truth.keys.tolist())
    if is_logged and not gone.issubset(removed):
        return [f"{files.CACHE}: it has records that are gone"]
    covered = np.isin(truth.keys, block.keys)
    old = np.flatnonzero(covered)
    ours, theirs = block.select(kept), truth.select(old)
    if meta.format < schema.SEALED_SINCE and not np.array_equal(ours.matrix, theirs.matrix):
        return [f"vectors differ from those in {files.CACHE}, whose checksum is right"]
    same = (
        bool(np.all(truth.keys[~covered] > cached.max_key))
        and np.array_equal(block.keys[kept], truth.keys[old])
        and [block.ids.raw(n) for n in kept.tolist()] == [truth.ids.raw(n) for n in old.tolist()]
        and np.array_equal(ours.starts, theirs.starts)
        and np.array_equal(ours.matrix, theirs.matrix)
        and np.array_equal(block.inner_boxes(kept), truth.inner_boxes(old))
    )
    return [] if same else [f"{files.CACHE}: it does not match the records"]


def usable_cache(folder: Path, meta: schema.Meta) -> Cached | None:
    """The vector cache, if its checksums are right."""
    try:
        return cache.read(folder / files.CACHE, meta.index_id, meta.spec.dim)
    except cache.UnusableCacheError:
        return None


def _vector_problems(connection: sqlite3.Connection, broken: list[int]) -> list[str]:
    if not broken:
        return []
    named = connection.execute("SELECT id FROM records WHERE key = ?", (broken[0],)).fetchone()
    first = named[0] if named else f"number {broken[0]}"
    return [f"{len(broken)} records have missing or damaged vectors, starting with {first}"]


def _row_problems(connection: sqlite3.Connection) -> list[str]:
    problems = []
    for table in RECORDS:
        damaged = [] if table == "vectors" else damaged_rows(connection, table)
        if damaged:
            first = " ".join(map(str, damaged[0].cells[:2]))
            rows = counted(len(damaged), "row")
            problems.append(f"{rows} of {table} changed outside of cbir, starting with {first!r}")
    return problems


def _orphan_problems(connection: sqlite3.Connection) -> list[str]:
    counts = {
        table: schema.number(connection, f"SELECT count(*) FROM {table} {ORPHANS}")
        for table in ("vectors", "metadata")
    }
    return [f"{n} rows of {table} belong to no record" for table, n in counts.items() if n]


def _source_problems(connection: sqlite3.Connection) -> list[str]:
    if not connection.execute("SELECT 1 FROM meta WHERE name = 'registered'").fetchone():
        return []  # its records come from no folder, as in a test of an engine
    rows = connection.execute(
        "SELECT source, count(*) FROM records WHERE source NOT IN (SELECT name FROM sources) "
        "GROUP BY source"
    )
    return [
        f"{counted(count, 'record')} of source '{name}', which is not registered: "
        "index its folder again"
        for name, count in rows
    ]


def _key_problems(connection: sqlite3.Connection) -> list[str]:
    highest = schema.number(connection, HIGHEST_KEY)
    return [] if schema.last_key(connection) >= highest else ["the last key is lower than others"]


HIGHEST_KEY = (
    "SELECT coalesce(max(key), 0) FROM "
    "(SELECT max(key) AS key FROM records UNION ALL SELECT max(key) FROM removed)"
)
"""The highest key in use; it may not be above the last key that was given."""


def _thumbnail_problems(records: Database, thumbnails: Database) -> list[str]:
    without, _ = unmatched(records, thumbnails)
    problems = [f"{len(without)} records have no thumbnail"] if without else []
    with thumbnails.read() as connection:
        damaged = damaged_rows(connection, "thumbs")
    return problems + ([f"{len(damaged)} thumbnails have changed"] if damaged else [])
