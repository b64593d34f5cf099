from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
import zipfile
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError
from cbir.images.regions import region_boxes
from cbir.index.confirmed import confirmed
from cbir.ingest.run import PruneRefusedError
from cbir.ingest.run_state import Progress
from cbir.types import AddReport, MetadataValue, Note, RgbImage, Vectors
from tests.descriptors.support_photos import COLOURS, MeanColour, picture, write_photos
from tests.images.support_images import encoded
from tests.images.support_profiles import PROPHOTO, rgb_profile
from tests.ingest.support_runs import described


def index(source: Path, into: Path, **options: object) -> AddReport:
    return cbir.index_images([str(source)], str(into), descriptor=MeanColour(), **options)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def ids(place: Path) -> list[str]:
    opened = cbir.open_index(str(place))
    try:
        return list(opened.ids())
    finally:
        opened.close()


def test_every_image_of_a_folder_is_indexed_with_its_label(photos: Path, place: Path) -> None:
    report = index(photos, place, label_from_folder=True)
    assert (report.added, report.updated, report.unchanged) == (12, 0, 0)
    opened = cbir.open_index(str(place))
    assert opened.labels() == {f"photos/{c}/{n}.png": c for c in COLOURS for n in range(4)}
    record = opened.records(["photos/red/2.png"])[0]
    assert (record.width, record.height) == (40, 30)
    assert record.file_size == (photos / "red" / "2.png").stat().st_size
    opened.close()


def test_stored_vectors_are_those_of_the_descriptor(photos: Path, place: Path) -> None:
    index(photos, place)
    opened = cbir.open_index(str(place))
    pixels = np.asarray(Image.open(photos / "blue" / "3.png"))
    expected = MeanColour().describe([pixels])
    np.testing.assert_array_equal(opened.vectors("photos/blue/3.png"), expected)
    opened.close()


def test_a_second_run_describes_nothing(photos: Path, place: Path) -> None:
    index(photos, place)

    class Counting(MeanColour):
        described = 0

        def describe(self, images: list[RgbImage]) -> Vectors:  # type: ignore[override]
            Counting.described += len(images)
            return super().describe(images)

    report = cbir.index_images([str(photos)], str(place), descriptor=Counting())
    assert (report.added, report.updated, report.unchanged) == (0, 0, 12)
    assert Counting.described == 2  # the check that the descriptor works at all


