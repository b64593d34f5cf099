"""Kills (SIGKILL) at random moments of all that writes an index.

After each, the index opens, `verify` finds nothing, each record is as it was before or as it is
afterwards, and what was not to change is there. The same command again gives the whole result.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.hostile.measured import ROOT
from benchmarks.hostile.trials import Trials, tried, write_pictures
from cbir.index.open import create_index, index_exists, open_index
from cbir.ingest import copy, source_scan
from cbir.ingest.copy import copy_index
from cbir.ingest.indexing import index_images
from cbir.ingest.record_removal import remove_images
from cbir.testing import sample_entries
from cbir.types import DescriptorSpec
from tests.descriptors.support_photos import MeanColour
from tests.ingest.support_runs import held

PICTURES = 60
CACHED = 3000
AT_ONCE = 8  # records in a transaction: many transactions make many moments
INDEX = "i.cbir"
COPY = "copy.cbir"

Records = Mapping[str, tuple[object, ...]]


@dataclass(frozen=True)
class Operation:
    """What is killed. Both get the folder of a trial; `target` is what `run` writes in it."""

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    target: str = INDEX


def _ingest(folder: Path) -> None:
    index_images([_pictures(folder)], folder / INDEX, descriptor=MeanColour())


def _prune(folder: Path) -> None:
    index_images([_pictures(folder)], folder / INDEX, descriptor=MeanColour(), prune="force")


def _lose_pictures(folder: Path) -> None:
    _ingest(folder)
    for path in sorted(_pictures(folder).iterdir())[: PICTURES // 3]:
        path.unlink()


def _remove(folder: Path) -> None:
    remove_images(folder / INDEX, ["*/00[0-2]*"])


def _copy(folder: Path) -> None:
    copy_index(str(folder / INDEX), str(folder / COPY))


def _lose_cache(folder: Path) -> None:
    with closing(
        create_index(str(folder / INDEX), DescriptorSpec("made-up", 8, "5" * 64))
    ) as index:
        index.add(sample_entries(CACHED))
        index.refresh()
    (folder / INDEX / "vectors.cache").unlink()


def _build_cache(folder: Path) -> None:
    with closing(open_index(folder / INDEX, write=True)) as index:
        index.refresh()


def _old_index(folder: Path) -> None:
    shutil.copytree(ROOT / "tests" / "fixtures" / "embedded", folder / INDEX)


def _migrate(folder: Path) -> None:
    open_index(folder / INDEX, write=True).close()


OPERATIONS: Mapping[str, Operation] = {
    "ingest": Operation(lambda _: None, _ingest),
    "remove": Operation(_ingest, _remove),
    "copy": Operation(_ingest, _copy, COPY),
    "prune": Operation(_lose_pictures, _prune),
    "cache build": Operation(_lose_cache, _build_cache),
    "migration": Operation(_old_index, _migrate),
}


def trials(count: int, folder: Path) -> Trials:
    """`count` kills in each operation."""
    for name, operation in OPERATIONS.items():
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True)
        write_pictures(place / "pictures", PICTURES)
        yield from _kills(name, operation, count, place)


def _kills(name: str, operation: Operation, count: int, place: Path) -> Trials:
    dice = random.Random(name)
    before_folder = place / "before"
    before_folder.mkdir()
    operation.prepare(before_folder)
    before = _contents(before_folder / operation.target)
    after: Records = {}
    seconds = 0.0
    for _ in range(3):  # the first run is slower than the others
        folder = _fresh(before_folder)
        seconds = _run(name, folder, None)
        after = _contents(folder / operation.target)
    killed = 0
    while killed < count:
        folder = _fresh(before_folder)
        delay = dice.uniform(0, seconds)
        if _run(name, folder, delay) >= 0:
            continue  # it had ended
        killed += 1
        yield tried(
            f"kills: {name}",
            f"kill {killed} after {delay:.4f} s of {seconds:.4f} s",
            lambda: _check(folder, operation, before, after),  # noqa: B023 # called at once
        )


def _check(folder: Path, operation: Operation, before: Records, after: Records) -> None:
    target = folder / operation.target
    found = _contents(target)
    for record, value in found.items():
        assert value in (before.get(record), after.get(record)), f"{record} is another"
    for record in before.keys() & after.keys():
        assert record in found, f"{record} is lost"
    if operation.target == COPY:
        assert _contents(folder / INDEX) == after, "the original has changed"
    operation.run(folder)
    assert _contents(target) == after, "the second run gives something else"
    with closing(open_index(target)) as index:
        query = np.full((1, index.spec.dim), index.spec.dim**-0.5, np.float32)
        assert set(index.search(query, len(after))[0].ids) == set(after), "a search lacks some"


def _contents(target: Path) -> Records:
    """The records of an index, which must be sound; none if there is no index."""
    if not index_exists(str(target)):
        return {}
    with closing(open_index(target)) as index:
        problems = index.verify()
    assert not problems, f"verify: {problems}"
    return held(target)


def _pictures(folder: Path) -> Path:
    return folder.parent / "pictures"


def _fresh(before: Path) -> Path:
    """The folder of a trial, with what is there before."""
    folder = before.parent / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    return folder


def _run(name: str, folder: Path, kill_after: float | None) -> float:
    """Run an operation in a process of its own; the seconds it took, -1 if it was killed."""
    context = get_context("forkserver")  # starts in milliseconds, with modules loaded
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    child = context.Process(target=_work, args=(name, folder, theirs))
    child.start()
    theirs.close()
    try:
        ours.recv()
        began = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            child.kill()
        child.join()
        seconds = time.perf_counter() - began
    finally:
        child.kill()
        child.join()
        ours.close()
    if child.exitcode == -signal.SIGKILL:
        return -1
    assert child.exitcode == 0, f"{name} ended with {child.exitcode}"
    return seconds


def _work(name: str, folder: Path, ready: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    source_scan.COMMIT_RECORDS = copy.AT_ONCE = AT_ONCE
    ready.send(os.getpid())
    OPERATIONS[name].run(folder)
