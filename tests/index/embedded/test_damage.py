"""Damage of an embedded index: it is found, undone where a good copy is, and never made worse."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hostile.bit_flips import (
    QUERY,
    TABLES,
    content,
    in_table,
    problems,
    repaired,
    write_index,
)
from cbir.errors import CbirError, IndexReplacedError, IndexStateError
from cbir.index.base import Detail, Spares
from cbir.index.embedded import salvage
from cbir.index.embedded.checksums import RECORDS, mended, row_checksum
from cbir.index.open import mend, open_index
from cbir.ingest.copy import copy_index
from cbir.testing import make_entry, sample_entries
from tests.index.embedded.support_index import MODEL, made_index, new_index

FLIPS = 100


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A small index with something in every table."""
    return write_index(tmp_path / "whole.cbir")


@pytest.mark.parametrize("table", TABLES)
def test_every_flipped_bit_is_found_and_undone(table: str, tmp_path: Path) -> None:
    found = list(in_table(table, FLIPS, tmp_path))
    assert [trial.problem for trial in found] == [""] * FLIPS


def change(folder: Path, statement: str, file: str = "index.sqlite") -> None:
    with closing(sqlite3.connect(folder / file)) as connection, connection:
        connection.execute(statement)


def test_a_changed_vector_comes_back_from_the_cache_or_is_described_again(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(5, parts=2))
    before = content(folder)
    cache = (folder / "vectors.cache").read_bytes()
    change(folder, "UPDATE vectors SET vector = randomblob(32) WHERE record = 2")
    assert problems(folder) == ["1 records have missing or damaged vectors, starting with a/0001"]
    with closing(open_index(folder, write=True)) as index:
        for use in (lambda: list(index.entries()), lambda: index.vectors("a/0001")):
            with pytest.raises(IndexStateError, match="a stored vector has changed"):
                use()
        assert index.verify(repair=True) and index.verify() == []
    assert content(folder) == before
    change(folder, "UPDATE vectors SET vector = randomblob(32) WHERE record = 2")
    (folder / "vectors.cache").write_bytes(cache[:-1])
    with closing(open_index(folder, write=True)) as index:
        told = index.verify(repair=True)
        assert told[-1] == (
            "not repaired: 1 records are to be described again; index their sources again"
        )
        stamp = index.stamps("a")["a/0001"]
        assert (stamp.content_hash, stamp.mtime_ns, index.count()) == ("", None, 5)
        assert len(index.search(QUERY, 9)[0].ids) == 4
        index.add([sample_entries(5, parts=2)[1]])
        assert index.verify() == []
    assert content(folder) == before


@pytest.mark.parametrize(
    "lost",
    [
        ["DELETE FROM records WHERE key = 2"],
        ["UPDATE records SET id = x'ff' WHERE key = 2"],
        [f"DELETE FROM {t} WHERE {c} = 2" for t, c in (("records", "key"), ("vectors", "record"))],
    ],
)
def test_no_search_finds_a_record_that_was_lost(lost: list[str], tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(5))
    with closing(open_index(folder)) as reader:
        assert len(reader.search(QUERY, 9)[0].ids) == 5
        for statement in lost:
            change(folder, statement)
        assert problems(folder)
        assert repaired(folder) == []
        with closing(open_index(folder)) as index:
            for one in (reader, index):
                assert one.search(QUERY, 9)[0].ids.count("a/0001") == 0
                assert len(one.records(one.search(QUERY, 9)[0].ids)) == 4


def test_no_cache_is_built_from_a_changed_vector(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(5))
    cache = folder / "vectors.cache"
    good = cache.rename(tmp_path / "good.cache")
    change(folder, "UPDATE vectors SET vector = zeroblob(32) WHERE record = 2")
    with closing(open_index(folder, write=True)) as index:
        index.add([make_entry("a/new", QUERY)])
        with pytest.raises(IndexStateError, match="a stored vector has changed"):
            index.refresh()
    assert not cache.exists()
    good.rename(cache)
    assert repaired(folder) == []