def test_a_run_that_changes_nothing_leaves_the_cache_alone(photos: Path, place: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    index(photos, place)
    (photos / "red" / "0.png").unlink()
    index(photos, place)
    before = (place / "vectors.cache").stat()
    report = index(photos, place)
    assert (report.unchanged, report.missing, len(report.failures)) == (11, 1, 1)
    after = (place / "vectors.cache").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_touched_file_is_read_but_not_described_again(photos: Path, place: Path) -> None:
    index(photos, place)
    os.utime(photos / "red" / "0.png", (1, 1))
    report = index(photos, place)
    assert (report.updated, report.unchanged) == (0, 12)
    # The new time is kept: nothing needs to be read again by the run after.
    opened = cbir.open_index(str(place))
    assert opened.records(["photos/red/0.png"])[0].mtime_ns == 1_000_000_000
    opened.close()


def test_a_changed_file_replaces_its_record(photos: Path, place: Path) -> None:
    index(photos, place)
    Image.fromarray(picture(COLOURS["blue"], 999)).save(photos / "red" / "0.png")
    report = index(photos, place)
    assert (report.added, report.updated, report.unchanged) == (0, 1, 11)
    searcher = cbir.Searcher.open(str(place), MeanColour())
    hits = searcher.search(photos / "blue" / "0.png", k=5)
    assert "photos/red/0.png" in [hit.id for hit in hits]
    searcher.close()


def test_files_that_are_gone_are_marked_and_dropped_only_by_prune(
    photos: Path, place: Path
) -> None:
    index(photos, place)
    (photos / "red" / "0.png").unlink()
    report = index(photos, place)
    assert (report.missing, report.removed) == (1, 0)
    opened = cbir.open_index(str(place))
    assert opened.records(["photos/red/0.png"])[0].missing
    opened.close()
    assert index(photos, place, prune=True).removed == 1
    assert "photos/red/0.png" not in ids(place)


def test_a_file_that_is_back_is_no_longer_missing(photos: Path, place: Path) -> None:
    index(photos, place)
    away = photos.parent / "away.png"
    (photos / "red" / "0.png").rename(away)
    index(photos, place)
    away.rename(photos / "red" / "0.png")
    assert index(photos, place).missing == 0
    opened = cbir.open_index(str(place))
    assert not opened.records(["photos/red/0.png"])[0].missing
    opened.close()


def test_bad_files_are_rows_of_the_report_and_the_rest_is_indexed(
    photos: Path, place: Path
) -> None:
    (photos / "text.jpg").write_text("this is no picture")
    whole = (photos / "red" / "0.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = index(photos, place)
    assert report.added == 12
    reasons = {failure.location: failure.reason for failure in report.failures}
    assert set(reasons) == {"text.jpg", "cut.png"}
    assert "not an image" in reasons["text.jpg"]
    assert "truncated" in reasons["cut.png"]
    opened = cbir.open_index(str(place))
    assert {f.location: f.reason for f in opened.failures()} == reasons
    assert opened.info()["failed"] == 2
    opened.close()


def test_a_repaired_file_is_taken_in_by_the_next_run(photos: Path, place: Path) -> None:
    (photos / "text.jpg").write_text("this is no picture")
    index(photos, place)
    Image.fromarray(picture(COLOURS["red"], 5)).save(photos / "text.jpg")
    report = index(photos, place)
    assert (report.added, report.failures) == (1, [])
    opened = cbir.open_index(str(place))
    assert opened.failures() == []
    opened.close()


def test_one_image_that_cannot_be_described_costs_one_row(photos: Path, place: Path) -> None:
    class Moody(MeanColour):
        def describe(self, images: list[RgbImage]) -> Vectors:  # type: ignore[override]
            if any(image.shape[:2] == (7, 7) for image in images):
                raise ValueError("seven is unlucky")
            return super().describe(images)

    Image.fromarray(picture(COLOURS["green"], 1, (7, 7))).save(photos / "green" / "9.png")
    report = cbir.index_images([str(photos)], str(place), descriptor=Moody())
    assert report.added == 12
    assert [f.reason for f in report.failures] == ["cannot be described: seven is unlucky"]
    opened = cbir.open_index(str(place))
    pixels = np.asarray(Image.open(photos / "green" / "3.png"))
    np.testing.assert_array_equal(
        opened.vectors("photos/green/3.png"), MeanColour().describe([pixels])
    )
    opened.close()


def test_a_descriptor_that_never_works_is_one_error(photos: Path, place: Path) -> None:
    class Broken(MeanColour):
        def describe(self, images: list[RgbImage]) -> Vectors:  # type: ignore[override]
            return np.zeros((len(images), 4), dtype=np.float32)

    with pytest.raises(CbirError, match="norm 0"):
        cbir.index_images([str(photos)], str(place), descriptor=Broken())
    assert not place.exists()


def test_metadata_joins_by_path_and_is_taken_up_later(photos: Path, place: Path) -> None:
    index(photos, place)
    table = photos.parent / "facts.csv"
    table.write_text("path,year,label\nred/0.png,1999,crimson\nred/1.png,2005,\nnone.png,1,\n")
    report = index(photos, place, metadata=table)
    assert (report.updated, report.unchanged) == (2, 10)
    assert report.unused_metadata == ["none.png"]
    searcher = cbir.Searcher.open(str(place), MeanColour())
    hits = searcher.search(photos / "blue" / "0.png", where=["year<2000"])
    assert [(hit.id, hit.record.label) for hit in hits] == [("photos/red/0.png", "crimson")]
    searcher.close()
    assert index(photos, place).unchanged == 12  # without the file, what is known stays


def metadata_of(place: Path, *names: str) -> list[dict[str, MetadataValue]]:
    opened = cbir.open_index(str(place))
    try:
        return [dict(record.metadata) for record in opened.records(names)]
    finally:
        opened.close()


def shot(path: Path, seed: int, **tags: str) -> None:
    """A photo with EXIF fields at `path`."""
    exif = Image.Exif()
    exif[0x0110] = tags.get("camera", "X100")
    exif.get_ifd(0x8769)[0x9003] = tags.get("taken", "2024:05:03 12:30:45")
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (8.0, 15.0, 0.0)})
    Image.fromarray(picture(COLOURS["red"], seed)).save(path, exif=exif)


CAMERA = {"camera": "X100", "taken": "2024-05-03T12:30:45", "latitude": 47.5, "longitude": 8.25}


