"""A writer whose every step is known beforehand, so that what it left can be checked."""

from __future__ import annotations

import numpy as np

from cbir.index.base import Entry
from cbir.index.open import create_index
from cbir.testing import make_entry, unit
from tests.index.embedded.support_index import SPEC

BATCH = 20


def entry(number: int, version: int) -> Entry:
    """The record of a number as step `version` wrote it."""
    vector = unit(np.random.default_rng([number, version]).normal(size=(1, 8)))
    return make_entry(f"k/{number:06d}", vector, thumbnail=b"%d of %d" % (version, number) * 40)


def step(number: int) -> tuple[list[Entry], list[str]]:
    """What step `number` does in one transaction: what it adds or replaces, or what it removes."""
    first = number * BATCH
    if number % 4 == 3:
        return [], [f"k/{n:06d}" for n in range(first - BATCH, first - BATCH + 3)]
    fresh = [entry(n, number) for n in range(first, first + BATCH)]
    return fresh + [entry(n, number) for n in range(max(0, first - 2 * BATCH), first, 7)], []


def write(folder: str, start: int) -> None:
    """Take steps from `start` on, and say of each when it is committed; never ends."""
    index = create_index(folder, SPEC, {"model.onnx": b"weights"})
    for number in range(start, 10**6):
        add, remove = step(number)
        index.add(add) if add else index.remove(remove)
        print(number, flush=True)
        if number % 6 == 5:
            index.refresh()
