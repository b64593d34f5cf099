"""Sources that lie in one another, and sources that are renamed, relocated or removed."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

import cbir
from cbir.errors import QueryError
from cbir.ingest.places import relocate_source, rename_source
from tests.descriptors.support_photos import write_photos
from tests.ingest.support_runs import check_equal_to_fresh, described, records


@pytest.fixture
def outer(tmp_path: Path) -> Path:
    folder = write_photos(tmp_path / "outer")
    write_photos(folder / "a b" / "inner", per_colour=1)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def sources(place: Path) -> dict[str, str]:
    with closing(cbir.open_index(place)) as index:
        return index.sources()


@pytest.mark.parametrize("reverse", [False, True])
def test_nested_sources_of_one_run_are_indexed_once(
    outer: Path, place: Path, tmp_path: Path, reverse: bool
) -> None:
    inner = outer / "a b" / "inner"
    named = [outer, inner, outer / "red" / "0.png"]
    number, report = described(named[::-1] if reverse else named, place)
    assert (number, report.added) == (15, 15)
    assert report.nested == {str(inner): "outer", str(outer / "red" / "0.png"): "outer"}
    assert sources(place) == {"outer": str(outer)}
    check_equal_to_fresh(place, [outer], tmp_path / "fresh.cbir")


def test_a_folder_in_an_indexed_one_is_part_of_it(outer: Path, place: Path, tmp_path: Path) -> None:
    described(outer, place, label_from_folder=True)
    inner = outer / "a b" / "inner"
    (inner / "red" / "0.png").rename(inner / "new.png")
    (inner / "blue" / "0.png").unlink()
    (outer / "red" / "0.png").unlink()  # not looked at
    number, report = described(inner, place, label_from_folder=True)
    assert (number, report.moved, report.unchanged, report.missing) == (0, 1, 1, 1)
    assert report.nested == {str(inner): "outer"}
    found = records(place)
    assert found["outer/a%20b/inner/new.png"].label == "inner"
    assert not found["outer/red/0.png"].missing
    assert found["outer/a%20b/inner/blue/0.png"].missing
    number, report = described(inner / "green" / "0.png", place)
    assert (report.unchanged, report.missing) == (1, 0)
    assert sources(place) == {"outer": str(outer)}


def test_indexed_folders_become_part_of_one_around_them(
    outer: Path, place: Path, tmp_path: Path
) -> None:
    inner = outer / "a b" / "inner"
    table = tmp_path / "facts.csv"
    table.write_text("path,year\nred/0.png,1999\n")
    described([inner, outer / "red"], place, metadata=table)
    cbir.remove_images(place, ["inner/blue/0.png"])
    number, report = described(outer, place)
    # One of the eight new ones is a copy of what is there already.
    assert (number, report.added, report.unchanged, report.kept_out) == (7, 8, 6, 1)
    assert report.nested == {str(inner): "outer", str(outer / "red"): "outer"}
    assert sources(place) == {"outer": str(outer)}
    assert records(place)["outer/a%20b/inner/red/0.png"].metadata == {"year": 1999}
    assert described(outer, place)[1].nested == {}
    described(outer, place, again=True)
    check_equal_to_fresh(place, [outer], tmp_path / "fresh.cbir")


def test_a_renamed_source_is_an_index_under_that_name(tmp_path: Path, place: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    long = "x" * 120
    deep = photos / long / long / long / long / long
    deep.mkdir(parents=True)
    shutil.copy(photos / "red" / "0.png", deep / "deep.png")
    (photos / "bad.jpg").write_text("no picture")
    described(photos, place)
    cbir.remove_images(place, ["photos/red/1.png"])
    with closing(cbir.open_index(place, write=True)) as index:
        assert rename_source(index, "photos", "pictures") == 12
        assert [failure.source for failure in index.failures()] == ["pictures"]
        assert list(index.tombstones()) == ["pictures/red/1.png"]
        assert list(index.runs()) == ["pictures"]
        for old, new in (("none", "x"), *(("pictures", n) for n in ("pictures", "a/b", ".."))):
            with pytest.raises(QueryError):
                rename_source(index, old, new)
    number, report = described(photos, place)
    assert (number, report.unchanged, report.kept_out, report.missing) == (0, 12, 1, 0)
    assert {i.split("/")[0] for i in records(place)} == {"pictures"}


def test_sources_are_relocated_by_name_or_by_the_path_above_them(
    tmp_path: Path, place: Path
) -> None:
    disk = tmp_path / "disk"
    folders = [write_photos(disk / name, per_colour=1) for name in ("one", "two")]
    described(folders, place)
    before = records(place)
    new = disk.rename(tmp_path / "mounted")
    with closing(cbir.open_index(place, write=True)) as index:
        moved = relocate_source(index, str(disk), new)
        assert moved == {name: str(new / name) for name in ("one", "two")} == index.sources()
        (new / "two").rename(new / "three")
        assert relocate_source(index, "two", new / "three") == {"two": str(new / "three")}
        with pytest.raises(QueryError, match="no source is called 'none'"):
            relocate_source(index, "none", new)
        with pytest.raises(QueryError, match="no such file or folder"):
            relocate_source(index, "one", tmp_path / "nowhere")
    number, report = described([new / "one", new / "three"], place)
    assert (number, report.unchanged) == (0, 6)
    assert records(place).keys() == before.keys()


def test_a_source_is_not_relocated_to_where_none_of_its_images_are(
    tmp_path: Path, place: Path
) -> None:
    folders = [write_photos(tmp_path / "disk" / name, per_colour=1) for name in ("one", "two")]
    described(folders, place)
    other = tmp_path / "other"
    (other / "one" / "red").mkdir(parents=True)
    known = sources(place)
    with closing(cbir.open_index(place, write=True)) as index:
        for old, new in (("one", other), (str(tmp_path / "disk"), other)):
            with pytest.raises(QueryError, match="no image of one is in"):
                relocate_source(index, old, new)
        assert index.sources() == known
        shutil.copy(folders[0] / "red" / "0.png", other / "one" / "red")
        with pytest.raises(QueryError, match="no image of two is in"):
            relocate_source(index, str(tmp_path / "disk"), other)
        assert index.sources() == known
        to_link = tmp_path / "link"
        to_link.symlink_to(tmp_path / "disk")
        assert relocate_source(index, str(to_link / "one"), other / "one")


def test_a_removed_source_is_forgotten(tmp_path: Path, place: Path) -> None:
    folders = [write_photos(tmp_path / name, per_colour=1) for name in ("one", "two")]
    described(folders, place)
    with closing(cbir.open_index(place, write=True)) as index:
        assert len(index.remove_source("one")) == 3
    assert sources(place) == {"two": str(folders[1])}
    assert described(folders[0], place)[1].added == 3