def test_what_the_camera_told_becomes_fields(photos: Path, place: Path) -> None:
    shot(photos / "red" / "0.jpg", 1)
    shot(photos / "red" / "1.jpg", 2)
    facts, other = photos.parent / "facts.csv", photos.parent / "other.csv"
    facts.write_text("path,camera,city\nred/1.jpg,my own,Bern\n")
    other.write_text("path,city,taken\nred/1.jpg,Basel,\n")
    names = ("photos/red/0.jpg", "photos/red/1.jpg", "photos/red/0.png")
    index(photos, place, metadata=facts)
    own = {**CAMERA, "camera": "my own"}
    assert metadata_of(place, *names) == [CAMERA, {**own, "city": "Bern"}, {}]
    # Another file updates its fields, an empty cell does not remove what the camera told, and a
    # changed file brings its own fields.
    shot(photos / "red" / "0.jpg", 3, camera="X200")
    index(photos, place, metadata=other)
    assert metadata_of(place, *names) == [
        {**CAMERA, "camera": "X200"},
        {**own, "city": "Basel"},
        {},
    ]
    searcher = cbir.Searcher.open(str(place), MeanColour())
    hits = searcher.search(photos / "red" / "0.jpg", where=["taken>=2024-05", "camera~x2"])
    assert [hit.id for hit in hits] == ["photos/red/0.jpg"]
    searcher.close()


def test_copies_and_moved_files_keep_what_the_camera_told(photos: Path, place: Path) -> None:
    shot(photos / "red" / "0.jpg", 1)
    index(photos, place)
    shutil.copy(photos / "red" / "0.jpg", photos / "blue" / "copy.jpg")
    (photos / "red" / "0.jpg").rename(photos / "red" / "moved.jpg")
    report = index(photos, place)
    assert (report.added, report.copies, report.moved) == (1, 1, 1)
    names = sorted({"photos/blue/copy.jpg", "photos/red/moved.jpg"})
    assert metadata_of(place, *names) == [CAMERA, CAMERA]


def test_what_the_camera_told_can_be_left_out(photos: Path, place: Path) -> None:
    shot(photos / "red" / "0.jpg", 1)
    index(photos, place, exif=False)
    assert metadata_of(place, "photos/red/0.jpg") == [{}]
    assert index(photos, place).unchanged == 13  # nothing is read again
    assert metadata_of(place, "photos/red/0.jpg") == [{}]


def test_files_that_are_read_bring_fields_but_override_none_if_they_did_not_change(
    photos: Path, place: Path
) -> None:
    shot(photos / "red" / "0.jpg", 1)
    shot(photos / "red" / "1.jpg", 2)
    facts = photos.parent / "facts.csv"
    facts.write_text("path,camera\nred/0.jpg,my own\n")
    index(photos, place, exif=False, metadata=facts)
    (photos / "red" / "1.jpg").rename(photos / "red" / "2.jpg")
    report = index(photos, place, rehash=True)
    assert (report.updated, report.moved) == (1, 1)
    told = [{**CAMERA, "camera": "my own"}, CAMERA]
    names = ("photos/red/0.jpg", "photos/red/2.jpg")
    assert metadata_of(place, *names) == told
    assert index(photos, place, regions=5).updated == 14
    assert metadata_of(place, *names) == told


def test_several_metadata_files_add_up(photos: Path, place: Path) -> None:
    texts = (
        "path,year,city\nred/0.png,1999,Bern\nred/1.png,2005,Chur\n",
        f"path,city\nx.png,Rom\n{photos}/red/0.png,Basel\n",
    )
    files = [photos.parent / name for name in ("one.csv", "two.csv")]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    names = ("photos/red/0.png", "photos/red/1.png")
    told = [{"year": 1999, "city": "Basel"}, {"year": 2005, "city": "Chur"}]
    assert index(photos, place, metadata=files).unused_metadata == ["x.png"]
    assert metadata_of(place, *names) == told
    # A later file changes the fields that it has; an empty cell removes a field.
    files[0].write_text("path,city\nred/0.png,\nred/1.png,Thun\n")
    index(photos, place, metadata=files[0])
    assert metadata_of(place, *names) == [{"year": 1999}, {"year": 2005, "city": "Thun"}]


def test_a_changed_file_keeps_its_label_and_metadata(photos: Path, place: Path) -> None:
    table = photos.parent / "facts.csv"
    table.write_text("path,year,label\nred/0.png,1999,crimson\n")
    index(photos, place, metadata=table)
    other = photos.parent / "other.csv"
    other.write_text("path,year\nred/1.png,2001\n")
    index(photos, place, metadata=other)
    Image.fromarray(picture(COLOURS["red"], 999)).save(photos / "red" / "0.png")
    assert index(photos, place).updated == 1
    opened = cbir.open_index(str(place))
    first, second = opened.records(["photos/red/0.png", "photos/red/1.png"])
    assert (first.label, first.metadata) == ("crimson", {"year": 1999})
    assert (second.label, second.metadata) == (None, {"year": 2001})
    opened.close()


