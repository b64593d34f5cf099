"""Flipped bits in the cells of an index: each is found and undone, and nothing is lost."""

from __future__ import annotations

import random
import shutil
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from benchmarks.hostile import flips
from benchmarks.hostile.trials import Trials, tried
from cbir.errors import CbirError, IndexStateError
from cbir.index.base import NO_SPARES, Detail, FileState, SourceRun, Spares, Tombstone
from cbir.index.embedded.checksums import RECORDS, THUMBNAILS
from cbir.index.open import mend, open_index
from cbir.testing import sample_entries, unit
from cbir.types import Failure
from tests.index.embedded.support_index import new_index

QUERY = unit(np.ones((1, 8)))
TABLES = (*RECORDS, *THUMBNAILS)


def trials(count: int, folder: Path) -> Trials:
    """`count` flips; tables take turns."""
    share, more = divmod(count, len(TABLES))
    for number, table in enumerate(TABLES):
        yield from in_table(table, share + (number < more), folder / table)


def in_table(table: str, count: int, folder: Path) -> Trials:
    """`count` flips in one table."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, place = write_index(folder / "whole.cbir"), folder / "flipped.cbir"
    before = content(whole)
    done = 0
    for flip in flips.flips(whole, table, random.Random(table)):
        if done == count:
            return
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        if flips.apply(place, flip):
            done += 1
            yield tried("flipped bits", str(flip), lambda: _check(place, before))


def _check(place: Path, before: tuple[list[object], ...]) -> None:
    assert problems(place), "verify does not find it"
    with suppress(CbirError):  # one line at most
        content(place)
    left = repaired(place)
    assert not left, f"the repair leaves {left}"
    assert content(place) == before, "the repair changes an answer"


def write_index(folder: Path) -> Path:
    """A small index at `folder` with something in every table."""
    entries = sample_entries(8, parts=2, metadata={"year": 2005, "place": "Genève", "f": 0.5})
    with closing(new_index(folder, entries)) as index:
        index.register_source("a", "/pictures/a")
        index.register_source("b", "/pictures/b")
        index.set_run("a", SourceRun(17, finished=True))
        index.set_failures("a", [Failure("a", "x.jpg", "truncated"), Failure("a", "y", "empty")])
        index.bury([Tombstone("a/9", "a", "9", "0" * 64, 7, None, "7-7", 18)])
        index.refresh()
        index.remove(["a/0006", "a/0007"])
        index.touch({"a/0001": FileState(9, 9, "9", 1)})
        index.mark_missing(["a/0002"])
        index.set_details({"a/0003": Detail("bird", {"year": 7})})
    return folder


def content(folder: Path) -> tuple[list[object], ...]:
    """Everything that an index answers."""
    with closing(open_index(folder)) as index:
        entries = [(e.record, e.vectors.tobytes(), e.boxes, e.thumbnail) for e in index.entries()]
        rest = [index.sources(), index.runs(), index.failures(), index.tombstones()]
        found = [(m.ids, m.scores.tolist()) for m in index.search(QUERY, 10)]
        return list(entries), list(rest), list(found), [index.spec]


def problems(folder: Path) -> list[str]:
    """What `verify` finds, or the error with which the index refuses to open."""
    try:
        with closing(open_index(folder)) as index:
            return index.verify()
    except IndexStateError as error:
        return [str(error)]


def repaired(folder: Path, spares: Spares = NO_SPARES) -> list[str]:
    """The problems that are left after a repair."""
    mend(str(folder))
    with closing(open_index(folder, write=True)) as index:
        index.verify(repair=True, spares=spares)
        return index.verify()
