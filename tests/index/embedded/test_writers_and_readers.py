"""One writer at a time, any number of readers beside it, and places that are bad in every way."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cbir.errors import IndexStateError
from cbir.index.open import create_index, open_index
from cbir.testing import make_entry, sample_entries, unit
from cbir.types import DescriptorSpec
from tests.index.embedded.support_index import answers, expected, made_index, new_index, python

QUERY = unit(np.ones((1, 8)))

HOLDS_THE_LOCK = """
import sys
from cbir.index.open import open_index
index = open_index(sys.argv[1], write=True)
print("ready", flush=True)
sys.stdin.read()
"""
ADDS_BATCHES = """
import sys
from cbir.index.open import open_index
from cbir.testing import sample_entries
index = open_index(sys.argv[1], write=True)
entries = sample_entries(2000)
for start in range(0, 2000, 50):
    index.add(entries[start : start + 50])
    if start % 500 == 450:
        index.refresh()
    print(start + 50, flush=True)
index.close()
"""
READS_AS_NOBODY = """
import json, os, sys, tempfile
from contextlib import closing
from pathlib import Path
import numpy as np
from tests.index.embedded.support_index import NOBODY, made_index
from cbir.errors import CbirError
from cbir.index.open import open_index
from cbir.testing import unit

def answer(index):
    hits = index.search(unit(np.ones((1, 8))), 5)[0].ids
    return [index.count(), hits, index.thumbnail(hits[0]).decode()]

# Everything is imported while it may be read: an interpreter can lie where nobody else may look.
with tempfile.TemporaryDirectory() as place:
    with closing(open_index(str(made_index(Path(place) / "warm.cbir")))) as index:
        answer(index)
if os.geteuid() == 0:
    os.setgid(NOBODY)
    os.setuid(NOBODY)
try:
    with closing(open_index(sys.argv[1], write="write" in sys.argv)) as index:
        while True:
            print(json.dumps(answer(index)), flush=True)
            if not sys.stdin.readline():
                break
except CbirError as error:
    print(json.dumps(str(error)), flush=True)
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users can look into, as pytest's own folders cannot be."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    for path in place.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(place)


def forbid_writing(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    paths = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in paths.items()}


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        for attempt in (lambda: open_index(str(folder), write=True), lambda: new_index(folder)):
            with pytest.raises(IndexStateError) as error:
                attempt()
            assert error.value.message == f"{folder} is being written by process {holder.pid}"
        with closing(open_index(str(folder))) as reader:
            assert reader.count() == 50
        holder.kill()
    open_index(str(folder), write=True).close()  # the lock of the dead is free


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    first = new_index(tmp_path / "x.cbir")
    with pytest.raises(IndexStateError, match=f"by process {os.getpid()}"):
        open_index(str(tmp_path / "x.cbir"), write=True)
    first.close()
    open_index(str(tmp_path / "x.cbir"), write=True).close()


def test_an_index_open_for_reading_cannot_be_changed(tmp_path: Path) -> None:
    with closing(open_index(str(made_index(tmp_path / "x.cbir")))) as index:
        assert not index.writable
        for change in (
            lambda: index.add(sample_entries(1)),
            lambda: index.remove(["a/0000"]),
            lambda: index.mark_missing(["a/0000"]),
            lambda: index.register_source("x", "/x"),
        ):
            with pytest.raises(IndexStateError, match="open for reading only"):
                change()


