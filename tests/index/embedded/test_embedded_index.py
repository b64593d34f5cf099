"""The embedded engine: answers against brute force, bit for bit, and everything on its folder."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbir.errors import CbirError, IndexStateError, QueryError, RecordGoneError
from cbir.index.base import Detail, Entry
from cbir.index.open import create_index, index_exists, open_index
from cbir.testing import make_entry, sample_entries, unit
from cbir.testing.samples import LEFT_HALF, RIGHT_HALF
from cbir.types import WHOLE, DescriptorSpec
from tests.index.embedded.support_index import (
    MODEL,
    OTHER_SPEC,
    SPEC,
    answers,
    expected,
    made_index,
    new_index,
)
from tests.support_files import contents

BOXES = [WHOLE, LEFT_HALF, RIGHT_HALF]

# Few values a coordinate, so that many vectors are equal and many scores tie.
grid_vectors = st.lists(st.integers(-1, 1), min_size=3, max_size=3).filter(any)
grid_records = st.lists(grid_vectors, min_size=1, max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.dictionaries(st.integers(0, 30), grid_records, min_size=1, max_size=12),
        ),
        st.tuples(st.just("remove"), st.sets(st.integers(0, 30), max_size=6)),
        st.tuples(st.just("refresh"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=8,
)


def grid_entry(number: int, parts: list[list[int]]) -> Entry:
    name = f"g/{number}" + "é" * (number % 3)
    return make_entry(name, unit(np.array(parts)), boxes=BOXES[: len(parts)])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    history=steps,
    queries=st.lists(grid_vectors, min_size=1, max_size=4),
    k=st.integers(1, 40),
    left_out=st.integers(0, 30),
)
def test_search_is_brute_force_whatever_happened_before(
    history: list[tuple[str, object]],
    queries: list[list[int]],
    k: int,
    left_out: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("index") / "g.cbir"
    spec = DescriptorSpec("grid", 3, "7" * 64)
    index = create_index(str(folder), spec)
    reader = open_index(str(folder))
    truth: dict[str, Entry] = {}
    for step, what in history:
        if step == "add":
            batch = [grid_entry(number, parts) for number, parts in what.items()]  # type: ignore[attr-defined]
            index.add(batch)
            truth.update({entry.record.id: entry for entry in batch})
        elif step == "remove":
            ids = [grid_entry(number, [[1, 0, 0]]).record.id for number in what]  # type: ignore[attr-defined]
            assert index.remove(ids) == [name for name in ids if truth.pop(name, None)]
        elif step == "refresh":
            index.refresh()
        else:
            index.close()
            index = open_index(str(folder), write=True)
    rows = unit(np.array(queries))
    without = grid_entry(left_out, [[1, 0, 0]]).record.id
    others = [entry for name, entry in truth.items() if name != without]
    for opened in (index, reader):
        found = answers(opened, rows, k)
        assert found == [expected(truth.values(), row, k) for row in rows]
        assert [answers(opened, rows[n : n + 1], k)[0] for n in range(len(rows))] == found
        excluded = answers(opened, rows, k, exclude=[without] * len(rows))
        assert excluded == [expected(others, row, k) for row in rows]
        assert opened.matrix()[0] == sorted(truth, key=str.encode)
    assert index.verify() == []
    reader.close()
    index.close()


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("refreshed", [True, False])
def test_thousands_of_equal_vectors_are_answered_exactly(
    parts: int, refreshed: bool, tmp_path: Path
) -> None:
    same = np.repeat(unit(np.ones((1, 8))), parts, axis=0)
    copies = [make_entry(f"same/{n:05d}", same, boxes=BOXES[:parts]) for n in range(5000)]
    entries = copies[::-1] + sample_entries(300, parts=parts)
    with closing(new_index(tmp_path / "x.cbir", entries)) as index:
        if refreshed:
            index.refresh()
        near = unit(np.ones((1, 8)) + np.eye(8)[:1] / 1e4)
        queries = np.concatenate((same[:1], near, sample_entries(2)[1].vectors))
        for k in (1, 10, 500):
            assert answers(index, queries, k) == [expected(entries, row, k) for row in queries]
        exclude = ["same/00000", "same/00003", None]
        found = index.search(queries, 3, exclude=exclude)
        assert found[0].ids == ["same/00001", "same/00002", "same/00003"]
        assert found[1].ids == ["same/00000", "same/00001", "same/00002"]


def test_scores_are_the_same_bits_alone_and_in_any_batch(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    spec = DescriptorSpec("long", 74, "8" * 64)
    rows = unit(draw.normal(size=(3000, 74)))
    entries = [make_entry(f"r/{n:04d}", rows[n : n + 1]) for n in range(len(rows))]
    with closing(new_index(tmp_path / "x.cbir", entries, spec)) as index:
        index.refresh()
        queries = unit(draw.normal(size=(700, 74)))
        together = index.search(queries, 25)
        for size in (1, 3, 40):
            for start in (0, 19, 333):
                some = index.search(queries[start : start + size], 25)
                for one, other in zip(some, together[start:], strict=False):
                    assert one.ids == other.ids
                    assert one.scores.tobytes() == other.scores.tobytes()
        for number in (0, 500):
            assert answers(index, queries[number : number + 1], 25)[0] == expected(
                entries, queries[number], 25
            )


def test_what_was_removed_is_never_answered_though_it_fills_the_top(tmp_path: Path) -> None:
    close = unit(np.ones((600, 8)) + np.random.default_rng(2).normal(size=(600, 8)) / 100)
    entries = [make_entry(f"c/{n:03d}", close[n : n + 1]) for n in range(600)]
    far = sample_entries(40)
    with closing(new_index(tmp_path / "x.cbir", [*entries, *far])) as index:
        index.refresh()
        index.remove([entry.record.id for entry in entries[5:]])
        query = unit(np.ones((1, 8)))
        assert answers(index, query, 10) == [expected([*entries[:5], *far], query[0], 10)]


def test_a_filter_holds_over_cached_newer_and_removed_records(tmp_path: Path) -> None:
    entries = sample_entries(90, parts=3)
    with closing(new_index(tmp_path / "x.cbir", entries[:60])) as index:
        index.refresh()
        index.add(entries[60:])
        index.remove(["a/0000", "a/0063"])
        kept = [
            entry
            for entry in entries
            if entry.record.label == "cat" and entry.record.id not in ("a/0000", "a/0063")
        ]
        queries = unit(np.random.default_rng(3).normal(size=(6, 8)))
        for k in (2, 50):
            wanted = [expected(kept, row, k) for row in queries]
            assert answers(index, queries, k, where=["label=cat"]) == wanted
            assert answers(index, queries, k, where=["label=cat"]) == wanted  # from what was kept
        for number in range(8):  # more filters than are kept
            index.search(queries, 1, where=[f"width>{number}"])
        index.set_details({"a/0003": Detail("dog", {})})
        kept = [entry for entry in kept if entry.record.id != "a/0003"]
        wanted = [expected(kept, row, 50) for row in queries]
        assert answers(index, queries, 50, where=["label=cat"]) == wanted


def test_metadata_is_compared_as_what_it_is(tmp_path: Path) -> None:
    values = {"a": 9, "b": 10.5, "c": "10", "d": "x", "e": 2**60, 'f "': -1}
    entries = [
        make_entry(f"m/{name[0]}", unit(np.ones((1, 8))), metadata={"size": value, "it's": name})
        for name, value in values.items()
    ]
    entries.append(make_entry("m/none", unit(np.ones((1, 8)))))
    with closing(new_index(tmp_path / "x.cbir", entries)) as index:

        def found(*where: str) -> str:
            ids = index.search(unit(np.ones((1, 8))), 10, where=where)[0].ids
            return "".join(record_id.removeprefix("m/") for record_id in ids)

        assert found("size>9") == "bde"  # 10.5, "x" after "9", 2**60
        assert found("size>=9") == "abde"
        assert found("size=10,9.0") == "ac"
        assert found("size!=9") == "bcdef"
        assert found("size<x") == "c"
        assert found(f"size={2**60}") == "e"
        assert found('it\'s="f """') == "f"
        assert found("it's!=zz") == "abcdef"
        with pytest.raises(QueryError, match="did you mean 'size'"):
            found("sise=3")


