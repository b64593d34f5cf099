"""After any run, label and metadata are those of a new index over the same files."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

import cbir
from cbir.ingest.copy import copy_index
from cbir.types import AddReport, MetadataValue
from tests.descriptors.support_photos import COLOURS, MeanColour, picture

Facts = dict[str, tuple[str | None, dict[str, MetadataValue]]]
RUNS = 40


def shot(path: Path, seed: int, camera: str = "", lens: str = "") -> None:
    """A photo at `path`, with the EXIF fields that are not empty."""
    exif = Image.Exif()
    if camera:
        exif[0x0110] = camera
    if lens:
        exif.get_ifd(0x8769)[0xA434] = lens
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(COLOURS["red"], seed)).save(path, exif=exif)


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def index(folder: Path, into: Path, *files: Path, **options: object) -> AddReport:
    return cbir.index_images(
        [folder], into, descriptor=MeanColour(), metadata=list(files), **options
    )  # type: ignore[arg-type]


def facts(place: Path) -> Facts:
    with closing(cbir.open_index(place)) as opened:
        records = opened.records(list(opened.ids()))
        return {record.id: (record.label, dict(record.metadata)) for record in records}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_as_a_new_index(seed: int, folder: Path, place: Path) -> None:
    draw = random.Random(seed)
    given: list[Path] = []
    images = [folder / "red" / f"{number}.jpg" for number in range(3)]
    for number, path in enumerate(images):
        shot(path, number, "X100", "23mm")
    for run in range(RUNS):
        for path in images:
            change = draw.choice(["edited", "touched", "none", "none"])
            if change == "edited":
                shot(path, 1000 + run, draw.choice(["", "X200"]), draw.choice(["", "35mm"]))
            elif change == "touched":
                os.utime(path, (run, run))
        new = []
        if draw.random() < 0.5:
            names = draw.sample(["label", "camera", "lens", "year"], 2)
            rows = [
                [f"red/{number}.jpg", *(draw.choice(["", "7", "8"]) for _ in names)]
                for number in range(3)
                if draw.random() < 0.7
            ]
            if rows:
                lines = "".join(f"{','.join(row)}\n" for row in rows)
                text = f"path,{','.join(names)}\n{lines}"
                new = [table(folder.parent / f"{run}.csv", text)]
        given += new
        rehash = draw.random() < 0.2
        index(folder, place, *new, label_from_folder=True, rehash=rehash)
        fresh = folder.parent / f"fresh-{run}.cbir"
        index(folder, fresh, *given, label_from_folder=True)
        assert facts(place) == facts(fresh), run
        shutil.rmtree(fresh)


def test_a_field_given_back_shows_the_picture_again(folder: Path, place: Path) -> None:
    shot(folder / "a.jpg", 1, "X100")
    index(folder, place, table(folder.parent / "1.csv", "path,camera\na.jpg,my own\n"))
    assert facts(place)["photos/a.jpg"] == (None, {"camera": "my own"})
    report = index(folder, place, table(folder.parent / "2.csv", "path,camera\na.jpg,\n"))
    assert (report.updated, report.unchanged) == (1, 0)
    assert facts(place)["photos/a.jpg"] == (None, {"camera": "X100"})


def test_given_fields_and_labels_move_with_their_files(folder: Path, place: Path) -> None:
    shot(folder / "red" / "a.jpg", 1, "X100", "23mm")
    told = table(folder.parent / "1.csv", "path,camera,label\nred/a.jpg,my own,crimson\n")
    index(folder, place, told, label_from_folder=True)
    (folder / "blue").mkdir()
    (folder / "red" / "a.jpg").rename(folder / "blue" / "a.jpg")
    assert index(folder, place, label_from_folder=True).moved == 1
    kept = {"photos/blue/a.jpg": ("crimson", {"camera": "my own", "lens": "23mm"})}
    assert facts(place) == kept
    shot(folder / "blue" / "a.jpg", 2)
    index(folder, place, label_from_folder=True)
    assert facts(place) == {"photos/blue/a.jpg": ("crimson", {"camera": "my own"})}


def test_no_exif_also_drops_what_was_read_before(folder: Path, place: Path) -> None:
    shot(folder / "a.jpg", 1, "X100", "23mm")
    index(folder, place, table(folder.parent / "1.csv", "path,camera\na.jpg,my own\n"))
    assert index(folder, place, exif=False).updated == 1
    assert facts(place) == {"photos/a.jpg": (None, {"camera": "my own"})}
    index(folder, place, rehash=True)
    assert facts(place) == {"photos/a.jpg": (None, {"camera": "my own", "lens": "23mm"})}


def test_a_copy_knows_what_was_given(folder: Path, place: Path) -> None:
    shot(folder / "red" / "a.jpg", 1, "X100", "23mm")
    told = table(folder.parent / "1.csv", "path,camera,label\nred/a.jpg,my own,crimson\n")
    index(folder, place, told)
    copy = place.with_name("copy.cbir")
    copy_index(str(place), str(copy))
    assert copy_index(str(place), str(copy)).copied == 0
    shot(folder / "red" / "a.jpg", 2)
    index(folder, copy, label_from_folder=True)
    assert facts(copy) == {"photos/red/a.jpg": ("crimson", {"camera": "my own"})}
