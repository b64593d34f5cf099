"""An index of format 1 or 2 is read as it is, and migrated by a writer (see tests/fixtures)."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cbir.index.base import Entry, SourceRun
from cbir.index.embedded import schema
from cbir.index.open import mend, open_index
from cbir.ingest.copy import copy_index
from tests.index.embedded.support_index import made_index, python

FIXTURES = Path(__file__).parents[2] / "fixtures"
STORED = {1: FIXTURES / "embedded", 2: FIXTURES / "embedded-2"}
DIM = 23
DIES_BETWEEN_THE_FILES = """
import os, signal, sys
from cbir.index.embedded.index import EmbeddedIndex
from cbir.index.open import open_index
EmbeddedIndex._tidy = lambda self: os.kill(os.getpid(), signal.SIGKILL)
open_index(sys.argv[1], write=True)
"""


@pytest.fixture(params=STORED)
def old(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def place(old: int, tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED[old], tmp_path / "old.cbir"))


def format_of(place: Path) -> int:
    with closing(sqlite3.connect(place / "index.sqlite")) as connection:
        return int(connection.execute("SELECT value FROM meta WHERE name='format'").fetchone()[0])


def change(place: Path, statement: str) -> None:
    with closing(sqlite3.connect(place / "index.sqlite")) as connection, connection:
        connection.execute(statement)


def columns(place: Path) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    for file in ("index.sqlite", "thumbs.sqlite"):
        with closing(sqlite3.connect(place / file)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            for (table,) in tables.fetchall():
                found[table] = connection.execute(f"PRAGMA table_info({table})").fetchall()
    return found


def entries(place: Path) -> list[Entry]:
    with closing(open_index(place)) as index:
        return list(index.entries())


def same(one: list[Entry], other: list[Entry]) -> bool:
    return len(one) == len(other) and all(
        mine.record == theirs.record
        and mine.thumbnail == theirs.thumbnail
        and mine.boxes == theirs.boxes
        and np.array_equal(mine.vectors, theirs.vectors)
        for mine, theirs in zip(one, other, strict=True)
    )


def test_a_reader_takes_an_older_format_as_it_is(place: Path, old: int) -> None:
    with closing(open_index(place)) as index:
        assert (index.runs(), index.tombstones()) == ({}, {})
        assert index.info()["kept_out"] == 0
        record = index.records(["photos/dots/1.png"])[0]
        assert (record.stamp, record.decoder, record.phash) == (None, 0, None)
        assert record.metadata == {"year": 2005, "place": "Genève"}
        assert record.given == {"year", "place"}
        stamp = index.stamps("photos")[record.id]
        assert stamp.file == (record.file_size, record.mtime_ns, None, 0)
        assert sum(map(len, index.contents(5).values())) == 12
        assert index.verify() == []
    assert format_of(place) == old


def test_a_writer_migrates_and_changes_nothing_else(place: Path, tmp_path: Path) -> None:
    before = entries(place)
    assert len(before) == 12 and all(entry.thumbnail for entry in before)
    with closing(open_index(place)) as reader:  # goes on while the index is migrated
        seen = reader.records([before[0].record.id])
        open_index(place, write=True).close()
        assert reader.records([before[0].record.id]) == seen
        assert reader.runs() == {}
    assert format_of(place) == schema.FORMAT
    assert columns(place) == columns(made_index(tmp_path / "new.cbir"))
    assert same(entries(place), before)
    with closing(open_index(place, write=True)) as index:
        assert index.verify() == []
        index.set_run("photos", SourceRun(17, finished=True))
        index.add(before[:1])
        assert index.runs() == {"photos": SourceRun(17, finished=True)}
    assert same(entries(place), before)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_kill_between_the_two_files_costs_nothing(place: Path, old: int, tmp_path: Path) -> None:
    before = entries(place)
    assert python(DIES_BETWEEN_THE_FILES, place).returncode == -signal.SIGKILL
    assert format_of(place) == schema.FORMAT
    new = columns(made_index(tmp_path / "new.cbir"))
    assert (columns(place)["thumbs"] != new["thumbs"]) == (old == 1)
    assert same(entries(place), before)
    open_index(place, write=True).close()
    assert columns(place) == new
    assert same(entries(place), before)


def test_a_copy_of_an_older_format_is_complete(place: Path, old: int, tmp_path: Path) -> None:
    assert copy_index(str(place), str(tmp_path / "copy.cbir")).copied == 12
    assert same(entries(tmp_path / "copy.cbir"), entries(place))
    assert format_of(place) == old


def test_fields_of_an_older_format_are_told_by_their_names(place: Path) -> None:
    with closing(sqlite3.connect(place / "index.sqlite")) as connection, connection:
        connection.execute("UPDATE metadata SET name = 'lens' WHERE name = 'place'")
    with closing(open_index(place)) as index:
        assert index.records(["photos/dots/1.png"])[0].given == {"year"}
    with closing(open_index(place, write=True)) as index:
        assert index.records(["photos/dots/1.png"])[0].given == {"year"}
        assert index.stamps("photos")["photos/dots/1.png"].given == {"year"}
        assert index.verify() == []


def test_damage_before_there_were_checksums_is_undone_from_the_cache(place: Path) -> None:
    before = entries(place)
    with closing(sqlite3.connect(place / "index.sqlite")) as connection, connection:
        key, vector = connection.execute("SELECT rowid, vector FROM vectors LIMIT 1").fetchone()
        flipped = bytes([*vector[:3], vector[3] ^ 0x80]) + vector[4:]
        connection.execute("UPDATE vectors SET vector = ? WHERE rowid = ?", (flipped, key))
    with closing(open_index(place)) as index:
        assert index.verify() == [
            "vectors differ from those in vectors.cache, whose checksum is right"
        ]
    with closing(open_index(place, write=True)) as index:
        assert index.verify() == []
    assert same(entries(place), before)


@pytest.mark.parametrize("column", ["vector", "part"])
def test_text_in_the_place_of_a_vector_does_not_keep_the_index_from_opening(
    column: str, place: Path
) -> None:
    before = entries(place)
    change(place, f"UPDATE vectors SET {column} = CAST(x'ff' AS TEXT) WHERE rowid = 1")
    with closing(open_index(place, write=True)) as index:
        index.verify(repair=True)
        assert index.verify() == []
    for mine, theirs in zip(entries(place), before, strict=True):
        assert np.array_equal(mine.vectors, theirs.vectors)


def test_a_damaged_log_of_an_older_format_is_repaired(place: Path) -> None:
    before = entries(place)
    change(place, "INSERT INTO removed VALUES (1, 'text')")
    assert mend(str(place)) == []
    with closing(open_index(place, write=True)) as index:
        assert index.verify(repair=True) == []
    assert same(entries(place), before)


def test_a_cache_that_is_newer_than_a_restored_database_changes_no_vector(place: Path) -> None:
    before = entries(place)
    change(place, "UPDATE meta SET value = value + 9 WHERE name = 'generation'")
    change(place, f"UPDATE vectors SET vector = zeroblob({4 * DIM}) WHERE rowid = 1")
    (place / "vectors.cache").unlink()
    with closing(open_index(place)) as index:
        index.search(np.ones((1, DIM), np.float32) / DIM**0.5, 1)  # writes a cache
    change(place, "UPDATE meta SET value = value - 9 WHERE name = 'generation'")
    vector = before[0].vectors[0].astype("<f4").tobytes().hex()
    change(place, f"UPDATE vectors SET vector = x'{vector}' WHERE rowid = 1")
    open_index(place, write=True).close()
    assert same(entries(place), before)
