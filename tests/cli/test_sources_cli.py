"""`cbir sources`, `cbir remove`, and what `cbir index` says of moved and removed images."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from tests.cli.support_cli import call
from tests.descriptors.support_photos import write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", per_colour=2)


@pytest.fixture
def place(photos: Path, tmp_path: Path) -> Path:
    place = tmp_path / "photos.cbir"
    assert call("index", photos, "--into", place, "--descriptor", "classic").code == 0
    return place


def test_moves_are_told_and_the_moved_picture_is_found_once(photos: Path, place: Path) -> None:
    moved = photos / "new" / "a.png"
    moved.parent.mkdir()
    (photos / "red" / "0.png").rename(moved)
    assert "1 moved, 5 unchanged" in call("index", photos, "--into", place).out
    hits = call("search", moved, "--in", place, "-k", 6, "--json").json[0]["hits"]
    assert hits[0]["path"] == str(moved)
    assert "photos/red/0.png" not in [hit["id"] for hit in hits]
    report = call("index", photos, "--into", place, "--json").json
    assert (report["moved"], report["unchanged"]) == (0, 6)


def test_a_folder_found_elsewhere_and_one_in_another_are_told(photos: Path, place: Path) -> None:
    elsewhere = photos.rename(photos.parent / "elsewhere")
    said = call("index", elsewhere, "--into", place).out
    assert f"source photos was found at {elsewhere}; its images keep their ids" in said
    assert "6 unchanged" in said
    inner = elsewhere / "red"
    said = call("index", inner, "--into", place).out
    assert f"{inner} is part of source photos; its images are indexed once" in said


def test_removed_images_are_kept_out_and_that_is_told(
    photos: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert call("remove", place, "photos/red/*", "--where", "path!=red/1.png").out == "1 removed\n"
    assert call("remove", place, "photos/blue/0.png", "--json").json == {
        "removed": ["photos/blue/0.png"]
    }
    said = call("index", photos, "--into", place).out
    assert "2 removed images kept out; --again adds them" in said
    assert call("info", place, "--json").json["kept_out"] == 2
    assert " 2 (kept out; cbir index --again adds them)\n" in call("info", place).out
    assert "2 added, 4 unchanged" in call("index", photos, "--into", place, "--again").out
    message, _ = call("remove", place, "photos/none", "x*").error
    assert message == f"not in {place}: photos/none, x*"
    assert call("remove", place).code == 2
    # A server in the same process would have switched this log off.
    with caplog.at_level(logging.WARNING, "cbir.search.near_misses"):
        said = call("remove", place, "--where", "location=red/9.png")
    assert said.out == "0 removed\n"
    assert "no image has location=red/9.png" in caplog.text
    shutil.rmtree(photos / "red")
    assert call("remove", place, "--where", "missing=true").out == "0 removed\n"
    call("index", photos, "--into", place)
    assert call("remove", place, "--where", "missing=true").out == "2 removed\n"


def test_nothing_but_removed_images_is_no_error(photos: Path, place: Path) -> None:
    assert call("remove", place, "*").out == "6 removed\n"
    assert call("index", photos, "--into", place).code == 0


def test_sources_are_listed(photos: Path, place: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "red" / "0.png").unlink()
    call("index", photos, "--into", place)
    [row] = call("sources", place, "--json").json
    assert row.pop("last_run").startswith("20")
    assert row == {
        "name": "photos",
        "uri": str(photos),
        "found": True,
        "confirmed": True,
        "images": 6,
        "missing": 1,
        "failed": 1,
        "finished": True,
    }
    shutil.rmtree(photos)
    header, line = call("sources", place).out.splitlines()
    assert header.split() == ["source", "images", "missing", "failed", "last", "run", "where"]
    assert line.split()[:4] == ["photos", "6", "1", "1"]
    assert line.endswith(f"{photos} (not there)")


def test_sources_are_renamed_relocated_and_removed(photos: Path, place: Path) -> None:
    answer = call("sources", place, "--rename", "photos", "pictures", "--json")
    assert [row["name"] for row in answer.json] == ["pictures"]
    assert answer.err == "photos is now pictures: 6 images renamed\n"
    elsewhere = photos.rename(photos.parent / "elsewhere")
    answer = call("sources", place, "--relocate", photos, elsewhere)
    assert answer.err == f"pictures is at {elsewhere}\n"
    assert "6 unchanged" in call("index", elsewhere, "--into", place).out
    assert call("sources", place, "--relocate", "none", elsewhere).error == (
        "no source is called 'none'",
        "registered sources: pictures",
    )
    answer = call("sources", place, "--remove", "pictures", "--json")
    assert (json.loads(answer.out), answer.err) == ([], "pictures removed: 6 images\n")
    assert call("info", place, "--json").json["count"] == 0


def test_a_source_may_be_named_as_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "my pics", per_colour=1)
    assert call("index", "my pics", "--into", "p.cbir").code == 0
    assert call("sources", "p.cbir", "--relocate", "my pics", "my pics").code == 0
    assert call("sources", "p.cbir", "--rename", "my pics", "mine").code == 0
    assert [row["name"] for row in call("sources", "p.cbir", "--json").json] == ["mine"]
    (tmp_path / "my pics").rename(tmp_path / "my other pics")
    assert call("index", "my other pics", "--into", "q.cbir").code == 0
    assert call("sources", "q.cbir", "--remove", "my other pics").code == 0
    assert call("sources", "q.cbir", "--json").json == []


def test_an_index_without_sources_says_how_to_add_one(place: Path) -> None:
    assert call("sources", place, "--remove", "photos").code == 0
    told = call("sources", place)
    assert (told.code, told.out) == (0, "")
    assert f"{place} has no sources; cbir index FOLDER --into" in told.err