@pytest.mark.parametrize("act", ["touch", "mark_missing", "set_details"])
def test_a_change_of_a_damaged_record_does_not_hide_the_damage(act: str, tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(3))
    change(folder, "UPDATE records SET width = 7, height = 9 WHERE key = 2")
    with closing(open_index(folder, write=True)) as index:
        given = {"touch": {"a/0001": (1, 1, "1", 1)}, "set_details": {"a/0001": Detail("x", {})}}
        getattr(index, act)(given.get(act, ["a/0001"]))
        assert index.verify() == [
            "1 row of records changed outside of cbir, starting with '2 a/0001'"
        ]
        with pytest.raises(IndexStateError, match="a record has changed"):
            index.rename({"a/0001": index.records(["a/0001"])[0]})


def test_thumbnails_are_drawn_again_from_the_original_or_the_image_is_marked(
    tmp_path: Path,
) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(4))
    change(folder, "UPDATE thumbs SET picture = randomblob(9) WHERE key = 2", "thumbs.sqlite")
    change(folder, "DELETE FROM thumbs WHERE key = 3", "thumbs.sqlite")
    assert problems(folder) == ["1 records have no thumbnail", "1 thumbnails have changed"]

    def drawn(record: object) -> bytes | None:
        return b"again" if record.id == "a/0002" else None  # type: ignore[attr-defined]

    assert repaired(folder, Spares(thumbnail=drawn)) == ["1 records have no thumbnail"]
    with closing(open_index(folder)) as index:
        assert (index.thumbnail("a/0002"), index.thumbnail("a/0001")) == (b"again", None)
        assert [index.stamps("a")[f"a/000{n}"].content_hash == "" for n in range(4)] == [
            *(False, True, False, False)
        ]


def test_model_files_come_back_from_elsewhere(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    (folder / "model" / "model.onnx").write_bytes(b"weightz")
    (folder / "model" / "model.json").unlink()
    assert len(problems(folder)) == 2
    others = {"model.onnx": b"others", "model.json": MODEL["model.json"]}
    assert len(repaired(folder, Spares(model_files=lambda: others))) == 1
    assert repaired(folder, Spares(model_files=lambda: MODEL)) == []


BAD_CELLS = {
    "records": ("id", "source", "location", "label", "content_hash", "width", "missing", "decoder"),
    "metadata": ("name", "value"),
    "vectors": ("x0", "vector", "part"),
    "sources": ("name", "uri", "run_at"),
    "meta": ("value",),
    "failures": ("reason",),
    "tombstones": ("id", "location", "at"),
    "removed": ("key",),
}


@pytest.mark.parametrize("bad", ["CAST(x'ff' AS TEXT)", "x'ff'", "'text'"])
@pytest.mark.parametrize(
    ("table", "column"), [(t, c) for t, names in BAD_CELLS.items() for c in names]
)
def test_cells_of_the_wrong_kind_are_named_and_no_bug(
    table: str, column: str, bad: str, whole: Path, tmp_path: Path
) -> None:
    condition = (
        "rowid = 1"
        if table in ("records", "vectors", "failures")
        else (
            f"({', '.join(RECORDS[table].keys)}) = "
            f"(SELECT {', '.join(RECORDS[table].keys)} FROM {table} LIMIT 1)"
        )
    )
    change(whole, f"UPDATE {table} SET {column} = {bad} WHERE {condition}")
    assert problems(whole)
    uses: list[Callable[[], object]] = [
        lambda: content(whole),
        lambda: copy_index(str(whole), str(tmp_path / "copy.cbir")),
        lambda: open_index(whole).info(),
        lambda: open_index(whole).stamps("a"),
        lambda: open_index(whole).labels(),
        lambda: list(open_index(whole).ids(["width>3"])),
    ]
    for use in uses:
        with suppress(CbirError):
            use()
    with suppress(IndexStateError):  # what no copy and no flip explains is named
        repaired(whole)


def test_a_record_with_an_unreadable_cell_keeps_the_others(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(3, metadata={"year": 7}))
    change(folder, "UPDATE records SET width = CAST(x'ff41' AS TEXT) WHERE key = 2")
    assert repaired(folder) == [
        "1 row of records changed outside of cbir, starting with '2 a/0001'"
    ]
    with closing(open_index(folder, write=True)) as index:
        record = index.records(["a/0001"])[0]
        assert (record.width, record.label, record.metadata) == (0, "dog", {"year": 7})
        assert index.stamps("a")["a/0001"].content_hash == ""
        index.add([sample_entries(3)[1]])
        assert index.verify() == []


@pytest.mark.parametrize("name", ["spec", "model", "format", "generation", "log_from", "index_id"])
@pytest.mark.parametrize("value", ["'{}'", "'[1'", "NULL", "x'00'", "-1"])
def test_bad_metadata_of_the_index_are_named_in_one_line(
    name: str, value: str, tmp_path: Path
) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    change(folder, f"UPDATE meta SET value = {value} WHERE name = '{name}'")
    (found,) = problems(folder)
    assert f"'{name}' in its table 'meta' has changed" in found
    assert "cbir verify" in found
    if name in ("generation", "log_from"):
        assert repaired(folder) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("spec", f'{{"name": "n", "dim": 8, "fingerprint": "f", {told}}}') for told in (
            '"name": 5', '"fingerprint": 5', '"preprocessing": [1]', '"licence": {}',
            '"trained_on": null', '"dim": -1', '"more": 1',
        )],
        *[("model", told) for told in ("[[1, 2]]", '{"model.json": 5}', "[" * 200_000, "5")],
        ("spec", "[" * 200_000),
        ("index_id", 5),
        ("format", "3"),
    ],
)  # fmt: skip
def test_metadata_of_the_wrong_kind_are_named_though_their_checksums_are_right(
    name: str, value: str | int, tmp_path: Path
) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE meta SET value = ?, checksum = ? WHERE name = ?",
            (value, row_checksum((name, value)), name),
        )
    (found,) = problems(folder)
    assert "its table 'meta' cannot be read" in found
    assert "cbir verify" in found