def test_records_come_back_with_every_value_as_it_was(tmp_path: Path) -> None:
    entry = make_entry(
        "s/Ünï%20code/…/x", unit(np.ones((1, 8))), metadata={"n": 3, "f": 0.1, "t": "3", "é": "ü"}
    )
    plain = replace(entry, record=replace(entry.record, id="s/y", file_size=None, mtime_ns=None))
    with closing(new_index(tmp_path / "x.cbir", [entry, plain])) as index:
        back = index.records([entry.record.id, "s/y", entry.record.id])
        assert back == [entry.record, plain.record, entry.record]
        kinds = {name: type(value) for name, value in back[0].metadata.items()}
        assert kinds == {"n": int, "f": float, "t": str, "é": str}


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), [1], b"x", 2**70, "\udc80"])
def test_metadata_that_cannot_be_kept_is_refused_and_nothing_is(
    value: object, tmp_path: Path
) -> None:
    bad = make_entry("a/bad", unit(np.ones((1, 8))), metadata={"x": value})  # type: ignore[dict-item]
    with closing(new_index(tmp_path / "x.cbir")) as index:
        with pytest.raises(CbirError, match="cannot be stored"):
            index.add([sample_entries(1)[0], bad])
        assert index.count() == 0
        assert index.verify() == []