def test_pruning_keeps_everything_when_the_folder_cannot_be_listed(
    photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos, place)
    original = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder) == photos:
            raise PermissionError(13, "Permission denied", folder)
        return original(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    report = index(photos, place, prune=True)
    assert (report.removed, report.missing) == (0, 0)
    assert ["Permission denied" in failure.reason for failure in report.failures] == [True]
    assert len(ids(place)) == 12


def test_pruning_a_source_that_lost_most_of_its_images_is_refused(
    photos: Path, place: Path
) -> None:
    index(photos, place)
    for path in sorted(photos.rglob("*.png"))[:6]:
        path.unlink()
    assert index(photos, place, prune=True).removed == 6  # half of them are there
    kept = sorted(photos.rglob("*.png"))
    for path in kept[:4]:
        path.unlink()
    Image.fromarray(picture(COLOURS["red"], 77)).save(kept[5].parent / "new.png")
    with pytest.raises(PruneRefusedError, match=r"prune photos \(2 of 6 indexed") as refused:
        index(photos, place, prune=True)
    report = refused.value.report
    assert (report.added, report.unchanged, report.missing, report.removed) == (1, 2, 4, 0)
    assert len(ids(place)) == 7
    report = index(photos, place, prune="force")
    assert (report.unchanged, report.removed) == (3, 4)
    assert len(ids(place)) == 3


def test_of_several_sources_only_those_that_lost_most_are_not_pruned(
    tmp_path: Path, place: Path
) -> None:
    folders = [write_photos(tmp_path / name) for name in ("one", "two", "three")]
    cbir.index_images(folders, place, descriptor=MeanColour())
    for path in (tmp_path / "one").rglob("*.png"):
        path.unlink()
    (tmp_path / "two" / "red" / "0.png").unlink()
    for path in sorted((tmp_path / "three").rglob("*.png"))[1:]:
        path.unlink()
    with pytest.raises(PruneRefusedError) as refused:
        cbir.index_images(folders, place, descriptor=MeanColour(), prune=True)
    assert refused.value.message == (
        "refused to prune one (0 of 12 indexed images found), three (1 of 12 indexed images found)"
    )
    assert refused.value.report.removed == 1
    assert len(ids(place)) == 35


def test_a_damaged_archive_costs_what_follows_the_damage_and_no_more(
    tmp_path: Path, place: Path
) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=100)
    archive = tmp_path / "damaged.tar"
    with tarfile.open(archive, "w") as packed:
        for path in sorted(photos.rglob("*.png")):
            packed.add(path, path.relative_to(photos).as_posix())
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 9 // 10 - 700])
    healthy = write_photos(tmp_path / "healthy", per_colour=2)
    report = cbir.index_images([str(archive), str(healthy)], str(place), descriptor=MeanColour())
    assert 240 < report.added < 300
    assert {i.split("/")[0] for i in ids(place)} == {"damaged", "healthy"}
    assert [failure.source for failure in report.failures] == ["damaged"]
    assert "damaged.tar" in report.failures[0].reason


def test_indexing_one_file_keeps_the_failures_of_its_folder(photos: Path, place: Path) -> None:
    (photos / "red" / "bad.jpg").write_text("no picture")
    index(photos, place)
    index(photos / "red" / "0.png", place)
    opened = cbir.open_index(str(place))
    assert [failure.location for failure in opened.failures()] == ["red/bad.jpg"]
    opened.close()


def test_an_interrupted_run_keeps_its_failures(tmp_path: Path, place: Path) -> None:
    photos = write_photos(tmp_path / "many", per_colour=150)
    (photos / "blue" / "0.png").write_text("no picture")

    def stop(progress: Progress) -> None:
        if progress.failed:
            raise KeyboardInterrupt

    assert index(photos, place, on_progress=stop).interrupted
    opened = cbir.open_index(str(place))
    assert [failure.location for failure in opened.failures()] == ["blue/0.png"]
    opened.close()