def test_readers_beside_a_writer_see_whole_batches_and_all_of_them(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir", [])
    entries = sample_entries(2000)
    writer = subprocess.Popen(
        [sys.executable, "-c", ADDS_BATCHES, str(folder)], stdout=subprocess.PIPE
    )
    trouble: list[str] = []
    searched = [0] * 4
    seen = [0] * 4
    done = threading.Event()
    committed = 0

    def read(number: int) -> None:
        index = shared if number < 3 else open_index(str(folder))
        last = False
        while not last:
            last = done.is_set()
            before = committed
            count = index.count()
            found = answers(index, QUERY, 2000)[0]
            after = index.count()
            if count % 50 or len(found) % 50 or not (before <= count <= len(found) <= after):
                trouble.append(f"{before} committed, {count}, {len(found)} hits, {after}")
                break
            if found != expected(entries[: len(found)], QUERY[0], 2000):
                trouble.append(f"wrong answers over {len(found)} records")
                break
            if found and index.thumbnail(found[-1][0]) is None:
                trouble.append(f"no picture of {found[-1][0]}")
                break
            seen[number] = len(found)
            searched[number] += 1
        if index is not shared:
            index.close()

    with closing(open_index(str(folder))) as shared, writer:
        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        assert writer.stdout is not None
        for line in writer.stdout:
            committed = int(line)
        done.set()
        for thread in threads:
            thread.join(60)
    assert trouble == []
    assert writer.returncode == 0
    assert seen == [2000] * 4
    assert min(searched) > 1


@pytest.mark.skipif(os.name != "posix", reason="file modes and user ids are POSIX")
@pytest.mark.parametrize("cache", ["there", "missing", "damaged"])
def test_a_folder_that_cannot_be_written_is_searched_and_left_alone(
    cache: str, open_place: Path
) -> None:
    entries = sample_entries(50)
    folder = made_index(open_place / "x.cbir", entries)
    if cache == "missing":
        (folder / "vectors.cache").unlink()
    if cache == "damaged":
        (folder / "vectors.cache").write_bytes(b"x" * 9000)
    forbid_writing(folder)
    before = listing(folder)
    child = python(READS_AS_NOBODY, folder, stdin=subprocess.DEVNULL)
    count, hits, thumbnail = json.loads(child.stdout)
    assert (count, thumbnail) == (50, f"picture of {hits[0]}")
    assert hits == [name for name, _, _ in expected(entries, QUERY[0], 5)]
    assert listing(folder) == before
    told = json.loads(python(READS_AS_NOBODY, folder, "write").stdout)
    assert told.startswith(f"{folder} cannot be written")


@pytest.mark.skipif(os.name != "posix", reason="file modes and user ids are POSIX")
def test_a_log_left_where_nothing_can_be_written_is_said_in_one_line(open_place: Path) -> None:
    with closing(new_index(open_place / "made.cbir", sample_entries(50))):
        shutil.copytree(
            open_place / "made.cbir",
            open_place / "x.cbir",
            ignore=shutil.ignore_patterns("*-shm", "writer.*"),
        )
    assert (open_place / "x.cbir" / "index.sqlite-wal").stat().st_size > 0
    forbid_writing(open_place / "x.cbir")
    told = json.loads(python(READS_AS_NOBODY, open_place / "x.cbir").stdout)
    assert "is read-only and has a log that was not merged (index.sqlite-wal)" in told
    for path in [open_place / "x.cbir", *(open_place / "x.cbir").rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    with closing(open_index(str(open_place / "x.cbir"))) as index:  # what the hint says
        assert index.verify() == []
    forbid_writing(open_place / "x.cbir")
    child = python(READS_AS_NOBODY, open_place / "x.cbir", stdin=subprocess.DEVNULL)
    assert json.loads(child.stdout)[0] == 50


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_a_reader_without_rights_follows_what_another_user_writes(open_place: Path) -> None:
    entries = sample_entries(120)
    folder = made_index(open_place / "x.cbir", entries[:50])
    reader = subprocess.Popen(
        [sys.executable, "-c", READS_AS_NOBODY, str(folder)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdin is not None

        def ask() -> tuple[int, list[str]]:
            count, hits, _ = json.loads(reader.stdout.readline())  # type: ignore[union-attr]
            return count, hits

        def best(count: int) -> list[str]:
            return [name for name, _, _ in expected(entries[:count], QUERY[0], 5)]

        assert ask() == (50, best(50))
        index = open_index(str(folder), write=True)
        for count in (80, 100):
            index.add(entries[count - 30 : count])
            print(file=reader.stdin, flush=True)
            assert ask() == (count, best(count))
        index.add(entries[100:])
        index.refresh()
        index.close()
        print(file=reader.stdin, flush=True)
        assert ask() == (120, best(120))
        reader.stdin.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = made_index(tmp_path / "x.cbir")
    with closing(sqlite3.connect(folder / "index.sqlite")) as connection, connection:
        connection.execute("UPDATE meta SET value = 4 WHERE name = 'format'")
    for write in (False, True):
        with pytest.raises(IndexStateError, match=r"has format 4; .* reads up to 3.*update cbir"):
            open_index(str(folder), write=write)


def spoil(path: Path, damage: str) -> None:
    """Damage the cache file in one of many ways; the last vectors lie at its end."""
    content = bytearray(path.read_bytes())
    match damage.split():
        case ["flip", where]:
            content[int(float(where) * (len(content) - 1))] ^= 0x40
        case ["cut", where]:
            del content[int(float(where) * len(content)) :]
        case ["longer"]:
            content += bytes(64)
        case ["zeros"]:
            content[4096:] = bytes(len(content) - 4096)
        case ["swap"]:
            content[-32:], content[-64:-32] = content[-64:-32], content[-32:]
        case _:
            raise AssertionError(damage)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        *(f"flip {at}" for at in (0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.95, 1)),
        *("cut 0", "cut 0.01", "cut 0.5", "cut 0.999", "longer", "zeros", "swap"),
    ],
)
def test_a_damaged_cache_is_noticed_and_never_answered_from(damage: str, tmp_path: Path) -> None:
    entries = sample_entries(500, parts=2)
    folder = made_index(tmp_path / "x.cbir", entries)
    spoil(folder / "vectors.cache", damage)
    with closing(open_index(str(folder))) as index:
        (problem,) = index.verify()
        assert problem.startswith("vectors.cache: it")
        queries = np.concatenate((QUERY, entries[-1].vectors, entries[-2].vectors))
        wanted = [expected(entries, row, 500) for row in queries]
        assert answers(index, queries, 500) == wanted
        assert index.verify() == []  # the reader has made a new one
    spoil(folder / "vectors.cache", damage)
    with closing(open_index(str(folder), write=True)) as index:
        assert index.verify(repair=True) == [problem]
        assert index.verify() == []
        assert answers(index, queries, 500) == wanted


def test_a_cache_of_another_time_or_index_is_not_answered_from(tmp_path: Path) -> None:
    old = sample_entries(100)
    new = sample_entries(100, seed=1)
    folder = made_index(tmp_path / "x.cbir", old)
    shutil.copytree(folder, tmp_path / "old")
    with closing(open_index(str(folder), write=True)) as index:
        index.add(new)
        index.refresh()
        index.remove(["a/0001"])
        index.refresh()
    shutil.copy(folder / "vectors.cache", tmp_path / "newer.cache")
    now = [entry for entry in new if entry.record.id != "a/0001"]

    def check(place: Path, entries: list) -> None:
        with closing(open_index(str(place))) as index:
            assert answers(index, QUERY, 100) == [expected(entries, QUERY[0], 100)]
            assert index.verify() == []

    check(folder, now)
    shutil.copy(tmp_path / "old" / "vectors.cache", folder / "vectors.cache")
    check(folder, now)  # older than what the log of removed records reaches back to
    shutil.copy(tmp_path / "newer.cache", tmp_path / "old" / "vectors.cache")
    check(tmp_path / "old", old)  # newer than the records: a backup that was put back
    other = made_index(tmp_path / "other.cbir", sample_entries(100, seed=2))
    shutil.copy(other / "vectors.cache", folder / "vectors.cache")
    check(folder, now)


WRITES_UNTIL_FULL = """
import resource, sys
from cbir.errors import CbirError
from cbir.index.open import open_index
from cbir.testing import sample_entries
index = open_index(sys.argv[1], write=True)
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    for number in range(1000):
        batch = sample_entries(50, seed=number, prefix=f"b{number:04d}")
        index.add(batch)
        print(number, flush=True)
        if sys.argv[3] == "refresh":
            index.refresh()
except CbirError as error:
    print(type(error).__name__, error, sep="|", flush=True)
try:
    index.close()
except CbirError as error:
    print("close", error, sep="|", flush=True)
"""


def check_after_full_disk(folder: Path, output: str) -> str:
    """Everything acknowledged is there, and writing goes on; returns the error's line."""
    *acknowledged, told = output.splitlines()
    assert told.startswith("IndexStateError|"), told
    batches = {f"b{number:04d}" for number in map(int, acknowledged)}
    assert len(batches) > 2
    with closing(open_index(str(folder), write=True)) as index:
        assert index.verify() == []
        listed = list(index.entries())
        assert {entry.record.source for entry in listed} - {"a"} == batches
        assert len(listed) == 50 * len(batches) + 50
        for entry in listed:
            assert entry.thumbnail == b"picture of " + entry.record.id.encode()
        assert answers(index, QUERY, 10) == [expected(listed, QUERY[0], 10)]
        index.add([make_entry("z/z", QUERY)])
        index.refresh()
        assert index.search(QUERY, 1)[0].ids == ["z/z"]
    return told


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
@pytest.mark.parametrize("mode", ["add", "refresh"])
def test_files_that_may_not_grow_end_in_one_line_and_nothing_is_lost(
    mode: str, tmp_path: Path
) -> None:
    folder = made_index(tmp_path / "x.cbir")
    child = python(WRITES_UNTIL_FULL, folder, 300_000, mode)
    told = check_after_full_disk(folder, child.stdout)
    assert "committed changes are kept" in told or "all records are kept" in told


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("mode", ["add", "refresh"])
def test_a_full_disk_ends_in_one_line_and_nothing_is_lost(mode: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        folder = made_index(small / "x.cbir")
        child = python(WRITES_UNTIL_FULL, folder, 0, mode)
        subprocess.run(["mount", "-o", "remount,size=30m", str(small)], check=True)
        told = check_after_full_disk(folder, child.stdout)
        assert "disk is full" in told or "No space left on device" in told
        assert "free some space" in told
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX")
def test_a_full_disk_at_the_very_beginning_is_said_in_one_line(tmp_path: Path) -> None:
    code = """
import resource, sys
from cbir.errors import IndexStateError
from cbir.index.open import create_index
from cbir.types import DescriptorSpec
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    create_index(sys.argv[1], DescriptorSpec("x", 8, "5" * 64), {"m": bytes(int(sys.argv[2]))})
except IndexStateError as error:
    print(error)
"""
    for model in (10, 10_000):
        child = python(code, tmp_path / f"{model}.cbir", model)
        assert child.stdout.count("\n") == 1, child.stderr
        assert "free" in child.stdout
        assert child.stderr == ""
        create_index(str(tmp_path / f"{model}.cbir"), DescriptorSpec("x", 8, "5" * 64)).close()