def test_vectors_of_nearly_unit_norm_are_scaled_so_that_scores_are_cosines(tmp_path: Path) -> None:
    rows = unit(np.ones((1, 8)))
    with closing(new_index(tmp_path / "x.cbir", [make_entry("a/x", rows * 1.00005)])) as index:
        assert index.search(rows * 7, 1)[0].scores.tolist() == pytest.approx([1.0], abs=2e-7)


def test_an_unknown_id_is_named(tmp_path: Path) -> None:
    with closing(new_index(tmp_path / "x.cbir", sample_entries(2))) as index:
        for unknown in ("a/9", "a/\udc80", "", "a/0000\0"):
            for ask in (lambda i: index.records([i]), index.vectors, index.thumbnail):
                with pytest.raises(RecordGoneError, match="no record"):
                    ask(unknown)
            assert len(index.search(unit(np.ones((1, 8))), 2, exclude=[unknown])[0].ids) == 2


@pytest.mark.parametrize("name", ["photos", "my photos.cbir", "a#b?c%20d", "-x", "été", "x.sqlite"])
def test_any_name_is_allowed(name: str, tmp_path: Path) -> None:
    made_index(tmp_path / name)
    with closing(open_index(str(tmp_path / name))) as index:
        assert index.count() == 50


def test_the_model_is_kept_with_the_index(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir")
    with closing(open_index(str(folder))) as index:
        assert contents(index.model_files()) == MODEL
        (folder / "model" / "model.onnx").write_bytes(b"other")
        assert index.verify() == ["model/model.onnx has changed: its checksum is wrong"]
        (folder / "model" / "model.onnx").unlink()
        with pytest.raises(IndexStateError, match="lacks its model"):
            index.model_files()


def test_an_index_remembers_its_spec_and_refuses_another(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "photos.cbir")
    with pytest.raises(IndexStateError) as refusal:
        create_index(str(folder), OTHER_SPEC)
    assert refusal.value.message.endswith(
        "photos.cbir was built with made-up@55555555 (8-d); you gave other@66666666 (16-d)"
    )
    assert refusal.value.hint == "Index with --descriptor made-up, or choose a new place"
    with pytest.raises(IndexStateError, match="Choose a new place"):
        create_index(str(folder), replace(SPEC, fingerprint="9" * 64))
    with closing(create_index(str(folder), SPEC)) as index:  # the refusals left no lock behind
        assert index.count() == 50
        assert index.spec == SPEC


def test_what_is_no_index_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name, words, cure in (
        ("none", "no index at .*none", f"cbir index FOLDER --into {tmp_path / 'none'}"),
        ("no ne", "no index at .*no ne", f"cbir index FOLDER --into '{tmp_path / 'no ne'}'"),
        ("file", "it is a file", "give an index folder"),
        (
            "folder",
            "the folder contains none",
            f"cbir index {tmp_path / 'folder'} --into folder.cbir",
        ),
        ("empty", "the folder contains none", f"cbir index FOLDER --into {tmp_path / 'empty'}"),
    ):
        with pytest.raises(IndexStateError, match=words) as error:
            open_index(str(tmp_path / name))
        assert error.value.hint == cure
        assert not index_exists(str(tmp_path / name))
    for name, words in (("file", "is a file"), ("folder", "a folder with other files")):
        with pytest.raises(IndexStateError, match=words):
            create_index(str(tmp_path / name), SPEC)
    assert list((tmp_path / "folder").iterdir()) == [tmp_path / "folder" / "holiday.jpg"]
    create_index(str(tmp_path / "empty"), SPEC).close()
    assert index_exists(str(tmp_path / "empty"))
    for url in ("elastic://host:9200/x", "s3://bucket/x", ""):
        with pytest.raises(CbirError, match=r"folder, such as photos\.cbir"):
            open_index(url)


@pytest.mark.parametrize("left", ["only the model", "an empty database", "no tables"])
def test_a_creation_that_was_broken_off_is_noticed_and_done_again(
    left: str, tmp_path: Path
) -> None:
    folder = tmp_path / "x.cbir"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.onnx").write_bytes(b"half of i")
    (folder / "model" / ".model.onnx-draft").mkdir()
    if left != "only the model":
        (folder / "index.sqlite").touch()
    if left == "no tables":
        with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    assert not index_exists(str(folder))
    with pytest.raises(IndexStateError, match="is incomplete"):
        open_index(str(folder))
    index = new_index(folder, sample_entries(3))
    assert index.verify() == []
    assert contents(index.model_files()) == MODEL
    assert {file.name for file in (folder / "model").iterdir()} == set(MODEL)
    index.close()


def test_verify_names_what_is_wrong_and_repair_mends_it(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(20, parts=2))
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection, connection:
        connection.execute("DELETE FROM vectors WHERE record = 3")
        connection.execute("UPDATE vectors SET vector = zeroblob(32) WHERE record = 5 AND part = 1")
        connection.execute("UPDATE vectors SET vector = x'00' WHERE record = 6 AND part = 1")
        connection.execute("DELETE FROM records WHERE key = 8")
    with closing(sqlite3.connect(folder / "thumbs.sqlite")) as connection, connection:
        connection.execute("DELETE FROM thumbs WHERE key = 10")
    with closing(open_index(str(folder))) as index:
        found = "\n".join(index.verify())
        assert "3 records have missing or damaged vectors, starting with a/0002" in found
        assert "2 rows of vectors belong to no record" in found
        assert "1 records have no thumbnail" in found
        with pytest.raises(IndexStateError, match="for reading only"):
            index.verify(repair=True)
    with closing(open_index(str(folder), write=True)) as index:
        told = "\n".join(index.verify(repair=True))
        assert "not repaired: 1 records are to be described again; index" in told
        assert index.verify() == ["1 records have no thumbnail"]
        assert index.count() == 19
        changed = index.stamps("a")["a/0009"]
        assert (changed.content_hash, changed.mtime_ns) == ("", None)
        again = [entry for entry in sample_entries(20, parts=2) if entry.record.id == "a/0009"]
        index.add(again)
        assert index.verify() == []


@pytest.mark.parametrize("damage", ["header", "middle", "cut"])
def test_a_damaged_database_is_named_with_its_cure(damage: str, tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", sample_entries(2000))
    path = folder / "index.sqlite"
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = bytes(100)
    elif damage == "middle":
        content[4096 * 10 : -4096 * 4] = b"\xff" * (len(content) - 4096 * 14)
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)
    (folder / "vectors.cache").unlink()

    def use() -> None:
        with closing(open_index(str(folder))) as index:
            assert any("index.sqlite" in line for line in index.verify())
            index.matrix()

    with pytest.raises(IndexStateError, match=r"index\.sqlite is damaged") as error:
        use()
    assert "index the sources again" in error.value.hint


def test_search_goes_on_without_the_thumbnails_and_repair_makes_room_for_new_ones(
    tmp_path: Path,
) -> None:
    folder = made_index(tmp_path / "x.cbir")
    (folder / "thumbs.sqlite").write_bytes(b"not a database at all" * 300)
    with closing(open_index(str(folder))) as index:
        assert len(index.search(unit(np.ones((1, 8))), 5)[0].ids) == 5
        with pytest.raises(IndexStateError, match=r"thumbs\.sqlite is damaged.*delete that file"):
            index.thumbnail("a/0000")
    (folder / "thumbs.sqlite").unlink()
    with closing(open_index(str(folder), write=True)) as index:
        assert "50 records have no thumbnail" in index.verify(repair=True)
        index.add(sample_entries(50))
        assert index.verify() == []


def test_an_index_can_be_moved_and_copied(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "one.cbir")
    shutil.copytree(folder, tmp_path / "two.cbir")
    folder.rename(tmp_path / "three.cbir")
    for name in ("two.cbir", "three.cbir"):
        with closing(open_index(str(tmp_path / name), write=True)) as index:
            assert index.verify() == []


def test_the_log_of_removed_records_does_not_grow_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "x.cbir"
    with closing(new_index(folder)) as index:
        for _ in range(5):
            index.add(sample_entries(400))
            index.refresh()
            with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
                (logged,) = connection.execute("SELECT count(*) FROM removed").fetchone()
            assert logged < 1024
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM vectors").fetchone() == (400,)
    with closing(sqlite3.connect(folder / "thumbs.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM thumbs").fetchone() == (400,)


def test_the_log_is_forgotten_up_to_the_cache_that_a_reader_has_written(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir")
    with closing(open_index(str(folder), write=True)) as index:
        index.remove(["a/0000"])
        (folder / "vectors.cache").unlink()
        with closing(open_index(str(folder))) as reader:
            assert "a/0000" not in reader.search(unit(np.ones((1, 8))), 50)[0].ids
        written = (folder / "vectors.cache").read_bytes()
        index.refresh()
    assert (folder / "vectors.cache").read_bytes() == written
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM removed").fetchone() == (0,)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_cache_is_written_again_after_many_changes_not_after_few(
    parts: int, tmp_path: Path
) -> None:
    held = {entry.record.id: entry for entry in sample_entries(60, parts=parts)}
    folder = made_index(tmp_path / "x.cbir", list(held.values()))
    cache, queries = folder / "vectors.cache", unit(np.random.default_rng(5).normal(size=(4, 8)))

    def change(entries: list[Entry], removed: list[str]) -> bytes:
        """The bytes of the cache after a run with these changes; searches must be right."""
        with closing(open_index(str(folder), write=True)) as index:
            index.add(entries)
            index.remove(removed)
            index.refresh()
        held.update({entry.record.id: entry for entry in entries})
        for record_id in removed:
            del held[record_id]
        content = cache.read_bytes()
        with closing(open_index(str(folder))) as index:
            wanted = [expected(held.values(), query, 20) for query in queries]
            assert answers(index, queries, 20) == wanted
            assert index.verify() == []
        assert cache.read_bytes() == content
        return content

    first = cache.read_bytes()
    assert change(sample_entries(1, parts=parts, seed=1, prefix="b"), []) == first
    changed = sample_entries(3, parts=parts, seed=2)  # replaces three
    assert change([*changed, *sample_entries(2, parts=parts, prefix="c")], ["a/0040"]) == first
    more = sample_entries(1100, parts=parts, seed=3, prefix="d")
    many = change(more, [])
    assert many != first
    assert change(sample_entries(1, parts=parts, seed=4, prefix="e"), ["a/0041"]) == many
    assert change([], [entry.record.id for entry in more[5:]]) != many


def test_a_restored_database_does_not_use_the_cache_of_its_lost_future(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir")
    backup = (folder / "index.sqlite").read_bytes()
    for seed in range(2):
        with closing(open_index(str(folder), write=True)) as index:
            index.add(sample_entries(20, seed=9, prefix=f"lost{seed}"))
            (folder / "vectors.cache").unlink(missing_ok=True)
            index.refresh()
    (folder / "index.sqlite").write_bytes(backup)
    other = sample_entries(20, seed=10, prefix="other")
    with closing(open_index(str(folder), write=True)) as index:
        for entry in other:  # as many generations as were lost, and more
            index.add([entry])
            index.mark_missing([entry.record.id])
        index.refresh()
    with closing(open_index(str(folder))) as index:
        query = unit(np.random.default_rng(3).normal(size=(1, 8)))
        (found,) = index.search(query, 500)
        assert sorted(found.ids) == sorted(index.ids())
        assert set(found.ids) >= {entry.record.id for entry in other}
