"""What a person removed stays out of the index, until asked for or changed."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

import cbir
from cbir.errors import QueryError
from tests.descriptors.support_photos import COLOURS, picture, write_photos
from tests.ingest.support_runs import described, records


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def place(photos: Path, tmp_path: Path) -> Path:
    described(photos, tmp_path / "photos.cbir", label_from_folder=True)
    return tmp_path / "photos.cbir"


@pytest.mark.parametrize(
    ("names", "where", "gone"),
    [
        (["photos/red/0.png"], [], {"photos/red/0.png"}),
        (["photos/red/*"], [], {f"photos/red/{n}.png" for n in range(4)}),
        (["*/[12].png"], ["label=red"], {"photos/red/1.png", "photos/red/2.png"}),
        ([], ["label=red", "path!=red/3.png"], {f"photos/red/{n}.png" for n in range(3)}),
        (["photos/blue/?.png", "photos/red/0.png"], ["path=blue/0.png"], {"photos/blue/0.png"}),
    ],
)
def test_ids_patterns_and_filters_name_what_to_remove(
    place: Path, names: list[str], where: list[str], gone: set[str]
) -> None:
    before = records(place)
    assert cbir.remove_images(place, names, where=where).removed == sorted(gone)
    assert before.keys() - records(place).keys() == gone


def test_names_may_be_written_as_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "Ko\u0308ln 50% a"
    folder.mkdir(parents=True)
    for number, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
    described(tmp_path / "photos", tmp_path / "photos.cbir")
    report = cbir.remove_images(tmp_path / "photos.cbir", ["photos/Köln 50% a/0.png"])
    assert (len(report.removed), report.absent) == (1, [])
    report = cbir.remove_images(tmp_path / "photos.cbir", ["photos/Köln 50%*/[12].png"])
    assert (len(report.removed), report.absent) == (2, [])


def test_names_that_match_nothing_are_told_and_the_rest_is_removed(place: Path) -> None:
    report = cbir.remove_images(place, ["photos/red/0.png", "photos/none", "x/*"])
    assert (report.removed, report.absent) == (["photos/red/0.png"], ["photos/none", "x/*"])
    with pytest.raises(QueryError, match="nothing to remove"):
        cbir.remove_images(place)


def test_an_id_with_the_characters_of_a_pattern_names_one_image(
    tmp_path: Path, place: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("a[1].png", "a1.png"):
        Image.fromarray(picture(COLOURS["red"], len(name))).save(folder / name)
    described(folder, place)
    assert cbir.remove_images(place, ["odd/a[1].png"]).removed == ["odd/a[1].png"]
    assert cbir.remove_images(place, ["odd/a[1].png"]).removed == ["odd/a1.png"]


def test_removed_images_stay_out_until_asked_for(photos: Path, place: Path) -> None:
    gone = cbir.remove_images(place, ["photos/red/*"]).removed
    number, report = described(photos, place)
    assert (number, report.kept_out, report.unchanged, report.added) == (0, 4, 8, 0)
    os.utime(photos / "red" / "0.png", (1, 1))  # read again, and still the same
    assert described(photos, place, rehash=True)[1].kept_out == 4
    assert len(records(place)) == 8
    number, report = described(photos, place, again=True)
    assert (number, report.kept_out, report.added) == (4, 0, 4)
    assert set(gone) < records(place).keys()
    assert described(photos, place)[1].unchanged == 12


def test_a_removed_image_that_moves_stays_out(photos: Path, place: Path) -> None:
    cbir.remove_images(place, ["photos/red/0.png"])
    (photos / "red" / "0.png").rename(photos / "renamed.png")
    for _ in range(2):
        number, report = described(photos, place)
        assert (number, report.kept_out, report.added, report.moved) == (0, 1, 0, 0)
    assert described(photos, place, again=True)[1].added == 1


def test_what_was_asked_for_again_may_move_and_be_copied(photos: Path, place: Path) -> None:
    cbir.remove_images(place, ["photos/red/0.png"])
    (photos / "red" / "0.png").rename(photos / "renamed.png")
    assert described(photos, place)[1].kept_out == 1
    assert described(photos, place, again=True)[1].added == 1
    shutil.copy(photos / "renamed.png", photos / "copy.png")
    report = described(photos, place)[1]
    assert (report.added, report.kept_out) == (1, 0)
    (photos / "renamed.png").rename(photos / "red" / "0.png")
    report = described(photos, place)[1]
    assert (report.moved, report.kept_out, report.missing) == (1, 0, 0)
    with closing(cbir.open_index(place)) as index:
        assert index.tombstones() == {}


def test_names_that_the_filters_leave_out_are_not_called_absent(place: Path) -> None:
    names = ["photos/red/*", "photos/red/0.png", "nothing*"]
    report = cbir.remove_images(place, names, where=["label=blue"])
    assert (report.removed, report.absent) == ([], ["nothing*"])


def test_asking_again_for_one_folder_keeps_the_others_out(photos: Path, place: Path) -> None:
    cbir.remove_images(place, ["photos/red/0.png", "photos/blue/0.png"])
    assert described(photos / "red", place, again=True)[1].added == 1
    assert described(photos, place)[1].kept_out == 1


def test_another_picture_of_the_same_name_and_a_copy_are_new(photos: Path, place: Path) -> None:
    cbir.remove_images(place, ["photos/red/0.png", "photos/red/1.png"])
    Image.fromarray(picture(COLOURS["blue"], 999)).save(photos / "red" / "0.png")
    (photos / "copy.png").write_bytes((photos / "red" / "1.png").read_bytes())
    number, report = described(photos, place)
    assert (number, report.added, report.kept_out, report.returned) == (2, 2, 1, 1)
    found = records(place)
    assert {"photos/red/0.png", "photos/copy.png"} < found.keys()
    assert "photos/red/1.png" not in found


def test_pruned_images_come_back_by_themselves(photos: Path, place: Path) -> None:
    path = photos / "red" / "0.png"
    data = path.read_bytes()
    path.unlink()
    assert described(photos, place, prune=True)[1].removed == 1
    path.write_bytes(data)
    assert described(photos, place)[1].added == 1