def test_no_image_makes_no_index(tmp_path: Path, place: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing to see")
    report = cbir.index_images([str(empty)], str(place))
    assert (report.added, report.ignored) == (0, 1)
    assert report.ignored_by_extension == {".txt": 1}
    assert not place.exists()


def test_files_passed_over_are_counted_by_extension(photos: Path, place: Path) -> None:
    for name in ("a.PDF", "b.pdf", "README", "blue/film.mov"):
        (photos / name).write_text("nothing to see")
    report = index(photos, place)
    assert report.ignored == 4
    assert report.ignored_by_extension == {".pdf": 2, "": 1, ".mov": 1}


def test_what_was_unusual_about_an_added_picture_is_a_note(photos: Path, place: Path) -> None:
    whole = encoded(picture(COLOURS["blue"], 0), "JPEG")
    (photos / "cut.jpg").write_bytes(whole[:-2])
    report = index(photos, place)
    assert (report.added, report.failures) == (13, [])
    text = "the end marker of the JPEG is missing; every pixel is there"
    assert report.notes == [Note("photos", "cut.jpg", text)]
    assert index(photos, place).notes == []


def test_larger_pictures_than_max_pixels_fail_and_the_others_do_not(
    photos: Path, place: Path
) -> None:
    Image.new("RGB", (120, 100)).save(photos / "large.png")
    limited = index(photos, place, max_pixels=11_999)
    assert [failure.location for failure in limited.failures] == ["large.png"]
    assert "exceeds the limit of 0.011999 megapixels" in limited.failures[0].reason
    assert index(photos, place, max_pixels=12_000).added == 1


def test_paths_may_be_paths(photos: Path, place: Path) -> None:
    assert cbir.index_images([photos], place, descriptor=MeanColour()).added == 12
    assert cbir.Searcher.open(place, MeanColour()).index.count() == 12
    with pytest.raises(CbirError, match="sources is a single path"):
        cbir.index_images(str(photos), place)


def test_a_descriptors_own_shrinking_may_fail_for_one_image(photos: Path, place: Path) -> None:
    class Shrinking(MeanColour):
        def prepare(self, image: RgbImage) -> RgbImage:
            if image.shape[:2] == (7, 7):
                raise ValueError("too small to shrink")
            return image[::2, ::2]

    Image.fromarray(picture(COLOURS["green"], 1, (7, 7))).save(photos / "green" / "9.png")
    report = cbir.index_images([str(photos)], str(place), descriptor=Shrinking())
    assert report.added == 12
    assert [f.reason for f in report.failures] == ["cannot be described: too small to shrink"]


def test_pixels_in_memory_are_bounded_whatever_the_descriptor(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cbir.ingest import describe as pipeline

    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(20):
        Image.fromarray(picture((9, 9, 9 * number), number, (100, 100))).save(
            folder / f"{number:02}.png"
        )
    sizes: list[int] = []

    class Watching(MeanColour):
        def describe(self, images: list[RgbImage]) -> Vectors:  # type: ignore[override]
            sizes.append(sum(image.nbytes for image in images))
            return super().describe(images)

    monkeypatch.setattr(pipeline, "VIEW_BYTES", 100_000)
    assert cbir.index_images([folder], place, descriptor=Watching()).added == 20
    assert max(sizes) <= 100_000 + 30_000


def test_two_folders_of_the_same_name_get_different_ids(tmp_path: Path, place: Path) -> None:
    first = write_photos(tmp_path / "a" / "photos", per_colour=1)
    second = write_photos(tmp_path / "b" / "photos", per_colour=1)
    index(first, place)
    report = index(second, place)
    assert (report.added, report.missing) == (3, 0)
    assert ids(place) == sorted(
        f"{name}/{colour}/0.png" for name in ("photos", "photos-2") for colour in COLOURS
    )


def test_a_folder_that_moved_keeps_its_ids(photos: Path, place: Path) -> None:
    index(photos, place)
    elsewhere = photos.rename(photos.parent / "elsewhere")
    number, report = described(elsewhere, place)
    assert (number, report.added, report.moved, report.missing) == (0, 0, 0, 0)
    assert report.relocated == {"photos": str(elsewhere)}
    searcher = cbir.Searcher.open(place, MeanColour())
    hit = searcher.search(elsewhere / "red" / "1.png", k=1)[0]
    assert (hit.id, hit.path) == ("photos/red/1.png", str(elsewhere / "red" / "1.png"))
    searcher.close()


def test_an_archive_gives_the_same_vectors_as_its_folder(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(photos.rglob("*.png")):
            packed.write(path, path.relative_to(photos).as_posix())
    index(photos, tmp_path / "a.cbir")
    index(archive, tmp_path / "b.cbir")
    one, other = (cbir.open_index(str(tmp_path / f"{x}.cbir")) for x in "ab")
    np.testing.assert_array_equal(one.matrix()[1], other.matrix()[1])
    assert [i.partition("/")[2] for i in one.ids()] == [i.partition("/")[2] for i in other.ids()]
    one.close()
    other.close()


def test_of_an_archives_images_of_one_name_the_last_stays_whenever_it_is_indexed(
    photos: Path, tmp_path: Path, place: Path
) -> None:
    archive = tmp_path / "t.tar"
    with tarfile.open(archive, "w") as packed:
        for colour in ("red", "green", "blue"):
            packed.add(photos / colour / "0.png", "a.png")
    last = hashlib.sha256((photos / "blue" / "0.png").read_bytes()).hexdigest()
    for _ in range(3):
        index(archive, place)
        with closing(cbir.open_index(place)) as opened:
            assert opened.records(["t/a.png"])[0].content_hash == last


@pytest.mark.parametrize("regions", [5, 14])
def test_regions_find_a_picture_by_its_quarter(tmp_path: Path, place: Path, regions: int) -> None:
    folder = tmp_path / "mosaics"
    folder.mkdir()
    for number in range(6):
        corners = [picture((40 * number, 255 - 40 * number, 20 * c * 10), c) for c in range(4)]
        rows = [np.hstack(corners[:2]), np.hstack(corners[2:])]
        Image.fromarray(np.vstack(rows)).save(folder / f"{number}.png")
    index(folder, place, regions=regions)
    opened = cbir.open_index(str(place))
    assert opened.vectors("mosaics/3.png").shape == (regions, 4)
    opened.close()
    searcher = cbir.Searcher.open(str(place), MeanColour())
    whole = np.asarray(Image.open(folder / "3.png"))
    hits = searcher.search(np.ascontiguousarray(whole[30:, 40:]), k=6)
    assert hits[0].id == "mosaics/3.png"
    assert hits[0].box == (0.5, 0.5, 1.0, 1.0)
    assert len({hit.id for hit in hits}) == 6
    searcher.close()


def test_regions_stay_as_they_are_when_nothing_is_said(photos: Path, place: Path) -> None:
    index(photos, place, regions=5)
    Image.fromarray(picture(COLOURS["red"], 77)).save(photos / "red" / "new.png")
    report = index(photos, place)
    assert (report.added, report.unchanged) == (1, 12)
    opened = cbir.open_index(str(place))
    assert opened.vectors("photos/red/new.png").shape == (5, 4)
    opened.close()


def test_asking_for_regions_later_describes_again(photos: Path, place: Path) -> None:
    index(photos, place)
    assert index(photos, place, regions=5).updated == 12
    assert index(photos, place, regions=5).unchanged == 12


def test_region_boxes_cover_the_picture_and_overlap() -> None:
    for regions in (1, 5, 14):
        boxes = region_boxes(regions)
        assert len(set(boxes)) == len(boxes) == regions
        assert boxes[0] == (0, 0, 1, 1)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= 1 + 1e-9 and 0 <= top < bottom <= 1 + 1e-9
    with pytest.raises(CbirError, match="number of regions: 3"):
        region_boxes(3)


def test_progress_counts_every_image(photos: Path, place: Path) -> None:
    seen: list[Progress] = []
    (photos / "bad.jpg").write_bytes(b"bad")
    index(photos, place, on_progress=seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].failed) == (13, 13, 1)


def test_progress_runs_through_all_sources_and_unchanged_images(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cbir.ingest import run_state

    monkeypatch.setattr(run_state, "TELL_SECONDS", 0)
    folders = [write_photos(tmp_path / name) for name in ("one", "two")]
    cbir.index_images(folders, place, descriptor=MeanColour())
    seen: list[Progress] = []
    cbir.index_images(folders, place, descriptor=MeanColour(), on_progress=seen.append)
    assert [p.done for p in seen[:24]] == list(range(1, 25))
    assert {p.total for p in seen} == {24}
    # What changed is counted when it is come upon.
    (folders[1] / "red" / "0.png").unlink()
    Image.fromarray(picture((9, 9, 9), 1)).save(folders[1] / "red" / "1a.png")
    Image.fromarray(picture((9, 9, 9), 2)).save(folders[1] / "red" / "1b.png")
    seen.clear()
    cbir.index_images(folders, place, descriptor=MeanColour(), on_progress=seen.append)
    assert [p.total for p in seen if p.done > 21] == [25] * sum(p.done > 21 for p in seen)
    assert (seen[-1].done, seen[0].total) == (25, 24)
    # What is gone is not counted in the end.
    shutil.rmtree(folders[0] / "red")
    cbir.index_images(folders, place, descriptor=MeanColour(), on_progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (21, 21)


def test_a_folder_is_counted_only_if_there_is_something_to_read(
    photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos, place)
    opened: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(Path(path)) or scandir(path))

    def listed() -> list[int]:
        """How often each folder was listed."""
        found = Counter(path for path in opened if path.is_relative_to(photos))
        opened.clear()
        return list(found.values())

    assert index(photos, place).unchanged == 12
    assert listed() == [1, 1, 1, 1]
    Image.fromarray(picture((9, 9, 9), 1)).save(photos / "new.png")
    assert index(photos, place).added == 1
    assert listed() == [2, 2, 2, 2]


def test_an_interruption_keeps_what_was_done_and_the_next_run_goes_on(
    tmp_path: Path, place: Path
) -> None:
    photos = write_photos(tmp_path / "many", per_colour=150)

    def stop(progress: Progress) -> None:
        if progress.done >= 64:
            raise KeyboardInterrupt

    report = index(photos, place, on_progress=stop)
    assert report.interrupted
    assert 0 < report.added < 450
    assert len(ids(place)) == report.added
    rest = index(photos, place)
    assert (rest.added, rest.unchanged) == (450 - report.added, report.added)
    assert not rest.interrupted


def test_the_index_is_not_indexed_when_it_lies_in_its_folder(photos: Path) -> None:
    place = photos / "inside.cbir"
    index(photos, place)
    (place / "model").mkdir(exist_ok=True)
    Image.fromarray(picture(COLOURS["red"], 3)).save(place / "model" / "picture.png")
    report = index(photos, place)
    assert (report.unchanged, report.added, report.ignored) == (12, 0, 0)
    assert report.skipped_indexes == [str(place)]


def test_pictures_beside_another_programs_index_file_are_indexed(photos: Path, place: Path) -> None:
    (photos / "red" / "index.sqlite").write_bytes(b"of a photo manager")
    report = index(photos, place)
    assert (report.added, report.ignored, report.skipped_indexes) == (12, 1, [])


def test_dates_that_cannot_be_stored_cost_nothing(photos: Path, place: Path) -> None:
    far = photos / "red" / "1.png"
    os.utime(far, (10_413_792_000, 10_413_792_000))  # the year 2300
    with tarfile.open(photos.parent / "more.tar", "w") as archive:
        archive.add(photos, "more")
    with zipfile.ZipFile(photos.parent / "zero.zip", "w") as archive_2:
        archive_2.write(photos / "red" / "2.png", "zero.png")
    path = photos.parent / "zero.zip"
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + 12
    data[start : start + 4] = bytes(4)
    path.write_bytes(data)
    for source, count in ((photos, 12), (photos.parent / "more.tar", 12), (path, 1)):
        report = index(source, place)
        assert (report.added, report.failures) == (count, [])
        again = index(source, place)
        assert (again.added, again.updated, again.unchanged) == (0, 0, count)


def frames(folder: Path, numbers: dict[str, int]) -> Path:
    """Pictures of equal size and modification time; `numbers`: file name -> what it shows."""
    folder.mkdir(exist_ok=True)
    for name, number in numbers.items():
        Image.fromarray(picture((90 * number, 200 - 60 * number, 30), number)).save(folder / name)
        os.utime(folder / name, (10**9, 10**9))
    return folder


def first_hit(place: Path, query: object) -> str:
    with closing(cbir.Searcher.open(place, MeanColour())) as searcher:
        return searcher.search(query, k=1)[0].id  # type: ignore[arg-type]


def pack(folder: Path, archive: Path) -> Path:
    """The files of `folder` in a zip or tar, all of one time."""
    if archive.suffix == ".tar":
        with tarfile.open(archive, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.iterdir()):
                packed.write(path, path.name)
    return archive


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_files_of_equal_size_and_time_that_swapped_names_are_noticed(
    kind: str, tmp_path: Path, place: Path
) -> None:
    folder = frames(tmp_path / "f", {"1.bmp": 1, "2.bmp": 2})
    query = (folder / "2.bmp").read_bytes()
    source = folder if kind == "folder" else pack(folder, tmp_path / f"f.{kind}")
    index(source, place)
    (folder / "1.bmp").rename(folder / "x")
    (folder / "2.bmp").rename(folder / "1.bmp")
    (folder / "x").rename(folder / "2.bmp")
    if kind != "folder":
        pack(folder, source)
    index(source, place)
    assert first_hit(place, query) == "f/1.bmp"
    assert described(source, place)[0] == 0


def test_a_changed_inode_or_change_time_is_looked_into_once(tmp_path: Path, place: Path) -> None:
    folder = frames(tmp_path / "f", {"1.bmp": 1, "2.bmp": 2})
    index(folder, place)
    for path in folder.iterdir():
        path.chmod(0o600)
    number, report = described(folder, place)
    assert (number, report.unchanged, report.updated) == (0, 2, 0)
    status = (folder / "1.bmp").stat()
    with closing(cbir.open_index(place)) as opened:
        record = opened.records(["f/1.bmp"])[0]
    assert record.stamp == f"{status.st_ino}-{status.st_ctime_ns}"


def test_without_inodes_size_and_time_serve_and_that_is_said_once(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cbir.images.folders.keeps_inodes", lambda path: False)
    folder = frames(tmp_path / "f", {"1.bmp": 1, "2.bmp": 2})
    index(folder, place)
    assert len([m for m in caplog.messages if "--rehash" in m]) == 1
    frames(folder, {"1.bmp": 2, "2.bmp": 1})
    assert index(folder, place).unchanged == 2
    assert len([m for m in caplog.messages if "--rehash" in m]) == 1
    index(folder, place, rehash=True)
    assert first_hit(place, folder / "1.bmp") == "f/1.bmp"


def test_rehashing_reads_every_file_and_describes_none_that_is_the_same(
    photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cbir.images import folders

    index(photos, place)
    real, seen = folders.read_file, list[str]()
    monkeypatch.setattr(folders, "read_file", lambda path: [seen.append(path), real(path)][1])
    number, report = described(photos, place, rehash=True)
    assert (number, report.unchanged, len(seen)) == (0, 12, 12)


def test_an_index_without_stamps_takes_them_up_without_reading(
    photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos, place)
    with closing(cbir.open_index(place, write=True)) as opened:
        stamps = opened.stamps("photos")
        opened.touch({i: s.file._replace(stamp=None) for i, s in stamps.items()})
    monkeypatch.setattr("cbir.images.folders.read_file", lambda path: pytest.fail(path))
    assert index(photos, place).unchanged == 12
    with closing(cbir.open_index(place)) as opened:
        assert {s.stamp for s in opened.stamps("photos").values()} == {
            s.stamp for s in stamps.values()
        }


def test_the_last_run_of_a_source_is_known(tmp_path: Path, place: Path) -> None:
    photos = write_photos(tmp_path / "many", per_colour=150)

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    before = int(time.time())
    index(photos, place, on_progress=stop)
    with closing(cbir.open_index(place)) as opened:
        run = opened.runs()["many"]
    assert before <= run.at <= time.time() and not run.finished
    index(photos, place)
    with closing(cbir.open_index(place)) as opened:
        assert opened.runs()["many"].finished


def test_sources_that_a_run_does_not_reach_are_not_listed(tmp_path: Path, place: Path) -> None:
    first, second = write_photos(tmp_path / "a" / "p"), write_photos(tmp_path / "b" / "p")
    (first / "link").symlink_to(second)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    with tarfile.open(tmp_path / "torn.tar", "w") as archive:
        Image.fromarray(pixels).save(tmp_path / "noise.png")
        archive.add(tmp_path / "noise.png")
    os.truncate(tmp_path / "torn.tar", 2000)

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    def listed(*sources: Path, **options: Any) -> list[str]:
        with suppress(CbirError):
            cbir.index_images(sources, place, descriptor=MeanColour(), **options)
        with closing(cbir.open_index(place)) as opened:
            return sorted(opened.sources().values())

    assert listed(first, second, on_progress=stop) == [str(first)]
    assert listed(tmp_path / "torn.tar", second) == [str(first), str(tmp_path / "torn.tar")]
    shutil.rmtree(place)
    assert listed(first, second) == [str(first), str(second)]
    with closing(cbir.open_index(place)) as opened:
        assert opened.sources() == confirmed(opened) == {"p": str(first), "p-2": str(second)}
        assert sorted({i.partition("/")[0] for i in opened.ids()}) == ["p", "p-2"]
        assert opened.count() == 24  # the link leads to what is indexed as the second source


def test_only_pictures_that_a_newer_decoder_reads_differently_are_described_again(
    photos: Path, place: Path
) -> None:
    wide = picture(COLOURS["red"], 1)
    (photos / "wide.png").write_bytes(encoded(wide, "PNG", icc_profile=rgb_profile(PROPHOTO, 1.8)))
    index(photos, place)
    with closing(cbir.open_index(place, write=True)) as opened:  # as migrated from format 1
        stamps = opened.stamps("photos")
        opened.touch({i: s.file._replace(decoder=0) for i, s in stamps.items()})
    number, report = described(photos, place)
    assert (number, report.updated, report.decoded_anew, report.unchanged) == (1, 1, 1, 12)
    number, report = described(photos, place)
    assert (number, report.updated, report.decoded_anew, report.unchanged) == (0, 0, 0, 13)
