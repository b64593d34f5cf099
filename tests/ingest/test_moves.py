"""Records follow files that move; nothing is described again, and nothing stands twice."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

import cbir
from cbir.ingest.moves import plan_moves, unbelievable
from cbir.ingest.run_state import Progress
from tests.descriptors.support_photos import COLOURS, MeanColour, picture, write_photos
from tests.index.embedded.support_index import python
from tests.ingest.support_runs import check_equal_to_fresh, described, records

DIES_AT = """
import os, signal, sys
import cbir
from cbir.index.embedded import record_rows, source_rows, thumbnail_rows
from tests.descriptors.support_photos import MeanColour
moment, photos, place = sys.argv[1:]
real = thumbnail_rows.delete_thumbnails
def die(connection, keys):
    if moment != "delete_thumbnails" or keys:  # it is called when a writer opens the index, too
        os.kill(os.getpid(), signal.SIGKILL)
    real(connection, keys)
modules = {"rename": record_rows, "rename_sources": source_rows}
dies = die if moment == "delete_thumbnails" else lambda *_: die(None, None)
setattr(modules.get(moment, thumbnail_rows), moment, dies)
cbir.index_images([photos], place, descriptor=MeanColour())
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(COLOURS["blue"], seed)).save(path)
    return path


def test_a_moved_file_is_the_same_record_elsewhere(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,year,label\nred/0.png,1999,crimson\n")
    described(photos, place, metadata=table)
    before = records(place)["photos/red/0.png"]
    (photos / "new").mkdir()
    (photos / "red" / "0.png").rename(photos / "new" / "name.png")
    number, report = described(photos, place)
    assert (number, report.moved, report.unchanged, report.added) == (0, 1, 11, 0)
    assert (report.missing, report.updated) == (0, 0)
    after = records(place)
    assert "photos/red/0.png" not in after
    moved = after["photos/new/name.png"]
    assert (moved.label, moved.metadata) == ("crimson", {"year": 1999})
    assert (moved.content_hash, moved.location) == (before.content_hash, "new/name.png")
    check_equal_to_fresh(place, [photos], tmp_path / "fresh.cbir")
    with closing(cbir.Searcher.open(place, MeanColour())) as searcher:
        hits = searcher.search(photos / "new" / "name.png", k=12)
    assert (hits[0].id, hits[0].path) == (
        "photos/new/name.png",
        str(photos / "new" / "name.png"),
    )
    assert described(photos, place)[1].unchanged == 12


def test_a_moved_folder_takes_its_labels_from_its_new_name_if_labels_are_asked_for(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    described(photos, place, label_from_folder=True)
    (photos / "red").rename(photos / "crimson")
    number, report = described(photos, place, label_from_folder=True)
    assert (number, report.moved, report.missing) == (0, 4, 0)
    assert {r.label for i, r in records(place).items() if "crimson" in i} == {"crimson"}
    (photos / "crimson").rename(photos / "scarlet")
    assert described(photos, place)[1].moved == 4
    assert {r.label for i, r in records(place).items() if "scarlet" in i} == {"crimson"}
    check_equal_to_fresh(place, [photos], tmp_path / "fresh.cbir")


def test_renumbered_files_swap_records(photos: Path, place: Path, tmp_path: Path) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,number\n" + "".join(f"red/{n}.png,{n}\n" for n in range(4)))
    described(photos, place, metadata=table)
    red = photos / "red"
    (red / "0.png").unlink()
    for number in (1, 2, 3):
        (red / f"{number}.png").rename(red / f"{number - 1}.png")
    green = photos / "green"
    for old, new in (("0", "x"), ("1", "0"), ("x", "1")):
        (green / f"{old}.png").rename(green / f"{new}.png")
    number, report = described(photos, place)
    assert (number, report.moved, report.unchanged, report.missing) == (0, 5, 6, 0)
    check_equal_to_fresh(place, [photos], tmp_path / "fresh.cbir")
    found = records(place)
    assert [found[f"photos/red/{n}.png"].metadata for n in range(3)] == [
        {"number": n} for n in (1, 2, 3)
    ]


def test_of_two_identical_files_one_moves_and_the_other_stays(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "red" / "0.png", photos / "red" / "twin.png")
    described(photos, place)
    (photos / "red" / "0.png").rename(photos / "moved.png")
    number, report = described(photos, place)
    assert (number, report.moved, report.unchanged) == (0, 1, 12)
    check_equal_to_fresh(place, [photos], tmp_path / "fresh.cbir")
    shutil.copy(photos / "moved.png", photos / "copy.png")
    (photos / "red" / "twin.png").rename(photos / "blue" / "twin.png")
    number, report = described(photos, place)
    assert (number, report.moved, report.added) == (0, 1, 1)
    check_equal_to_fresh(place, [photos], tmp_path / "fresh2.cbir")


def test_a_file_that_was_overwritten_after_it_moved(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    described(photos, place)
    (photos / "red" / "0.png").rename(photos / "kept.png")
    save(photos / "red" / "0.png", seed=999)
    number, report = described(photos, place)
    assert (number, report.moved, report.added, report.missing) == (1, 1, 1, 0)
    check_equal_to_fresh(place, [photos], tmp_path / "fresh.cbir")


def test_files_move_between_the_sources_of_a_run(tmp_path: Path, place: Path) -> None:
    one, two = write_photos(tmp_path / "one"), save(tmp_path / "two" / "own.png", 7).parent
    described([one, two], place)
    (one / "red").rename(two / "red")
    number, report = described([one, two], place)
    assert (number, report.moved, report.missing) == (0, 4, 0)
    check_equal_to_fresh(place, [one, two], tmp_path / "fresh.cbir")
    # The other folder is not read, but the disk says that its file is gone.
    (two / "red" / "0.png").rename(one / "back.png")
    number, report = described(one, place)
    assert (number, report.moved) == (0, 1)
    assert described(two, place)[1].missing == 0
    check_equal_to_fresh(place, [one, two], tmp_path / "fresh2.cbir")


def test_files_move_from_a_folder_into_an_archive(photos: Path, place: Path) -> None:
    described(photos, place)
    archive = photos.parent / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((photos / "red").iterdir()):
            packed.write(path, path.name)
    shutil.rmtree(photos / "red")
    number, report = described([photos, archive], place)
    assert (number, report.moved, report.missing) == (0, 4, 0)
    assert sum(i.startswith("packed/") for i in records(place)) == 4


def test_copies_on_another_drive_take_nothing_from_one_that_is_away(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    described(photos, place, label_from_folder=True)
    some = tmp_path / "some"
    some.mkdir()
    shutil.copy(photos / "red" / "0.png", some / "copy.png")
    away = photos.rename(tmp_path / "away")
    photos.mkdir()  # an empty mount point
    number, report = described([photos, some], place)
    assert (number, report.moved, report.added, report.missing) == (0, 0, 1, 12)
    photos.rmdir()
    away.rename(photos)
    assert described([photos, some], place)[1].unchanged == 13
    assert records(place)["photos/red/0.png"].label == "red"


def test_a_folder_that_was_moved_and_sorted_anew_takes_its_records_along(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    described(photos, place)
    new = tmp_path / "sorted"
    new.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(new / f"{number:02}.png")
    shutil.rmtree(photos)
    number, report = described(new, place)
    assert (number, report.moved, report.added) == (0, 12, 0)
    assert {i.split("/")[0] for i in records(place)} == {"sorted"}
    with closing(cbir.open_index(place)) as index:
        assert index.sources() == {"sorted": str(new)}


def test_a_folder_at_a_new_place_keeps_its_name_and_ids(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    described(photos, place)
    before = records(place)
    new = shutil.copytree(photos, tmp_path / "elsewhere" / "pictures")  # other inodes
    shutil.rmtree(photos)
    (new / "red" / "0.png").rename(new / "red" / "9.png")
    save(new / "new.png", 70)
    number, report = described(new, place)
    assert (number, report.moved, report.added, report.unchanged) == (1, 1, 1, 11)
    assert report.relocated == {"photos": str(new)}
    after = records(place)
    assert before.keys() - after.keys() == {"photos/red/0.png"}
    assert after.keys() - before.keys() == {"photos/red/9.png", "photos/new.png"}


def test_another_folder_of_the_same_file_names_is_another_source(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    described(photos, place)
    shutil.rmtree(photos)
    other = tmp_path / "other"
    for number, colour in enumerate(COLOURS):
        for n in range(4):
            save(other / colour / f"{n}.png", 1000 + 10 * number + n)
    number, report = described(other, place)
    assert (number, report.relocated, report.moved) == (12, {}, 0)
    assert len(records(place)) == 24


def test_an_interrupted_run_loses_no_record_and_the_next_one_follows(
    tmp_path: Path, place: Path
) -> None:
    photos = write_photos(tmp_path / "many", per_colour=60)
    described(photos, place)
    (photos / "red").rename(photos / "zzz")

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    report = cbir.index_images([photos], place, descriptor=MeanColour(), on_progress=stop)
    assert report.interrupted
    assert len(records(place)) == 180
    number, report = described(photos, place)
    assert (number, report.moved, len(records(place))) == (0, 60, 180)


def test_a_plan_prefers_files_of_the_same_name() -> None:
    contents = {"h": ["a/1", "a/2", "a/3"], "g": ["a/9"]}
    plan = plan_moves(
        {"b/0": "h", "b/2": "h", "b/x": "h", "b/y": "g", "b/z": "none"},
        contents,
        lambda i: i in ("a/1", "a/2"),
    )
    assert plan.moves == {"a/2": "b/2", "a/1": "b/0"}
    assert plan.copies == {"b/x": "b/0", "b/y": "a/9"}
    assert plan.rest == ["b/z"]


def test_a_source_that_lost_most_of_its_images_must_have_them_elsewhere() -> None:
    gone = {"a": (10, 10), "b": (6, 10), "c": (2, 10), "d": (10, 10)}
    moves = [*(f"a/{n}" for n in range(4)), *(f"b/{n}" for n in range(3)), "d/1"]
    assert unbelievable(moves, gone) == {"a", "d"}


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
@pytest.mark.parametrize("moment", ["rename", "rename_sources", "delete_thumbnails"])
def test_a_kill_while_records_move_loses_none(
    photos: Path, place: Path, tmp_path: Path, moment: str
) -> None:
    described(photos, place)
    (photos / "red").rename(photos / "zzz")
    assert python(DIES_AT, moment, photos, place).returncode == -signal.SIGKILL
    with closing(cbir.open_index(place)) as index:
        assert index.count() == 12
        assert all(entry.thumbnail for entry in index.entries())
    number, report = described(photos, place)
    assert (number, report.moved) == (0, 0 if moment == "delete_thumbnails" else 4)
    check_equal_to_fresh(place, [photos], tmp_path / "fresh.cbir")
    records(place)


@pytest.mark.parametrize("seed", range(3))
def test_after_any_changes_the_index_equals_a_fresh_one(
    tmp_path: Path, place: Path, seed: int
) -> None:
    """Adds, copies, edits, moves, swaps and deletes files at random in two folders."""
    dice = random.Random(seed)
    folders = [tmp_path / name for name in ("one", "two")]
    for number in range(12):
        save(folders[number % 2] / f"{number}.png", number)
    pictures = 12
    for step in range(12):
        for _ in range(dice.randrange(1, 6)):
            files = sorted(path for folder in folders for path in folder.rglob("*.png"))
            path, other = dice.choice(files), dice.choice(files)
            free = dice.choice(folders) / dice.choice("abc") / f"{dice.randrange(40)}.png"
            match dice.choice(["add", "copy", "edit", "move", "move", "swap", "delete"]):
                case "add" | "edit" as what:
                    save(free if what == "add" else path, pictures)
                    pictures += 1
                case "copy":
                    free.parent.mkdir(exist_ok=True)
                    shutil.copyfile(path, free)
                case "move":
                    free.parent.mkdir(exist_ok=True)
                    path.rename(free)
                case "swap":
                    path.rename(tmp_path / "x")
                    if other != path:
                        other.rename(path)
                    (tmp_path / "x").rename(other)
                case "delete":
                    path.unlink()
        known = {record.content_hash for record in records(place).values()} if step else set()
        number, report = described(folders, place, prune="force")
        assert report.missing == 0
        assert number <= sum(r.content_hash not in known for r in records(place).values())
        check_equal_to_fresh(place, folders, tmp_path / f"fresh-{step}.cbir")
