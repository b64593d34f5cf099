"""An afternoon with 500 photos in two folders: whatever is done, the index follows.

After each step the index equals a fresh one over the same files, and only content that it did not
hold was described, even though each run and each command is killed with kill -9 before it may
finish, or `cbir index --watch` follows the changes while other commands come in between.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.images.ids import encode_path, make_id
from cbir.index.open import index_exists
from cbir.types import AddReport
from tests.ingest.support_runs import described, held, records

INDEXES = """
import json, sys
import cbir
from tests.descriptors.support_photos import MeanColour
place, options, *folders = sys.argv[1:]
print("ready", flush=True)
cbir.index_images(folders, place, descriptor=MeanColour(), **json.loads(options))
"""
COMMAND = """
import atexit, os, signal, sys
import cbir.cli.output, cbir.cli.remove, cbir.cli.sources
import cbir.ingest.places, cbir.ingest.record_removal
from cbir.cli.main import main
last, calls = int(sys.argv[1]), 0
def count(*_):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
def end():
    sys.setprofile(None)
    print(calls, file=sys.stderr)
sys.argv[:2] = ["cbir"]
atexit.register(end)
sys.setprofile(count)
main()
"""
"""A command that is killed when it has made as many calls and returns as the first argument says;
with 0 it ends, and prints how many it made."""
WATCHES_WITH = "tests.ingest.support_runs:Told"
FEW = 10
KILLS = 3
DEADLINE = 60.0


@dataclass
class Afternoon:
    """The folders, the index over them, and what is expected of it.

    `facts`: content hash -> the year that a metadata file gave. `left_out`: ids of images that were
    removed or excluded. `names`: folder name -> name of the source, where they differ. `seconds`:
    how long the last run took. `contents`: what the watched index held when it was last up to date.
    """

    home: Path
    one: Path
    two: Path
    dice: random.Random
    facts: dict[str, int] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.2
    contents: set[str] = field(default_factory=set)
    kills: int = 0
    pictures: int = 0

    @property
    def place(self) -> Path:
        return self.home / "photos.cbir"

    @property
    def told(self) -> Path:
        """Where the watching process tells what it describes."""
        return self.home / "described"

    def call_sources(self, one: str, two: str) -> None:
        """Expect these names of the sources."""
        for folder, name in ((self.one, one), (self.two, two)):
            self.names |= {folder.name: name, encode_path(folder.name): name}

    def files(self) -> dict[str, Path]:
        """Id -> file of everything in the folders."""
        found = {}
        for folder in (self.one, self.two):
            source = self.names.get(folder.name, folder.name)
            for path in folder.rglob("*.png"):
                found[make_id(source, encode_path(path.relative_to(folder).as_posix()))] = path
        return found

    def some(self, folder: Path) -> list[Path]:
        """Some files without facts, chosen at random, each once."""
        files = [p for p in sorted(folder.rglob("*.png")) if content(p) not in self.facts]
        return self.dice.sample(files, FEW)

    def save(self, path: Path) -> None:
        """Save a new picture at `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(self.pictures).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        self.pictures += 1

    def index(self, missing: AbstractSet[str] = frozenset(), **options: object) -> AddReport:
        """Index, killed once on the way; then compare with a fresh index. `missing`: ids."""
        self._kill(options)
        before = known(self.place)
        started = time.monotonic()
        number, report = described([self.one, self.two], self.place, **options)
        self.seconds = time.monotonic() - started
        files = {i: path for i, path in self.files().items() if i not in self.left_out}
        assert number == sum(content(path) not in before for path in files.values())
        found = records(self.place)
        assert {i for i, record in found.items() if record.missing} == missing
        assert found.keys() - missing == files.keys()
        mine = {i: what for i, what in held(self.place).items() if i not in missing}
        assert mine == self._fresh()
        years = {r.content_hash: r.metadata.get("year") for r in found.values()}
        assert {one: years[one] for one in self.facts} == self.facts
        return report

    def command(self, *arguments: object, left_out: AbstractSet[str] | None = None) -> None:
        """Run a command that is killed at random moments, and then again; index after each.

        `left_out`: what `left_out` is when it has run.
        """
        saved = self.home / "before.cbir"
        shutil.copytree(self.place, saved)
        moments = [0]
        while moments:
            shutil.rmtree(self.place)
            shutil.copytree(saved, self.place)
            if moment := moments.pop():
                assert self._cbir(moment, *arguments)[0] == -signal.SIGKILL
                self.kills += 1
            code, told = self._cbir(0, *arguments)
            if not moment:
                assert code == 0, told
                total = int(told.splitlines()[-1])
                moments = [self.dice.randrange(1, total - 100) for _ in range(KILLS)]
            # What was killed may have done its work.
            assert code == 0 or "error: not in " in told or "error: no source" in told, told
            self.left_out = self.left_out if left_out is None else set(left_out)
            self.index()
        shutil.rmtree(saved)

    def is_followed(self, missing: AbstractSet[str] = frozenset()) -> None:
        """Wait until the watched index equals a fresh one; only new content was described.

        `missing`: ids.
        """
        fresh, end = self._fresh(), time.monotonic() + DEADLINE
        while self._watched() != (fresh, missing):
            assert time.monotonic() < end
            time.sleep(0.1)
        contents = [record.content_hash for record in records(self.place).values()]
        new = sum(one not in self.contents for one in contents)
        assert self.told.stat().st_size == new
        self.told.write_bytes(b"")
        self.contents = set(contents)

    def _watched(self) -> tuple[dict[str, tuple[object, ...]], set[str]]:
        """What the index holds of images that are there, and the ids of the missing ones."""
        if not index_exists(str(self.place)):
            return {}, set()
        with closing(cbir.open_index(self.place)) as index:
            missing = {entry.record.id for entry in index.entries() if entry.record.missing}
        return {i: what for i, what in held(self.place).items() if i not in missing}, missing

    def _cbir(self, moment: int, name: str, *arguments: object) -> tuple[int, str]:
        """Exit status and messages of `cbir NAME INDEX ARGUMENTS`, killed at `moment`, if not 0."""
        asked = [str(moment), name, str(self.place), *map(str, arguments)]
        ended = subprocess.run(
            [sys.executable, "-c", COMMAND, *asked],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            cwd=Path(__file__).parents[2],
        )
        return ended.returncode, ended.stderr

    def _fresh(self) -> dict[str, tuple[object, ...]]:
        """What a fresh index holds, with the ids that are expected of this one."""
        fresh = self.home / "fresh.cbir"
        described([self.one, self.two], fresh)
        found = {}
        for record_id, (content_hash, source, *rest) in held(fresh).items():
            name = self.names.get(str(source), source)
            found[f"{name}/{record_id.partition('/')[2]}"] = (content_hash, name, *rest)
        shutil.rmtree(fresh)
        return {i: what for i, what in found.items() if i not in self.left_out}

    def _kill(self, options: Mapping[str, object]) -> None:
        """Begin a run and kill it with kill -9 at a random moment."""
        saved, delay = self.home / "saved.cbir", self.dice.uniform(0, self.seconds)
        existed = self.place.exists()
        if existed:
            shutil.copytree(self.place, saved)
        while self._survives(delay, options):
            delay /= 2
            shutil.rmtree(self.place)
            if existed:
                shutil.copytree(saved, self.place)
        shutil.rmtree(saved, ignore_errors=True)
        self.kills += 1

    def _survives(self, delay: float, options: Mapping[str, object]) -> bool:
        """Whether a run ended before it was killed."""
        arguments = [self.place, json.dumps(options, default=str), self.one, self.two]
        child = subprocess.Popen(
            [sys.executable, "-c", INDEXES, *map(str, arguments)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(delay)
            child.kill()
        assert child.returncode in (0, -signal.SIGKILL)
        return child.returncode == 0


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def known(place: Path) -> set[str]:
    """The contents that an index holds."""
    if not index_exists(str(place)):
        return set()
    with closing(cbir.open_index(place)) as index:
        return {entry.record.content_hash for entry in index.entries()}


@contextmanager
def watching(day: Afternoon, ends_with: signal.Signals) -> Iterator[None]:
    """`cbir index --watch` for the block, ended by a signal."""
    arguments = ["index", day.one, day.two, "--into", day.place, "--watch"]
    child = subprocess.Popen(
        [sys.executable, "-m", "cbir", *arguments, "--descriptor", WATCHES_WITH],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield
        assert child.poll() is None
        child.send_signal(ends_with)
        code = child.wait(timeout=DEADLINE)
        assert code == (-ends_with if ends_with == signal.SIGKILL else 0)
    finally:
        child.kill()
        child.wait()


def begin(home: Path) -> Afternoon:
    """500 photos in two folders."""
    day = Afternoon(home, home / "one", home / "two", random.Random(15))
    for number in range(500):
        day.save((day.one, day.two)[number % 2] / "abcde"[number % 5] / f"{number:03}.png")
    return day


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_after_each_step_of_an_afternoon_the_index_equals_a_fresh_one(tmp_path: Path) -> None:
    day = begin(tmp_path)
    table = tmp_path / "facts.csv"
    with_facts = sorted((day.one / "a").iterdir())[:FEW] + sorted((day.two / "b").iterdir())[:FEW]
    table.write_text(
        "path,year\n" + "".join(f"{path},{1990 + n}\n" for n, path in enumerate(with_facts))
    )
    day.facts = {content(path): 1990 + n for n, path in enumerate(with_facts)}

    # index
    day.index(metadata=str(table))
    assert day.index().unchanged == 500

    # add: new photos, and copies of old ones
    for number in range(FEW):
        day.save(day.one / "new" / f"{number}.png")
    for path in day.some(day.one / "b"):
        shutil.copy(path, day.two / f"copy of {path.name}")
    day.index()

    # edit, and swap the names of two files
    for path in day.some(day.two):
        day.save(path)
    first, second, *_ = day.some(day.one)
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    day.index()

    # rename: files, some to the other folder; among them files with facts
    for path in day.some(day.one):
        path.rename(path.with_name(f"renamed {path.name}"))
    for path in with_facts[:3]:
        path.rename(day.two / path.name)
    day.index()

    # move a folder inside the other one, and back into a third place
    (day.one / "a").rename(day.two / "c" / "a of one")
    day.index()
    (day.two / "c" / "a of one").rename(day.one / "moved")
    day.index()

    # delete: marked first, removed with `prune`
    deleted = day.some(day.one) + day.some(day.two)
    ids = {path: i for i, path in day.files().items()}
    saved = {path: shutil.copy2(path, tmp_path / f"{n}.saved") for n, path in enumerate(deleted)}
    for path in deleted:
        path.unlink()
    day.index(missing={ids[path] for path in deleted})

    # unmount: the place of the drive is an empty folder, and nothing on it is forgotten
    on_drive = {i for i in day.files() if i.startswith("two/")}
    away = day.two.rename(tmp_path / "away")
    day.two.mkdir()
    gone = on_drive | {ids[path] for path in deleted}
    shutil.copy(next((away / "a").iterdir()), day.one / "from drive.png")
    day.index(missing=gone)
    with pytest.raises(cbir.CbirError, match="refused to prune two"):
        described([day.one, day.two], day.place, prune=True)
    assert sum(r.missing for r in records(day.place).values()) == len(on_drive) + FEW

    # re-mount
    day.two.rmdir()
    away.rename(day.two)
    day.index(missing={ids[path] for path in deleted[FEW:]})

    # restore: those whose records are there as missing, and those whose records were pruned
    for path in deleted:
        shutil.copy2(saved[path], path)
    day.index()

    # exclude: the records of excluded images go, and come back when they are not excluded
    day.left_out = {i for i in day.files() if "/d/" in i or ("/c/" in i and i.endswith("1.png"))}
    day.index(exclude=["d", "c/*1.png"])
    day.left_out = set()
    day.index()

    # remove: what was removed stays out, also when its files move
    out = set(day.some(day.two))
    ids = {path: i for i, path in day.files().items()}
    day.command("remove", *[ids[path] for path in out], left_out={ids[path] for path in out})
    out |= set((day.one / "new").iterdir())
    day.command("remove", "one/new/*", left_out={ids[path] for path in out})
    for path in sorted(out)[:3]:
        out.remove(path)
        out.add(path.rename(path.with_name(f"moved {path.name}")))
    day.left_out = {i for i, path in day.files().items() if path in out}
    assert day.index().kept_out == len(out)
    assert day.index().kept_out == len(out)

    # ask for them again
    day.left_out = set()
    day.index(again=True)
    assert day.index().kept_out == 0

    # relocate: a folder that the index is told of, and one that it finds; both keep their ids
    for folder in (day.one, day.two):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        shutil.copytree(folder, tmp_path / "elsewhere" / f"my {folder.name}")  # other inodes
        shutil.rmtree(folder)
    day.one, day.two = tmp_path / "elsewhere" / "my one", tmp_path / "elsewhere" / "my two"
    day.call_sources("one", "two")
    day.command("sources", "--relocate", "two", day.two)

    # rename a source, and remove one: the next run adds its images again
    day.call_sources("one", "zwei")
    day.command("sources", "--rename", "two", "zwei")
    day.call_sources("one", "my%20two")
    in_one = {content(path) for path in day.one.rglob("*.png")}
    day.facts = {one: year for one, year in day.facts.items() if one in in_one}
    day.command("sources", "--remove", "zwei")
    assert day.kills >= 30


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_watched_index_follows_an_afternoon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("watchfiles")
    day = begin(tmp_path)
    monkeypatch.setenv("DESCRIBED", str(day.told))

    with watching(day, signal.SIGKILL):
        day.is_followed()

        # add and edit; copies, a moved folder and a renamed file are not described
        for number in range(FEW):
            day.save(day.one / "new" / f"{number}.png")
        for path in day.some(day.two):
            day.save(path)
        for path in day.some(day.one / "b"):
            shutil.copy(path, day.two / f"copy of {path.name}")
        day.is_followed()
        (day.one / "a").rename(day.two / "c" / "a of one")
        day.is_followed()
        [path, *_] = day.some(day.one)
        path.rename(path.with_name("renamed.png"))
        day.is_followed()

        # delete, and restore
        deleted = day.some(day.one) + day.some(day.two)
        ids = {path: i for i, path in day.files().items()}
        saved = [path.rename(tmp_path / f"{n}.saved") for n, path in enumerate(deleted)]
        day.is_followed(missing={ids[path] for path in deleted})
        for path, copy in zip(deleted, saved, strict=True):
            shutil.copy2(copy, path)
        day.is_followed()

        # unmount: nothing on the drive is forgotten, and the other folder is followed
        mount_point, day.two = day.two, day.two.rename(tmp_path / "drive")
        mount_point.mkdir()
        day.call_sources("one", "two")
        shutil.copy(next((day.two / "d").iterdir()), day.one / "from drive.png")
        day.is_followed()

        # re-mount: the drive was changed elsewhere
        for path in day.some(day.two):
            day.save(path)
        mount_point.rmdir()
        day.two = day.two.rename(mount_point)
        day.is_followed()

        # `.cbirignore` appears, and is changed twice
        ids = dict.fromkeys(day.files())
        for line, pattern in (("d", "two/d/*"), ("/d/1*", "two/d/1*"), ("", "")):
            (day.two / ".cbirignore").write_text(line)
            day.is_followed()
            assert ids.keys() - held(day.place).keys() == set(fnmatch.filter(ids, pattern))

        # another command comes in between: what it removed stays out
        day.left_out = {i for i in day.files() if i.startswith("one/new/")}
        end = time.monotonic() + DEADLINE
        while day._cbir(0, "remove", "one/new/*")[0]:  # it is refused during a pass
            assert time.monotonic() < end
        day.save(day.one / "b" / "another.png")
        day.is_followed()

        for number in range(200):
            day.save(day.two / "many" / f"{number}.png")
        time.sleep(day.dice.uniform(0, 1))

    # what was killed goes on; what was deleted meanwhile is marked, and a folder is elsewhere
    deleted = day.some(day.one / "b")
    ids = {path: i for i, path in day.files().items()}
    for path in deleted:
        path.unlink()
    day.two = shutil.copytree(day.two, tmp_path / "my two")
    shutil.rmtree(mount_point)
    day.call_sources("one", "two")
    assert day._cbir(0, "sources", "--relocate", "two", day.two)[0] == 0
    day.told.unlink()
    day.contents = known(day.place)
    with watching(day, signal.SIGTERM):
        day.is_followed(missing={ids[path] for path in deleted})
        [path, *_] = day.some(day.two)
        path.rename(path.with_name("renamed.png"))
        day.save(day.two / "another.png")
        day.is_followed(missing={ids[path] for path in deleted})
    day.index(missing={ids[path] for path in deleted})