def test_a_damaged_thumbnail_is_not_sealed_whatever_the_version_of_its_file(
    tmp_path: Path,
) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    change(folder, "UPDATE thumbs SET picture = x'00' WHERE key = 1", "thumbs.sqlite")
    before = problems(folder)
    assert len(before) == 1
    for version in (0, 2):
        change(folder, f"PRAGMA user_version={version}", "thumbs.sqlite")
        assert problems(folder) == before
        with closing(open_index(folder, write=True)) as index:
            index.add([replace(sample_entries(3)[2], thumbnail=bytes([version + 1]))])
        assert problems(folder) == before


def test_a_source_that_is_not_registered_is_named(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    with closing(open_index(folder, write=True)) as index:
        index.register_source("a", "/pictures")
        assert index.verify() == []
    change(folder, "DELETE FROM sources")
    assert problems(folder) == [
        "2 records of source 'a', which is not registered: index its folder again"
    ]


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_what_can_be_read_of_damaged_pages_is_saved(
    part: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made_index(Path("x.cbir"), sample_entries(600, metadata={"n": 1}))
    before = {entry[0].id: entry for entry in content(folder)[0]}  # type: ignore[index]
    path = folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    at = int(len(data) * part) // 4096 * 4096
    data[at : at + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    assert problems(folder)
    (told,) = mend(str(folder))
    assert "index.sqlite.damaged-1" in told
    assert (folder / "index.sqlite.damaged-1").read_bytes() == data
    repaired(folder)
    with closing(open_index(folder)) as index:
        kept = index.count()
        assert kept > 500
        records = index.records(list(index.ids()))
        for record in records:
            assert record.location == before[record.id][0].location  # type: ignore[index]


def damaged_page(folder: Path) -> bytes:
    path = folder / "index.sqlite"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    return bytes(data)


def test_a_full_disk_costs_no_record_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(600))
    data = damaged_page(folder)
    connect = salvage._connect

    def on_a_full_disk(path: Path, mode: str = "rw") -> sqlite3.Connection:
        connection = connect(path, mode)
        if mode == "rwc":
            connection.execute("PRAGMA max_page_count = 20")
        return connection

    with monkeypatch.context() as full:
        full.setattr(salvage, "_connect", on_a_full_disk)
        with pytest.raises(CbirError, match="the disk is full"):
            mend(str(folder))
    assert (folder / "index.sqlite").read_bytes() == data
    assert not list(folder.glob("*.new*")) and not list(folder.glob("*.damaged*"))
    assert mend(str(folder))
    with closing(open_index(folder)) as index:
        assert index.count() > 400


def test_the_damaged_file_is_kept_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    folder = made_index(tmp_path / "x.cbir", sample_entries(600))
    data = damaged_page(folder)
    (folder / "index.sqlite.damaged-1").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("os.link", refuse)
    assert mend(str(folder))
    assert (folder / "index.sqlite.damaged-2").read_bytes() == data
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_in_the_place_of_keypoints_does_not_stop_a_repair(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    (folder / "keypoints" / f"{'0' * 64}-{'0' * 16}.kept").mkdir(parents=True)
    assert repaired(folder) == ["keypoints: 1 file damaged"]


def test_an_unreadable_thumbnail_file_is_put_aside(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(3))
    (folder / "thumbs.sqlite").write_bytes(b"not a database at all" * 300)
    assert "thumbs.sqlite.damaged-1" in mend(str(folder))[0]
    drawn = Spares(thumbnail=lambda record: record.id.encode())
    assert repaired(folder, drawn) == []


def test_thumbnails_that_kills_left_are_no_problem_and_swept(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(3))
    left = (99, b"left", row_checksum((99, b"left")))
    with closing(sqlite3.connect(folder / "thumbs.sqlite")) as connection, connection:
        connection.execute("INSERT INTO thumbs VALUES (?, ?, ?)", left)
    assert problems(folder) == []
    with closing(open_index(folder, write=True)) as index:
        picture = (7, b"left")
        with closing(sqlite3.connect(folder / "thumbs.sqlite")) as connection, connection:
            connection.execute(
                "INSERT INTO thumbs VALUES (?, ?, ?)", (*picture, row_checksum(picture))
            )
        assert index.verify() == []
        index.refresh()
    with closing(sqlite3.connect(folder / "thumbs.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM thumbs").fetchone() == (3,)


@pytest.mark.parametrize("how", ["another", "deleted", "moved", "copied back"])
def test_an_index_that_is_replaced_under_a_reader_is_never_mixed(how: str, tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(20))
    with closing(open_index(folder)) as index:
        ids = index.search(QUERY, 5)[0].ids  # the thumbnails are not open yet
        folder.rename(tmp_path / "old.cbir")
        if how == "another":
            made_index(folder, sample_entries(20, seed=1))
        elif how == "copied back":
            shutil.copytree(tmp_path / "old.cbir", folder)
        for use in (
            lambda: index.thumbnail(ids[0]),
            lambda: index.search(QUERY, 5),
            lambda: index.records(ids),
        ):
            with pytest.raises(IndexReplacedError, match="was replaced, moved or deleted"):
                use()
    if how in ("another", "copied back"):
        with closing(open_index(folder)) as index:
            assert index.thumbnail(index.search(QUERY, 5)[0].ids[0])


def test_a_writer_does_not_write_into_a_replaced_index(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2))
    with closing(open_index(folder, write=True)) as index:
        folder.rename(tmp_path / "old.cbir")
        made_index(folder, [])
        with pytest.raises(IndexReplacedError):
            index.add(sample_entries(3))
    assert problems(folder) == []


def test_checksums_are_the_same_everywhere_and_of_what_sqlite_gives_back(tmp_path: Path) -> None:
    row = (3, "Genève", 2**40, -0.5, b"\x01", None)
    assert row_checksum(row).hex() == "469b49b2b55278bd"
    odd = {"yes": True, "zero": -0.0, "float": np.float64(0.5), "text": np.str_("x")}
    entry = make_entry("a/x", QUERY, metadata=odd)  # type: ignore[arg-type]
    with closing(new_index(tmp_path / "x.cbir", [entry])) as index:
        assert index.verify() == []


def test_mended_finds_the_bit_and_nothing_else() -> None:
    row = (3, "Genève", 0.5, b"\x01\x02", None)
    checksum = row_checksum(row)
    for place, cell in enumerate(row):
        for other in flips_of(cell):
            assert mended((*row[:place], other, *row[place + 1 :]), checksum) == row
    assert mended((4, "Geneve", 0.5, b"\x01\x02", None), checksum) is None
    assert mended(row, bytes([checksum[0] ^ 16]) + checksum[1:]) == row


def flips_of(cell: object) -> list[object]:
    from cbir.index.embedded.checksums import flips as all_flips

    return list(islice(all_flips(cell), 20))  # type: ignore[arg-type]
