"""An embedded index from a stranger: made by hand, with what cbir never writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from cbir.errors import IndexStateError
from cbir.index.embedded import schema
from cbir.index.embedded.checksums import row_checksum
from cbir.index.embedded.sqlite import Database
from cbir.index.open import create_index, mend, open_index
from cbir.testing import sample_entries
from tests.index.embedded.support_index import SPEC, made_index

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return made_index(tmp_path / "odd.cbir", sample_entries(5))


def change(place: Path, *statements: str, file: str = "index.sqlite") -> None:
    with closing(sqlite3.connect(place / file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TRIGGER t AFTER DELETE ON records BEGIN DELETE FROM records; END"],
        ["CREATE TRIGGER records AFTER DELETE ON records BEGIN DELETE FROM vectors; END"],
        ["DROP TABLE failures", f"CREATE VIEW failures AS {ENDLESS}"],
        ["ALTER TABLE meta RENAME TO other", "CREATE VIEW meta AS SELECT * FROM other"],
        ["CREATE TABLE notes (text)"],
        ["CREATE INDEX by_label ON records (label)"],
        ["ALTER TABLE records ADD COLUMN twice AS (key * 2)"],
        ["DROP TABLE failures", "CREATE TABLE failures (source, location, reason CHECK (0))"],
        ["ALTER TABLE meta ADD COLUMN more", "CREATE TABLE notes (text)"],
        ["CREATE VIEW notes AS SELECT 1", "UPDATE meta SET value = 'two' WHERE name = 'format'"],
    ],
)
def test_other_tables_than_those_of_the_format_are_refused(
    place: Path, statements: list[str]
) -> None:
    change(place, *statements)
    with pytest.raises(IndexStateError, match=r"index\.sqlite is not an index of cbir"):
        open_index(place)
    with pytest.raises(IndexStateError, match=r"index\.sqlite is not an index of cbir"):
        open_index(place, write=True)
    with pytest.raises(IndexStateError, match=r"index\.sqlite is not an index of cbir"):
        create_index(str(place), SPEC, {})
    with pytest.raises(IndexStateError, match=r"index\.sqlite is not an index of cbir"):
        mend(str(place))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER DELETE ON thumbs BEGIN DELETE FROM thumbs; END",
        "CREATE TABLE more (picture)",
        "ALTER TABLE thumbs ADD COLUMN twice AS (key * 2)",
    ],
)
def test_other_tables_of_thumbnails_are_refused(place: Path, statement: str) -> None:
    change(place, statement, file="thumbs.sqlite")
    with (
        closing(open_index(place)) as index,
        pytest.raises(IndexStateError, match=r"thumbs\.sqlite is not an index of cbir"),
    ):
        index.thumbnail(next(index.ids()))
    with pytest.raises(IndexStateError, match=r"thumbs\.sqlite is not an index of cbir"):
        open_index(place, write=True)
    (told,) = mend(str(place))
    assert "thumbs.sqlite could not be read; it is thumbs.sqlite.damaged-1 now" in told
    open_index(place, write=True).close()


@pytest.mark.parametrize("number", [1, 2])
def test_a_wrong_format_is_refused_in_one_line(place: Path, number: int) -> None:
    row = ("format", number)
    sealed = f"checksum = x'{row_checksum(row).hex()}'"
    change(place, f"UPDATE meta SET value = {number}, {sealed} WHERE name = 'format'")
    with pytest.raises(IndexStateError):
        open_index(place, write=True)


def test_no_row_of_a_view_is_salvaged(place: Path) -> None:
    """It could be an endless one."""
    change(place, "DROP TABLE failures", f"CREATE VIEW failures AS {ENDLESS}")
    data = bytearray((place / "index.sqlite").read_bytes())
    data[-4096:] = b"\xff" * 4096
    (place / "index.sqlite").write_bytes(data)
    with pytest.raises(IndexStateError, match=r"index\.sqlite is not an index of cbir"):
        mend(str(place))


def test_a_newer_format_is_named_as_such_whatever_its_tables(place: Path) -> None:
    change(place, "ALTER TABLE meta ADD COLUMN more", "CREATE TABLE more (a)")
    change(place, "UPDATE meta SET value = 99 WHERE name = 'format'")
    with pytest.raises(IndexStateError, match="has format 99"):
        open_index(place)


def test_a_file_is_opened_as_sqlite_advises_for_untrusted_ones(place: Path) -> None:
    for write in (False, True):
        database = Database(place / "index.sqlite", "odd", schema.check_tables, write=write)
        with closing(database), database.write() if write else database.read() as connection:
            said = [
                connection.execute(f"PRAGMA {pragma}").fetchone()[0]
                for pragma in ("trusted_schema", "cell_size_check", "mmap_size")
            ]
            assert said == [0, 1, 0]
            assert connection.getlimit(sqlite3.SQLITE_LIMIT_ATTACHED) == 0
            assert connection.getlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX does")
def test_ctrl_c_stops_a_long_statement(place: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from cbir.index.embedded import schema
from cbir.index.embedded.sqlite import Database
database = Database(Path(sys.argv[1]), "odd", schema.check_tables)
try:
    with database.read() as connection:
        print("begins", flush=True)
        connection.execute("{ENDLESS}")
except KeyboardInterrupt:
    print("stopped")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, place / "index.sqlite"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)  # it is inside the statement
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=20)[0] == "stopped\n"
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")
@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "name",
    ["index.sqlite-wal", "thumbs.sqlite", "vectors.cache", "writer.pid", "writer.lock", "model"],
)
def test_no_link_or_pipe_stands_for_a_file_of_the_index(
    place: Path, tmp_path: Path, name: str, write: bool
) -> None:
    """Opening for writing wrote a process id to where `writer.pid` led."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    odd = place / name
    if odd.is_dir():
        odd.rename(tmp_path / "moved")
    else:
        odd.unlink(missing_ok=True)
    odd.symlink_to(precious)
    with pytest.raises(IndexStateError, match=f"{name} is not a"):
        open_index(place, write=write)
    odd.unlink()
    os.mkfifo(odd)
    with pytest.raises(IndexStateError, match=f"{name} is not a"):
        open_index(place, write=write)
    assert precious.read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_creating_an_index_writes_through_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    place = tmp_path / "new.cbir"
    place.mkdir()
    (place / "writer.pid").symlink_to(precious)
    with pytest.raises(IndexStateError, match=r"writer\.pid is not a regular file"):
        create_index(str(place), SPEC, {})
    assert precious.read_text() == "mine"
