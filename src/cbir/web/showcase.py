"""Sample pictures of the index for the start page, and labels to suggest as filters."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from threading import Lock

from cbir.errors import RecordGoneError
from cbir.index.base import Index
from cbir.types import ImageRecord

POOL = 480
SHOWN = 12
MAX_LABELS = 30


@dataclass(frozen=True, slots=True)
class _Pool:
    count: int
    ids: list[str]
    labels: list[str]


class Showcase:
    """Draws pictures from an even sample of the index; samples again when the index changes.

    Thread-safe. Draw number n of an unchanged index is always the same.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = Lock()
        self._pool: _Pool | None = None

    def draw(self, number: int) -> list[ImageRecord]:
        """Up to 12 different records."""
        ids = self._current().ids
        chosen = random.Random(number).sample(ids, min(SHOWN, len(ids)))
        return _records(self._index, chosen)

    def labels(self) -> list[str]:
        """The labels in the sample, sorted; none if there are more than MAX_LABELS."""
        return self._current().labels

    def _current(self) -> _Pool:
        count = self._index.count()
        with self._lock:
            if self._pool is None or self._pool.count != count:
                self._pool = _sample(self._index, count)
            return self._pool


def _sample(index: Index, count: int) -> _Pool:
    ids = list(islice(index.ids(), 0, None, max(1, count // POOL)))
    labels = sorted({r.label for r in _records(index, ids) if r.label is not None})
    return _Pool(count, ids, labels if len(labels) <= MAX_LABELS else [])


def _records(index: Index, ids: Sequence[str]) -> list[ImageRecord]:
    try:
        return index.records(ids)
    except RecordGoneError:  # a writer removed some of them since the sample was taken
        return list(_still_there(index, ids))


def _still_there(index: Index, ids: Sequence[str]) -> Iterator[ImageRecord]:
    for record_id in ids:
        with suppress(RecordGoneError):
            yield from index.records([record_id])
