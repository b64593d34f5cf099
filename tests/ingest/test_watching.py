"""An index follows its sources: real files, real notifications; waits have a deadline."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError
from cbir.index.open import index_exists
from cbir.ingest import watching
from cbir.types import AddReport, RgbImage, Vectors
from tests.descriptors.support_photos import COLOURS, MeanColour, picture, write_photos

pytest.importorskip("watchfiles")

DEADLINE = 60.0


@dataclass
class Watched:
    """What a watching thread said."""

    place: Path
    reports: list[AddReport] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    firsts: int = 0

    def add(self, report: AddReport, before: AddReport | None) -> None:
        self.reports.append(report)
        self.firsts += before is None

    def ids(self) -> set[str]:
        if not index_exists(str(self.place)):
            return set()
        with closing(cbir.open_index(self.place)) as index:
            return set(index.ids())

    def missing(self) -> set[str]:
        with closing(cbir.open_index(self.place)) as index:
            return {record.id for record in index.records(list(index.ids())) if record.missing}

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not reached():
            assert time.monotonic() < end, (self.messages, self.reports[-1:])
            time.sleep(0.05)

    def wait_for_a_pass(self) -> None:
        """Until a pass that began after this call has ended."""
        passes = len(self.reports)
        self.until(lambda: len(self.reports) > passes)


@contextmanager
def watch(
    *sources: Path, into: Path, descriptor: MeanColour | None = None, **options: object
) -> Iterator[Watched]:
    seen, stop, raised = Watched(into), threading.Event(), []

    def run() -> None:
        try:
            cbir.watch_images(
                sources,
                into,
                stop=stop,
                descriptor=descriptor or MeanColour(),
                on_pass=seen.add,
                on_message=seen.messages.append,
                **options,  # type: ignore[arg-type]
            )
        except BaseException as error:  # noqa: BLE001 - shown by the test
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        seen.until(lambda: bool(seen.reports or seen.messages or raised))
        # The second pass is the one after the system began to watch.
        seen.until(lambda: len(seen.reports) > 1 or bool(seen.messages or raised))
        yield seen
    finally:
        stop.set()
        thread.join(DEADLINE)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def fresh(photos: Path, tmp_path: Path) -> set[str]:
    """The ids of a new index of the same files."""
    place = tmp_path / "fresh.cbir"
    shutil.rmtree(place, ignore_errors=True)
    cbir.index_images([photos], place, descriptor=MeanColour())
    with closing(cbir.open_index(place)) as index:
        return set(index.ids())


def test_new_changed_renamed_and_deleted_files_are_followed(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    with watch(photos, into=place) as seen:
        (photos / "new" / "deep").mkdir(parents=True)
        Image.fromarray(picture((9, 9, 9), 1)).save(photos / "new" / "deep" / "1.png")
        seen.until(lambda: "photos/new/deep/1.png" in seen.ids())

        Image.fromarray(picture(COLOURS["blue"], 999)).save(photos / "red" / "0.png")
        pixels = np.asarray(Image.open(photos / "red" / "0.png"))
        wanted = MeanColour().describe([pixels])

        def is_described_again() -> bool:
            with closing(cbir.open_index(place)) as index:
                return bool(np.array_equal(index.vectors("photos/red/0.png"), wanted))

        seen.until(is_described_again)

        (photos / "green").rename(photos / "verde")
        (photos / "blue" / "3.png").unlink()
        there = fresh(photos, tmp_path)
        seen.until(lambda: seen.ids() - seen.missing() == there)
        assert "photos/verde/2.png" in there
    assert seen.messages == []


def test_a_burst_is_one_pass(photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUIET_SECONDS", 2.0)
    with watch(photos, into=place) as seen:
        data = (photos / "red" / "0.png").read_bytes()
        for number in range(1000):
            (photos / f"{number}.png").write_bytes(data)
        seen.until(lambda: len(seen.ids()) == 1012)
    added = [report.added for report in seen.reports if report.added]
    assert added[0] == 12
    assert sum(added) == 1012
    assert len(added) <= 4  # two, unless the machine stalls


def test_a_folder_that_vanishes_keeps_its_records_until_it_is_back(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    other = write_photos(tmp_path / "other", per_colour=1)
    with watch(photos, other, into=place) as seen:
        photos.rename(tmp_path / "away")
        seen.until(lambda: bool(seen.messages))
        assert seen.messages == [f"waiting for {photos}: it is gone; its records stay as they are"]
        Image.fromarray(picture((9, 9, 9), 1)).save(other / "more.png")
        seen.until(lambda: "other/more.png" in seen.ids())
        assert seen.missing() == set()
        shutil.copytree(tmp_path / "away", photos)
        (photos / "red" / "0.png").unlink()
        seen.until(lambda: seen.missing() == {"photos/red/0.png"})
        assert seen.messages[1:] == [f"{photos} is back"]
        Image.fromarray(picture((9, 9, 9), 2)).save(photos / "again.png")
        seen.until(lambda: "photos/again.png" in seen.ids())
    assert seen.firsts == 1


def test_what_is_removed_while_a_folder_is_watched_stays_removed(photos: Path, place: Path) -> None:
    cbir.index_images([photos], place, descriptor=MeanColour())
    cbir.remove_images(place, ["photos/red/0.png"])
    with watch(photos, into=place, again=True, rehash=True) as seen:
        assert "photos/red/0.png" in seen.ids()
        cbir.remove_images(place, ["photos/red/1.png"])
        Image.fromarray(picture((9, 9, 9), 1)).save(photos / "more.png")
        seen.until(lambda: "photos/more.png" in seen.ids())
        assert "photos/red/1.png" not in seen.ids()


def test_an_empty_mount_point_is_a_drive_that_is_away(photos: Path, place: Path) -> None:
    with watch(photos, into=place, prune="force") as seen:
        away = photos.with_name("away")
        photos.rename(away)
        photos.mkdir()
        (photos / ".mountpoint").touch()
        seen.until(lambda: any("drive mounted?" in message for message in seen.messages))
        assert (len(seen.ids()), seen.missing()) == (12, set())
        shutil.rmtree(photos)
        away.rename(photos)
        seen.until(lambda: seen.messages[-1] == f"{photos} is back")
        seen.wait_for_a_pass()
    assert seen.reports[-1].unchanged == 12


def test_a_folder_that_excludes_everything_is_not_waited_for(photos: Path, place: Path) -> None:
    with watch(photos, into=place) as seen:
        (photos / ".cbirignore").write_text("*\n!red\n!/red/*\n")
        seen.until(lambda: len(seen.ids()) == 4)
        (photos / ".cbirignore").write_text("*\n")
        seen.until(lambda: seen.ids() == set())
    assert seen.messages == []


def test_watching_may_begin_before_there_is_a_picture_or_a_drive(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "incoming"
    empty.mkdir()
    with watch(empty, into=place) as seen:
        assert not place.exists()
        shutil.copytree(photos / "red", empty / "red")
        seen.until(lambda: len(seen.ids()) == 4)
    away = tmp_path / "away"
    empty.rename(away)
    with watch(empty, into=place) as seen:
        assert seen.messages == [f"waiting for {empty}: it is gone; its records stay as they are"]
        away.rename(empty)
        seen.wait_for_a_pass()
        assert seen.missing() == set()
    with pytest.raises(CbirError, match="no such file"), watch(tmp_path / "typo", into=place):
        pass


def test_an_index_in_its_own_folder_does_not_wake_itself(photos: Path) -> None:
    with watch(photos, into=photos / "inside.cbir") as seen:
        Image.fromarray(picture((9, 9, 9), 1)).save(photos / "new.png")
        seen.until(lambda: "photos/new.png" in seen.ids())
        passes = len(seen.reports)
        Image.fromarray(picture((9, 9, 9), 2)).save(photos / "newer.png")
        seen.until(lambda: "photos/newer.png" in seen.ids())
    assert len(seen.reports) <= passes + 2


def test_a_link_into_another_watched_source_is_indexed_once(
    photos: Path, place: Path, tmp_path: Path
) -> None:
    linking = photos.parent / "linking"
    linking.mkdir()
    (linking / "link").symlink_to(photos)
    with watch(linking, photos, into=place) as seen:
        assert seen.ids() == fresh(photos, tmp_path)
        (photos / "red" / "0.png").rename(photos / "new.png")
        seen.until(lambda: "photos/new.png" in seen.ids())
    assert seen.ids() == fresh(photos, tmp_path)
    assert seen.reports[-1].nested == {str(linking / "link"): "photos"}
    assert (seen.messages, seen.missing()) == ([], set())


def test_an_archive_that_is_replaced_is_indexed_again(photos: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos))
    with watch(archive, into=tmp_path / "i.cbir") as seen:
        archive.write_bytes(archive.read_bytes()[:1000])
        seen.until(lambda: any("archive" in message for message in seen.messages))
        (photos / "red" / "0.png").unlink()
        shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
        seen.until(lambda: seen.missing() == {"photos/red/0.png"})
        assert len([message for message in seen.messages if "cannot be read" in message]) <= 1


def test_a_locked_index_is_told_once_and_written_when_it_is_free(
    photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.3)
    with watch(photos, into=place) as seen:
        with closing(cbir.open_index(place, write=True)):
            Image.fromarray(picture((9, 9, 9), 1)).save(photos / "new.png")
            seen.until(lambda: bool(seen.messages))
            time.sleep(1)  # a few passes more
            assert len(seen.messages) == 1
            assert "is being written by" in seen.messages[0]
        seen.until(lambda: "photos/new.png" in seen.ids())
    assert len(seen.messages) == 1


def test_nothing_is_described_twice_and_a_stop_ends_a_pass(photos: Path, place: Path) -> None:
    described: list[int] = []
    going = threading.Event()

    class Slow(MeanColour):
        def describe(self, images: list[RgbImage]) -> Vectors:  # type: ignore[override]
            described.append(len(images))
            if len(images) > 2:
                going.set()
                time.sleep(0.02)
            return super().describe(images)

    with watch(photos, into=place, descriptor=Slow()) as seen:
        passes = len(seen.reports)
        assert sum(described) == 12 + 2 * passes  # each pass tries the descriptor with two
        going.clear()
        data = [picture(colour, seed) for seed in range(300) for colour in COLOURS.values()]
        for number, pixels in enumerate(data):
            Image.fromarray(pixels).save(photos / f"{number}.png")
        assert going.wait(DEADLINE)
    assert seen.reports[-1].interrupted or seen.reports[-1].added
    with closing(cbir.open_index(place, write=True)) as index:  # the lock is released
        assert 12 <= index.count() <= 912


def test_sources_that_never_change_are_refused(place: Path) -> None:
    with pytest.raises(CbirError, match="digits:train never changes"):
        cbir.watch_images(["digits:train"], place)
    assert not os.path.exists(place)  # noqa: PTH110


def test_a_pass_that_changes_nothing_leaves_the_index_files_alone(
    photos: Path, place: Path
) -> None:
    (photos / "red" / "0.png").rename(photos.with_name("away.png"))
    cbir.index_images([photos], place, descriptor=MeanColour())
    photos.with_name("away.png").rename(photos / "red" / "0.png")
    cbir.index_images([photos], place, descriptor=MeanColour())
    (photos / "red" / "1.png").unlink()
    cbir.index_images([photos], place, descriptor=MeanColour())
    cache = place / "vectors.cache"
    before = cache.stat()
    assert cbir.index_images([photos], place, descriptor=MeanColour()).missing == 1
    assert (cache.stat().st_ino, cache.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
