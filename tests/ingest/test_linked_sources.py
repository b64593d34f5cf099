"""Symbolic links from one source into another: each file is indexed once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import cbir
from cbir.images.folders import FolderSource
from tests.descriptors.support_photos import write_photos
from tests.ingest.support_runs import check_equal_to_fresh, described, held, records

LINKED = [f"lib/link/{colour}/0.png" for colour in ("blue", "green", "red")]


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A folder with three pictures of its own and a link to the folder `out` beside it."""
    write_photos(tmp_path / "out", per_colour=1)
    folder = write_photos(tmp_path / "lib" / "own", per_colour=1).parent
    (folder / "link").symlink_to(tmp_path / "out")
    return folder


@pytest.fixture
def out(lib: Path) -> Path:
    return lib.parent / "out"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def sources_of(place: Path) -> list[str]:
    return sorted(record_id.split("/")[0] for record_id in records(place))


@pytest.mark.parametrize("target", [".", "red"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_link_into_another_source_of_the_run_is_not_followed(
    lib: Path, out: Path, place: Path, tmp_path: Path, order: int, target: str
) -> None:
    (lib / "link").unlink()
    (lib / "link").symlink_to(out / target)
    _, report = described([lib, out][::order], place)
    assert (report.added, len(records(place))) == (6, 6)
    assert report.nested == {str(lib / "link"): "out"}
    before = held(place)
    for again in ([lib], [out], [out, lib]):
        number, report = described(again, place)
        assert (number, report.added, report.moved, report.missing, report.dropped) == (0,) * 5
        assert report.nested == ({str(lib / "link"): "out"} if lib in again else {})
    assert held(place) == before
    check_equal_to_fresh(place, [lib, out], tmp_path / "fresh.cbir")


@pytest.mark.parametrize("named", [("out",), ("lib", "out"), ("out", "lib")])
def test_records_that_were_made_through_a_link_follow_their_files(
    lib: Path, out: Path, place: Path, tmp_path: Path, named: tuple[str, ...]
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,year\nlink/red/0.png,1999\n")
    assert described(lib, place, metadata=table)[0] == 6
    cbir.remove_images(place, ["lib/link/blue/0.png"])
    number, report = described([lib.parent / name for name in named], place)
    assert (number, report.added, report.moved, report.missing) == (0, 0, 2, 0)
    assert sources_of(place) == ["lib"] * 3 + ["out"] * 2
    assert records(place)["out/red/0.png"].metadata == {"year": 1999}
    number, report = described([lib, out], place)
    assert (number, report.unchanged, report.kept_out, report.missing) == (0, 5, 1, 0)
    described([lib, out], place, again=True)
    for record_id in records(place):
        assert record_id not in LINKED


def test_a_link_to_a_folder_above_another_source_goes_around_it(
    lib: Path, out: Path, place: Path, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    shutil.copytree(out, above / "more")
    (out / "red" / "0.png").unlink()
    out.rename(above / "out")
    (lib / "link").unlink()
    (lib / "link").symlink_to(above)
    (above / "out" / "back").symlink_to(lib)
    (lib / "own" / "up").symlink_to(lib)
    _, report = described([lib, above / "out"], place)
    assert (report.added, len(records(place))) == (8, 8)
    assert report.nested == {
        str(lib / "link" / "out"): "out",
        str(above / "out" / "back"): "lib",
    }
    assert "lib/link/more/red/0.png" in records(place)


def test_links_to_no_source_or_to_one_picture_of_a_folder_are_followed(
    lib: Path, out: Path, place: Path
) -> None:
    (lib / "pic.png").symlink_to(out / "red" / "0.png")
    _, report = described([lib, out / "red" / "0.png"], place)
    assert {"lib/pic.png", "red/0.png", *LINKED} <= set(records(place))
    assert (report.nested, len(records(place))) == ({}, 8)
    _, report = described([lib, out], place)
    assert "lib/pic.png" in records(place)
    assert not set(LINKED) & set(records(place))


@pytest.mark.parametrize("gone", [False, True])
def test_records_that_an_earlier_run_made_twice_become_one(
    lib: Path,
    out: Path,
    place: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    gone: bool,
) -> None:
    table, other = tmp_path / "facts.csv", tmp_path / "other.csv"
    table.write_text("path,label,year,place\nlink/red/0.png,rose,1999,Graz\nlink/blue/0.png,,7,\n")
    other.write_text("path,year\nblue/0.png,8\nred/0.png,1999\n")
    # Two folders, then one becomes a link to the other: the same records as an old version made.
    (lib / "link").unlink()
    shutil.copytree(out, lib / "link")
    described(lib, place, metadata=table)
    described(out, place, metadata=other)
    shutil.rmtree(lib / "link")
    (lib / "link").symlink_to(out)
    assert len(records(place)) == 9
    if gone:
        (out / "green" / "0.png").unlink()
    number, report = described(lib, place)
    assert (number, report.dropped, report.missing, report.moved) == (0, 3, 0, 0)
    found = records(place)
    assert sources_of(place) == ["lib"] * 3 + ["out"] * 3
    assert found["out/red/0.png"].label == "rose"
    assert found["out/red/0.png"].metadata == {"year": 1999, "place": "Graz"}
    assert found["out/blue/0.png"].metadata == {"year": 8}
    assert "was dropped for lib/link/blue/0.png, because" in caplog.text
    assert described([lib, out], place)[1].missing == gone
    assert records(place)["out/red/0.png"].label == "rose"


def test_records_stay_while_the_other_source_is_not_mounted(
    lib: Path, out: Path, place: Path
) -> None:
    described(lib, place)
    before = records(place)
    drive = out.rename(out.with_name("drive"))
    out.mkdir()
    _, report = described([lib, out], place)
    assert (report.missing, report.dropped, records(place).keys()) == (3, 0, before.keys())
    out.rmdir()
    drive.rename(out)
    number, report = described([lib, out], place)
    assert (number, report.moved, report.missing) == (0, 3, 0)
    assert not set(LINKED) & set(records(place))


def test_records_that_the_other_source_does_not_have_yet_wait_for_it(
    lib: Path, out: Path, place: Path, tmp_path: Path
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,year\nlink/new/1.png,1999\n")
    described(out, place)
    (lib / "link").unlink()
    shutil.copytree(out, lib / "link")
    write_photos(tmp_path / "more", per_colour=2)
    (tmp_path / "more" / "red").rename(lib / "link" / "new")
    described(lib, place, metadata=table)
    shutil.rmtree(out)
    (lib / "link").rename(out)
    (lib / "link").symlink_to(out)
    _, report = described(lib, place)
    assert (report.dropped, report.missing) == (3, 0)
    assert {i for i in records(place) if "new" in i} == {f"lib/link/new/{n}.png" for n in (0, 1)}
    number, report = described(out, place)
    assert (number, report.moved, report.missing) == (0, 2, 0)
    assert records(place)["out/new/1.png"].metadata == {"year": 1999}
    assert sources_of(place) == ["lib"] * 3 + ["out"] * 5


def test_a_walk_resolves_only_links(lib: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = []
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: resolved.append(str(path)) or real(path))
    source = FolderSource(lib)
    source.others = {str(out): "out"}
    assert len(list(source.items())) == 3
    assert sorted(resolved) == sorted([str(out), str(lib), str(lib / "link")])
