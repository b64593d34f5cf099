"""Keypoints of indexed pictures that are kept: reused, bounded, and never the cause of an answer
that differs from a fresh one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.home import cbir_home
from cbir.index import kept_files
from cbir.ingest.copy import copy_index
from cbir.types import Hit
from tests.descriptors.local.support_textures import texture
from tests.web.support_web import Grid

COUNT = 5
QUERY = np.ascontiguousarray(texture(3)[:90, 120:])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An index of textures beside their folder `photos`."""
    (tmp_path / "photos").mkdir()
    for seed in range(COUNT):
        Image.fromarray(texture(seed)).save(tmp_path / "photos" / f"{seed}.png")
    cbir.index_images([tmp_path / "photos"], tmp_path / "t.cbir", descriptor=Grid())
    return tmp_path / "t.cbir"


def verified(place: Path) -> list[Hit]:
    """The hits of a verified search by a new searcher, which has nothing in memory."""
    with cbir.Searcher.open(place, Grid()) as searcher:
        return searcher.search(QUERY, k=COUNT, verify=True)


def kept(place: Path) -> list[Path]:
    return sorted((place / "keypoints").glob("*.kept"))


def same(ours: list[Hit], theirs: list[Hit]) -> bool:
    """Whether both say the same of the same pictures, wherever the files are now."""
    told = [replace(hit, path=None) for hit in ours] == [replace(hit, path=None) for hit in theirs]
    pairs = zip(ours, theirs, strict=True)
    return told and all(np.array_equal(a.matches, b.matches) for a, b in pairs)  # type: ignore[arg-type]


def with_checksum(path: Path, content: bytes) -> None:
    path.write_bytes(sha256(path.name.encode() + content).digest() + content)


def test_pictures_are_opened_once_and_kept_keypoints_answer_the_same(place: Path) -> None:
    fresh = verified(place)
    assert fresh[0].id == "photos/3.png" and fresh[0].verified
    assert len(kept(place)) == COUNT
    rmtree(place.parent / "photos")  # compared by what is kept, as there is nothing else
    assert same(verified(place), fresh)
    rmtree(place / "keypoints")
    assert [hit.inliers for hit in verified(place)] == [None] * COUNT


def test_a_copied_index_has_its_keypoints_and_another_index_makes_its_own(place: Path) -> None:
    fresh = verified(place)
    moved, other = place.parent / "moved.cbir", place.parent / "other.cbir"
    copytree(place, moved)
    copy_index(str(place), str(other))
    assert not (other / "keypoints").exists()
    rmtree(place.parent / "photos")
    assert same(verified(moved), fresh)


def flip(at: int) -> Callable[[list[Path]], None]:
    def flipped(files: list[Path]) -> None:
        for path in files:
            data = bytearray(path.read_bytes())
            data[at] ^= 0x80
            path.write_bytes(data)

    return flipped


