"""What an indexing run does with images that are excluded, before and after they were indexed."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

import cbir
from cbir.types import AddReport
from tests.descriptors.support_photos import MeanColour, write_photos
from tests.ingest.support_runs import described, records

GREEN = [f"photos/green/{number}.png" for number in range(4)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def index(source: Path, into: Path, **options: object) -> AddReport:
    return cbir.index_images([source], into, descriptor=MeanColour(), **options)  # type: ignore[arg-type]


def ids(place: Path) -> list[str]:
    with closing(cbir.open_index(place)) as opened:
        return list(opened.ids())


def test_excluded_images_are_not_indexed_and_the_report_names_them(
    photos: Path, place: Path
) -> None:
    write_photos(photos / "red" / "@eaDir", per_colour=1)
    write_photos(photos / "@eaDir", per_colour=1)
    report = index(photos, place, exclude=["green/", "blue/3.png", "nothing*"])
    assert report.added == 7
    assert report.excluded == {"green/": 1, "3.png": 1}
    assert report.passed_over == {"@eaDir/": 2}
    assert report.unused_excludes == ["nothing*"]
    assert not any("green" in record_id or "@eaDir" in record_id for record_id in ids(place))


def test_records_of_images_that_are_excluded_later_are_removed(photos: Path, place: Path) -> None:
    index(photos, place)
    everything = ids(place)
    report = index(photos, place, exclude=["green"])
    assert (report.dropped, report.unchanged, report.missing, report.removed) == (4, 8, 0, 0)
    assert ids(place) == [record_id for record_id in everything if record_id not in GREEN]
    # Nothing forbids them to come back.
    report = index(photos, place)
    assert (report.added, report.dropped) == (4, 0)
    assert ids(place) == everything


def test_pictures_that_leave_an_excluded_folder_are_not_described_again(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,year\ngreen/0.png,1999\ngreen/1.png,2000\n")
    index(photos, place, metadata=table)
    (photos / "green" / "0.png").rename(photos / "moved.png")
    shutil.copy(photos / "green" / "1.png", photos / "copy.png")
    number, report = described(photos, place, exclude=["green", "blue"])
    assert (number, report.moved, report.added, report.dropped) == (0, 1, 1, 7)
    found = records(place)
    assert found["photos/moved.png"].metadata == {"year": 1999}
    assert found["photos/copy.png"].metadata == {}
    assert len(found) == 6


def test_a_warning_names_the_excluded_images_whose_given_fields_are_dropped(
    photos: Path, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,year\ngreen/0.png,1999\nred/0.png,2000\n")
    index(photos, place, metadata=table)
    assert index(photos, place, exclude=["green", "blue"]).dropped == 8
    [warning] = caplog.messages
    assert "dropped with the excluded images photos/green/0.png;" in warning
    index(photos, place)
    assert records(place)["photos/green/0.png"].metadata == {}
    index(photos, place, metadata=table)
    assert records(place)["photos/green/0.png"].metadata == {"year": 1999}


def test_excluding_most_images_is_no_reason_to_refuse_to_prune(photos: Path, place: Path) -> None:
    index(photos, place)
    (photos / "red" / "0.png").unlink()
    report = index(photos, place, exclude=["blue", "green"], prune=True)
    assert (report.dropped, report.removed, len(ids(place))) == (8, 1, 3)


def test_the_records_of_other_sources_stay(tmp_path: Path, photos: Path, place: Path) -> None:
    other = write_photos(tmp_path / "other" / "photos")
    cbir.index_images([photos, other], place, descriptor=MeanColour())
    assert index(other, place, exclude=["green"]).dropped == 4
    assert len(ids(place)) == 20
    assert set(GREEN) < set(ids(place))


def test_an_ignore_file_holds_for_every_run(photos: Path, place: Path) -> None:
    index(photos, place)
    (photos / "green" / ".cbirignore").write_text("*\n!/2.png\n")
    for dropped in (3, 0):
        report = index(photos, place)
        assert (report.dropped, report.unchanged) == (dropped, 9)
    assert GREEN[2] in ids(place)


def test_a_missing_file_or_an_unusable_ignore_file_drops_nothing(photos: Path, place: Path) -> None:
    index(photos, place)
    (photos / "green" / ".cbirignore").write_text("!\n")
    report = index(photos, place)
    assert (report.dropped, report.missing, report.unchanged) == (0, 0, 8)
    assert [failure.location for failure in report.failures] == ["green"]
    (photos / "green" / ".cbirignore").unlink()
    (photos / "red" / "0.png").unlink()
    report = index(photos, place, exclude=["blue/0.png"])
    assert (report.dropped, report.missing) == (1, 1)


def test_members_of_an_archive_are_dropped_too(tmp_path: Path, photos: Path, place: Path) -> None:
    for kind in ("zip", "tar"):
        archive = Path(shutil.make_archive(str(tmp_path / kind), kind, photos))
        assert index(archive, place).added == 12
        report = index(archive, place, exclude=["green", "blue/1.png"])
        assert (report.dropped, report.unchanged, report.missing) == (5, 7, 0)
        assert report.excluded == {"green/": 1, "1.png": 1}


def test_nothing_is_indexed_if_everything_is_excluded(photos: Path, place: Path) -> None:
    report = index(photos, place, exclude=["*"])
    assert (report.added, report.excluded) == (0, {"blue/": 1, "green/": 1, "red/": 1})
    assert not place.exists()


def test_a_folder_inside_a_source_has_its_rules_and_patterns_of_its_own(
    photos: Path, place: Path
) -> None:
    (photos / ".cbirignore").write_text("3.png\n/red/1.png\n")
    index(photos, place)
    report = index(photos / "red", place, exclude=["/0.png"])
    assert (report.unchanged, report.added, report.dropped, report.missing) == (1, 0, 1, 0)
    red = [record_id for record_id in ids(place) if "/red/" in record_id]
    assert red == ["photos/red/2.png"]
