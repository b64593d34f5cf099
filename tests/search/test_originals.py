"""Originals are opened only where a person said so, and only if they are the indexed pictures."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError, QueryError
from cbir.home import cbir_home
from cbir.index.open import open_index
from cbir.ingest.compose import compose_indexes
from cbir.ingest.copy import copy_index
from cbir.ingest.places import confirm_sources, relocate_source, rename_source
from cbir.search.originals import OriginalError, original, unconfirmed
from cbir.search.query import IndexedId
from cbir.search.searcher import Searcher
from cbir.search.why import why
from tests.cli.support_cli import call

FIRST = "photos/red/0.png"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures that are too large to be their own thumbnails."""
    draw = np.random.default_rng(0)
    for colour in ("red", "blue"):
        (tmp_path / "photos" / colour).mkdir(parents=True)
        for number in range(2):
            pixels = draw.integers(0, 256, (300, 300, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / colour / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def place(photos: Path, tmp_path: Path) -> Path:
    cbir.index_images([photos], tmp_path / "x.cbir", descriptor="classic")
    return tmp_path / "x.cbir"


def sql(place: Path, *statements: str) -> None:
    with closing(sqlite3.connect(place / "index.sqlite")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def as_if_from_elsewhere() -> None:
    (cbir_home() / "sources.json").unlink()


def state(place: Path, record_id: str = FIRST) -> str:
    """ "open", or why the original is not opened; `why` must say the same."""
    with closing(Searcher.open(place)) as searcher:
        said = why(searcher, IndexedId(record_id), record_id)
        assert said.kept is not None
        try:
            original(searcher.index, record_id)
        except OriginalError as error:
            assert said.kept.state == error.state
            return error.state
    assert said.kept.state == "unchanged"
    return "open"


def test_originals_of_an_index_made_here_are_opened(place: Path, photos: Path) -> None:
    with closing(open_index(place)) as index:
        assert original(index, FIRST) == (photos / "red" / "0.png").read_bytes()
        assert unconfirmed(index) == {}


def test_an_index_from_elsewhere_opens_no_file_and_says_so_once(
    place: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_if_from_elsewhere()
    assert state(place) == "unconfirmed"
    with closing(Searcher.open(place)) as searcher:
        hits = searcher.search(IndexedId(FIRST), k=3)
        assert len(hits) == 3 and searcher.index.thumbnail(FIRST)
        with pytest.raises(OriginalError, match="are not opened"):
            searcher.search(IndexedId(FIRST), verify=True)
        for _ in range(2):
            hits = searcher.search(photos / "red" / "0.png", verify=True)
            assert [hit.inliers for hit in hits] == [None] * 4
    lines = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(lines) == 1
    assert f"cbir sources {place} --confirm" in lines[0]


def test_a_source_moved_by_another_hand_is_not_read(place: Path, photos: Path) -> None:
    """The index is known, but what it says now is not what the person gave."""
    elsewhere = photos.parent / "private"
    photos.rename(elsewhere)
    sql(place, f"UPDATE sources SET uri = '{elsewhere}'")
    assert state(place) == "unconfirmed"
    inside = f"{elsewhere}/red/0.png".lstrip("/")
    to_root = "UPDATE sources SET uri = '/'"
    sql(place, to_root, f"UPDATE records SET location = '{inside}' WHERE id = '{FIRST}'")
    assert state(place) == "unconfirmed"


@pytest.mark.parametrize("again", [True, False])
def test_indexing_a_source_again_or_confirming_it_opens_its_originals(
    place: Path, photos: Path, again: bool
) -> None:
    as_if_from_elsewhere()
    if again:
        cbir.index_images([photos], place)
    else:
        with closing(open_index(place)) as index:
            assert confirm_sources(index, ["photos"]) == {"photos": str(photos)}
            assert confirm_sources(index) == {}
            with pytest.raises(QueryError, match="no source is called 'other'"):
                confirm_sources(index, ["other"])
    assert state(place) == "open"


def test_a_part_of_a_source_does_not_confirm_the_whole(place: Path, photos: Path) -> None:
    """Who indexes a folder into an index that claims `/` does not mean `/`."""
    as_if_from_elsewhere()
    report = cbir.index_images([photos / "red"], place)
    assert report.nested == {str(photos / "red"): "photos"}
    assert state(place) == "unconfirmed"


def test_renaming_relocating_copying_and_composing_keep_what_was_confirmed(
    place: Path, photos: Path, tmp_path: Path
) -> None:
    moved = photos.rename(tmp_path / "moved")
    with closing(open_index(place, write=True)) as index:
        relocate_source(index, "photos", moved)
    assert state(place) == "open"
    with closing(open_index(place, write=True)) as index:
        rename_source(index, "photos", "mine")
    assert state(place, "mine/red/0.png") == "open"
    copy_index(str(place), str(tmp_path / "copy.cbir"))
    assert state(tmp_path / "copy.cbir", "mine/red/0.png") == "open"
    cbir.index_images([moved], tmp_path / "bovw.cbir", descriptor="cifar10-bovw")
    with closing(open_index(tmp_path / "bovw.cbir", write=True)) as index:
        rename_source(index, "moved", "mine")
    compose_indexes([place, tmp_path / "bovw.cbir"], tmp_path / "both.cbir")
    assert state(tmp_path / "both.cbir", "mine/red/0.png") == "open"
    as_if_from_elsewhere()
    copy_index(str(place), str(tmp_path / "strange.cbir"))
    assert state(tmp_path / "strange.cbir", "mine/red/0.png") == "unconfirmed"


def test_a_copy_is_completed_where_nothing_can_be_confirmed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("cbir.index.confirmed.write_whole", refuse)
    assert copy_index(str(place), str(tmp_path / "copy.cbir")).compared == 4
    assert "originals will not be opened" in caplog.text


def test_a_path_with_dots_is_not_relocated_out_of_the_new_place(
    place: Path, photos: Path, tmp_path: Path
) -> None:
    as_if_from_elsewhere()
    sql(place, f"UPDATE sources SET uri = '/media/disk/../../{photos}'")
    (tmp_path / "new").mkdir()
    with closing(open_index(place, write=True)) as index, pytest.raises(QueryError):
        relocate_source(index, "/media/disk", tmp_path / "new")
    assert state(place) == "unconfirmed"


def test_a_changed_original_is_not_taken_for_the_indexed_picture(place: Path, photos: Path) -> None:
    shutil.copy(photos / "blue" / "0.png", photos / "red" / "0.png")
    assert state(place) == "changed"
    with closing(Searcher.open(place)) as searcher:
        with pytest.raises(OriginalError, match="has changed since it was indexed"):
            searcher.search(cbir.Query(IndexedId(FIRST), region=(0, 0, 0.5, 0.5)))
        hits = {hit.id: hit for hit in searcher.search(photos / "red" / "1.png", verify=True)}
        assert hits[FIRST].verified is False and hits[FIRST].inliers is None


def test_a_name_that_leads_out_of_a_source_opens_nothing(place: Path, photos: Path) -> None:
    shutil.copy(photos / "red" / "0.png", photos.parent / "private.png")
    sql(place, f"UPDATE records SET location = '../private.png' WHERE id = '{FIRST}'")
    assert state(place) == "gone"


def test_a_link_out_of_a_source_is_followed_only_to_the_indexed_file(
    place: Path, photos: Path, tmp_path: Path
) -> None:
    """Neither if a picture becomes a link after indexing, nor if an index says what is there."""
    first, private = photos / "red" / "0.png", tmp_path / "private.png"
    shutil.copy(first, private)  # the indexed content
    for target in (private, photos / "blue" / "copy.png"):
        shutil.copy(private, photos / "blue" / "copy.png")
        first.unlink()
        first.symlink_to(target)
        assert state(place) == ("changed" if target == private else "open")
    (photos / "blue" / "copy.png").unlink()
    assert state(place) == "gone"
    shutil.move(photos / "red", tmp_path / "elsewhere")
    (photos / "red").symlink_to(tmp_path / "elsewhere")
    assert state(place) == "gone"  # a link to a link that leads nowhere
    shutil.copy(private, tmp_path / "elsewhere" / "1.png")
    assert state(place, "photos/red/1.png") == "changed"
    cbir.index_images([photos], place)  # follows links, as the person wants it
    assert state(place, "photos/red/1.png") == "open"


def test_a_record_without_a_stamp_is_not_followed_through_a_link_until_it_has_one(
    place: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.move(photos / "red", tmp_path / "elsewhere")
    (photos / "red").symlink_to(tmp_path / "elsewhere")
    cbir.index_images([photos], place)
    with closing(open_index(place, write=True)) as index:  # as in format 1
        stamps = index.stamps("photos").items()
        index.touch({i: stamp.file._replace(stamp=None) for i, stamp in stamps})
    as_if_from_elsewhere()
    with closing(open_index(place)) as index:
        confirm_sources(index)
        with pytest.raises(OriginalError, match="does not know the inode") as caught:
            original(index, FIRST)
        assert caught.value.hint == f"cbir index {photos} --into {place}"
    with closing(Searcher.open(place)) as searcher:
        said = why(searcher, IndexedId(FIRST), FIRST)
        assert said.kept is not None and "does not know the inode" in said.kept.reason
        assert "link out of its source" in said.sentences[-1]
    assert (state(place), state(place, "photos/blue/0.png")) == ("changed", "open")
    assert cbir.index_images([photos], place).unchanged == 4
    assert state(place) == "open"


def test_the_file_system_that_a_link_leads_to_says_whether_inodes_count(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inodes of a network drive change at each mount; those of the folder do not."""
    drive, place = tmp_path / "drive", tmp_path / "x.cbir"
    shutil.move(photos / "red", drive)
    (photos / "red").symlink_to(drive)
    stat, inodes = os.stat, itertools.count(1)

    def on_drive(path: Any, **more: Any) -> os.stat_result:
        status = stat(path, **more)
        if not str(path).startswith(str(photos / "red")):
            return status
        times = {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_ctime_ns}
        return os.stat_result((status.st_mode, next(inodes), 999, *status[3:]), times)

    monkeypatch.setattr(os, "stat", on_drive)
    monkeypatch.setattr("cbir.images.folders.keeps_inodes", lambda path: path.stat().st_dev != 999)
    cbir.index_images([photos], place, descriptor="classic")
    with closing(open_index(place)) as index:
        stamps = {i: s.stamp for i, s in index.stamps("photos").items()}
    assert stamps[FIRST] is None and stamps["photos/blue/0.png"] is not None
    assert (state(place), state(place, "photos/blue/0.png")) == ("open", "open")
    sql(place, "UPDATE records SET stamp = '1-1'")  # of a version that asked the folder
    assert state(place) == "open"


def test_a_source_whose_place_cannot_be_looked_at_ends_no_search(place: Path, photos: Path) -> None:
    uri = f"/{'n' * 300}"  # the system refuses the name, as it may refuse a folder or a bad disk
    sql(place, f"UPDATE sources SET uri = '{uri}'")
    assert state(place) == "unconfirmed"
    with closing(open_index(place)) as index:
        assert confirm_sources(index) == {"photos": uri}
    assert state(place) == "gone"
    with closing(Searcher.open(place)) as searcher:
        assert len(searcher.search(photos / "blue" / "0.png", verify=True)) == 4
    for option in ("--json", "--paths", "-k3"):
        assert call("search", photos / "blue" / "0.png", "--in", place, option).code == 0
    assert cbir.index_images([photos / "blue"], place).failures == []


def test_what_cannot_be_looked_at_behind_a_link_is_gone(
    place: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.move(photos / "red", tmp_path / "elsewhere")
    (photos / "red").symlink_to(tmp_path / "elsewhere")
    sql(place, f"UPDATE records SET location = 'red/{'n' * 300}.png' WHERE id = '{FIRST}'")
    assert state(place) == "gone"  # the system refuses the name, as it may refuse a bad disk
    with closing(Searcher.open(place)) as searcher:
        hits = searcher.search(photos / "blue" / "0.png", verify=True)
        assert {hit.id: hit.inliers for hit in hits}[FIRST] is None and len(hits) == 4


def test_pictures_behind_links_out_of_a_source_are_opened(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "photos").symlink_to(photos)
    (tmp_path / "library" / "one.png").symlink_to(photos / "red" / "0.png")
    for stamped in (True, False):  # also where inodes are not kept
        monkeypatch.setattr("cbir.images.folders.keeps_inodes", lambda _, kept=stamped: kept)
        place = tmp_path / f"{stamped}.cbir"
        cbir.index_images([tmp_path / "library"], place, descriptor="classic")
        assert state(place, "library/one.png") == "open"
        assert state(place, "library/photos/blue/1.png") == "open"
    one = photos / "red" / "0.png"
    shutil.copy(one, tmp_path / "new.png")
    (tmp_path / "new.png").replace(one)
    assert state(tmp_path / "True.cbir", "library/one.png") == "changed"


def test_a_damaged_list_of_sources_is_named(place: Path) -> None:
    for wrong in ("{", "[]", json.dumps({"a": 1}), json.dumps({"a": {"b": 1}})):
        (cbir_home() / "sources.json").write_text(wrong)
        with closing(open_index(place)) as index, pytest.raises(CbirError, match=r"sources\.json"):
            original(index, FIRST)