def cut(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(path.read_bytes()[:-1])


def lengthen(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(path.read_bytes() + bytes(2**21))


def empty(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"")


def exchange(files: list[Path]) -> None:
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


def make_folders(files: list[Path]) -> None:
    for path in files:
        path.unlink()
        path.mkdir()


def make_pipes(files: list[Path]) -> None:
    for path in files:
        path.unlink()
        os.mkfifo(path)


def make_links(files: list[Path]) -> None:
    for path in files:
        path.replace(path.with_suffix(".real"))
        path.symlink_to(path.with_suffix(".real"))


DAMAGES = [
    *(flip(0), flip(32), flip(34), flip(40), flip(-1)),
    *(cut, lengthen, empty, exchange, make_folders, make_links),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_dropped_and_made_again(
    place: Path, damage: Callable[[list[Path]], None]
) -> None:
    fresh = verified(place)
    files = kept(place)
    whole = [path.read_bytes() for path in files]
    damage(files)
    assert same(verified(place), fresh)
    if damage is not make_folders:
        assert [path.read_bytes() for path in files] == whole
        assert not any(path.is_symlink() for path in files)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_place_of_an_entry_does_not_hang(place: Path) -> None:
    fresh = verified(place)
    make_pipes(kept(place))
    assert same(verified(place), fresh)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<HHH", 65535, 288, 288) + bytes(65535 * 8),
        struct.pack("<HHH", 501, 288, 288) + bytes(501 * 136),
        struct.pack("<HHH", 9, 0, 288) + bytes(9 * 136),
        struct.pack("<HHH", 9, 288, 60000) + bytes(9 * 136),
        struct.pack("<HHH", 9, 288, 288) + np.full(18, np.nan, "<f4").tobytes() + bytes(9 * 128),
        struct.pack("<HHH", 9, 288, 288) + np.full(18, 1e30, "<f4").tobytes() + bytes(9 * 128),
    ],
)
def test_an_entry_with_a_right_checksum_and_impossible_content_is_not_used(
    place: Path, content: bytes
) -> None:
    fresh = verified(place)
    for path in kept(place):
        with_checksum(path, content)
    assert same(verified(place), fresh)


def test_keypoints_of_other_settings_are_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = verified(place)
    monkeypatch.setattr("cbir.descriptors.local.geometry.MAX_POINTS", 60)
    fewer = verified(place)
    assert fewer[0].inliers is not None and fresh[0].inliers is not None
    assert fewer[0].inliers < fresh[0].inliers
    monkeypatch.undo()
    assert same(verified(place), fresh)


def test_a_link_out_of_the_index_is_not_followed(place: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (place / "keypoints").symlink_to(private)
    fresh = verified(place)
    assert list(private.iterdir()) == []
    assert len(list((cbir_home() / "keypoints").iterdir())) == COUNT
    rmtree(tmp_path / "photos")
    assert same(verified(place), fresh)


def test_a_folder_that_cannot_be_made_only_costs_time(place: Path, tmp_path: Path) -> None:
    (place / "keypoints").write_text("a file")
    assert same(verified(place), verified(place))
    assert (place / "keypoints").read_text() == "a file"


def hashes(place: Path) -> dict[str, str]:
    """Content hash -> id of what is indexed."""
    with closing(cbir.open_index(place)) as opened:
        records = opened.records([f"photos/{seed}.png" for seed in range(COUNT)])
    return {record.content_hash: record.id for record in records}


@pytest.mark.parametrize("way", ["remove", "source", "changed"])
def test_removed_and_changed_pictures_leave_the_cache(place: Path, way: str) -> None:
    verified(place)
    before = hashes(place)
    photos = place.parent / "photos"
    stays = {"photos/0.png"}
    if way == "remove":
        cbir.remove_images(place, [f"photos/{seed}.png" for seed in range(1, COUNT)])
    elif way == "changed":
        for seed in range(1, COUNT):
            Image.fromarray(texture(seed + 20)).save(photos / f"{seed}.png")
        cbir.index_images([photos], place, descriptor=Grid())
    else:
        with closing(cbir.open_index(place, write=True)) as opened:
            opened.remove_source("photos")
        stays = set()
    assert {before[path.name[:64]] for path in kept(place)} == stays


def test_a_picture_stays_kept_while_another_record_has_it(place: Path) -> None:
    photos = place.parent / "photos"
    (photos / "twin.png").write_bytes((photos / "1.png").read_bytes())
    cbir.index_images([photos], place, descriptor=Grid())
    with cbir.Searcher.open(place, Grid()) as searcher:
        searcher.search(QUERY, k=COUNT + 1, verify=True)
    cbir.remove_images(place, ["photos/1.png"])
    assert len(kept(place)) == COUNT


def test_what_a_killed_writer_or_late_reader_left_goes_with_the_next_writer(place: Path) -> None:
    verified(place)
    saved = {path: path.read_bytes() for path in kept(place)}
    cbir.remove_images(place, ["photos/1.png"])
    assert len(kept(place)) == COUNT - 1
    for path, data in saved.items():
        path.write_bytes(data)
    cbir.open_index(place, write=True).close()
    assert len(kept(place)) == COUNT - 1


def test_what_was_not_used_for_longest_is_removed_beyond_the_limit(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = verified(place)
    for age, path in enumerate(kept(place)):
        os.utime(path, (1e9 - age, 1e9 - age))
    least, used = kept(place)[-1], kept(place)[:-1]
    folder = place / "keypoints"
    (folder / "notes.txt").write_text("another program's")
    draft = folder / f".{used[0].name}-1-1"
    draft.write_bytes(b"half")
    os.utime(draft, (1e9, 1e9))
    Image.fromarray(texture(50)).save(place.parent / "photos" / "new.png")
    cbir.index_images([place.parent / "photos"], place, descriptor=Grid())
    size = sum(path.stat().st_size for path in kept(place))
    monkeypatch.setattr(kept_files, "BYTES", size)
    monkeypatch.setattr(kept_files, "_CHECKED_EVERY", 1)
    os.utime(least, (1e9 - 99, 1e9 - 99))
    with cbir.Searcher.open(place, Grid()) as searcher:
        searcher.search(texture(50), k=1, verify=True, where="id=photos/new.png")
    assert least not in kept(place)
    assert set(used[:2]) <= set(kept(place))
    assert sum(path.stat().st_size for path in kept(place)) <= size
    assert not draft.exists()
    assert (folder / "notes.txt").read_text() == "another program's"
    (folder / "notes.txt").unlink()
    assert next(hit.id for hit in verified(place) if hit.id != "photos/new.png") == fresh[0].id


def test_an_entry_that_is_used_counts_as_new(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified(place)
    for path in kept(place):
        os.utime(path, (1e9, 1e9))
    verified(place)
    assert all(path.stat().st_mtime > 1e9 for path in kept(place))


@pytest.fixture
def writer(place: Path) -> Iterator[cbir.Index]:
    verified(place)
    opened = cbir.open_index(place, write=True)
    yield opened
    opened.close()


def test_verify_names_damaged_entries_and_repair_removes_only_them(
    place: Path, writer: cbir.Index
) -> None:
    assert writer.verify() == []
    damaged, *sound = kept(place)
    flip(50)([damaged])
    assert writer.verify() == ["keypoints: 1 file damaged"]
    assert writer.verify(repair=True) == ["keypoints: 1 file damaged"]
    assert kept(place) == sound
    assert writer.verify() == []
