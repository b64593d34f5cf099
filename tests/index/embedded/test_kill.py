"""Killed with kill -9 at any moment, an index opens and holds every batch that was acknowledged."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cbir.index.base import Entry
from cbir.index.open import index_exists, open_index
from cbir.testing import sample_entries, unit
from tests.index.embedded.support_index import answers, expected, made_index
from tests.index.embedded.support_kill import step

ROUNDS = 24
KEEPS_WRITING = """
import sys
from tests.index.embedded.support_kill import write
print("ready", flush=True)
write(sys.argv[1], int(sys.argv[2]))
"""
KEEPS_REFRESHING = """
import sys
from pathlib import Path
from cbir.index.open import open_index
index = open_index(sys.argv[1], write=True)
print("ready", flush=True)
while True:
    Path(sys.argv[1], "vectors.cache").unlink(missing_ok=True)
    index.refresh()
    print("refreshed", flush=True)
"""


def apply(state: dict[str, Entry], number: int) -> dict[str, Entry]:
    """`state` after one more step."""
    add, remove = step(number)
    after = {name: kept for name, kept in state.items() if name not in remove}
    after.update({item.record.id: item for item in add})
    return after


def run_and_kill(code: str, *arguments: object, when: Callable[[], object]) -> Iterator[str]:
    """Run `code`, kill it as soon as `when` has returned; the lines that it had written."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"

        def kill() -> None:
            when()
            child.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        # The pipe is read while the child writes; what comes after the kill was written before.
        for line in child.stdout:
            if line.endswith("\n"):
                yield line.strip()
        killer.join()
    assert child.returncode == -signal.SIGKILL


def contents(folder: Path) -> dict[str, Entry]:
    with closing(open_index(str(folder))) as index:
        return {item.record.id: item for item in index.entries()}


def same(one: dict[str, Entry], other: dict[str, Entry]) -> bool:
    return one.keys() == other.keys() and all(
        item.vectors.tobytes() == other[name].vectors.tobytes()
        and item.thumbnail == other[name].thumbnail
        and item.record == other[name].record
        for name, item in one.items()
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_every_acknowledged_batch_survives_kill_9_and_writing_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "killed.cbir"
    dice = random.Random(20)
    state: dict[str, Entry] = {}
    following = 0
    for round_number in range(ROUNDS):
        delay = dice.uniform(0, 0.03 if round_number < 4 else 0.25)
        moment = partial(time.sleep, delay)
        for line in run_and_kill(KEEPS_WRITING, folder, following, when=moment):
            assert int(line) == following
            state = apply(state, following)
            following += 1
        if not index_exists(str(folder)):
            assert following == 0  # killed before it was made
            continue
        found = contents(folder)
        if not same(found, state):  # committed in full, but killed before it could say so
            state = apply(state, following)
            following += 1
            assert same(found, state)
        with closing(open_index(str(folder))) as index:
            assert index.verify() == []
            query = unit(np.random.default_rng(round_number).normal(size=(1, 8)))
            assert answers(index, query, 10) == [expected(state.values(), query[0], 10)]
        with closing(open_index(str(folder), write=True)) as index:
            assert index.verify() == []
    assert following > ROUNDS  # it did get somewhere in between


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_kill_while_the_cache_is_written_costs_nothing(tmp_path: Path) -> None:
    entries = sample_entries(6000)
    folder = made_index(tmp_path / "killed.cbir", entries)
    dice = random.Random(6)
    query = unit(np.ones((1, 8)))
    draft = folder / "vectors.cache.new"
    half_written = refreshed = 0

    def once_a_cache_is_being_written() -> None:
        deadline = time.monotonic() + 30
        while not draft.exists() and time.monotonic() < deadline:
            pass

    for round_number in range(30):
        blindly = partial(time.sleep, dice.uniform(0.01, 0.2))
        moment = blindly if round_number < 4 else once_a_cache_is_being_written
        refreshed += len(list(run_and_kill(KEEPS_REFRESHING, folder, when=moment)))
        half_written += draft.exists()
        with closing(open_index(str(folder))) as index:
            assert index.verify() == []
            assert answers(index, query, 20) == [expected(entries, query[0], 20)]
        with closing(open_index(str(folder), write=True)) as index:
            index.refresh()  # no lock was left behind
            assert index.verify() == []
        assert not draft.exists()
        if half_written >= 2 and round_number >= 6:
            break
    assert half_written, "no kill ever met a half-written cache"
    assert refreshed
