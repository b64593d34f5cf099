"""Files called `index.sqlite` in a folder of pictures, made to keep whoever looks at them busy."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cbir.foreign_sqlite import table_names
from cbir.images.folders import is_index

PAGE = 4096
OURS = "CREATE TABLE meta (a); CREATE TABLE records (a); CREATE TABLE vectors (a);"


def made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size={PAGE}")
        database.executescript(OURS)
        database.execute("PRAGMA writable_schema=ON")
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


def without_end(path: Path) -> Path:
    """A file whose list of tables is a tree of 15 levels, of which each node has 400 times the same
    child: 400^15 rows."""
    made(path)
    head = path.read_bytes()[:100]
    levels = 15

    def node(number: int) -> bytes:
        start = 100 if number == 1 else 0
        cells, child = 400, (number + 1).to_bytes(4)
        content = PAGE - 5 * cells
        page = bytearray(head if number == 1 else b"") + b"\5\0\0" + cells.to_bytes(2)
        page += content.to_bytes(2) + b"\0" + child
        page += b"".join((PAGE - 5 * (n + 1)).to_bytes(2) for n in range(cells))
        assert len(page) <= content and len(page) == start + 12 + 2 * cells
        return bytes(page).ljust(content, b"\0") + (child + b"\1") * cells

    # An index without a statement, which SQLite passes over.
    row = bytes([6, 0x17, 0x0F, 0x0F, 1, 0]) + b"indexab" + b"\2"
    cell = bytes([len(row), 1]) + row
    leaf = b"\x0d\0\0\0\1" + (PAGE - len(cell)).to_bytes(2) + b"\0"
    leaf += (PAGE - len(cell)).to_bytes(2)
    pages = [node(number) for number in range(1, levels + 1)]
    pages.append(leaf.ljust(PAGE - len(cell), b"\0") + cell)
    head = head[:28] + len(pages).to_bytes(4) + head[32:]
    pages[0] = head + pages[0][100:]
    path.write_bytes(b"".join(pages))
    return path


def test_tables_are_named_and_nothing_is_made_beside_the_file(tmp_path: Path) -> None:
    path = made(tmp_path / "index.sqlite")
    assert table_names(path) == {"meta", "records", "vectors"}
    assert is_index(str(tmp_path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "statements",
    [
        [
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
            "INSERT INTO sqlite_master SELECT 'index', 'i' || i, 'x', 2, NULL FROM n"
        ],
        [f"CREATE TABLE long (a /* {'x' * 100_000} */)"],
        ["UPDATE sqlite_master SET sql = 'CREATE TABLE other (a)' WHERE name = 'meta'"],
    ],
    ids=["many", "long", "damaged"],
)
def test_what_has_more_than_a_few_tables_is_no_index(tmp_path: Path, statements: list[str]) -> None:
    made(tmp_path / "index.sqlite", *statements)
    assert not is_index(str(tmp_path))


def test_a_tree_without_end_is_left_soon(tmp_path: Path) -> None:
    without_end(tmp_path / "index.sqlite")
    code = f"from cbir.images.folders import is_index; print(is_index({str(tmp_path)!r}))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert answer.stdout == "False\n"


def test_what_is_no_database_is_no_index(tmp_path: Path) -> None:
    for content in (b"", b"of a photo manager", b"SQLite format 3\0" + bytes(5000)):
        (tmp_path / "index.sqlite").write_bytes(content)
        assert not is_index(str(tmp_path))
