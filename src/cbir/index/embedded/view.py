"""A search's view of the index: the cached block, newer records and removed records."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbir.errors import IndexStateError, write_hint
from cbir.index import filters
from cbir.index.base import Matches
from cbir.index.embedded import cache, filter_sql, record_rows, schema
from cbir.index.embedded import folder as files
from cbir.index.embedded.block import Block, read_block
from cbir.index.embedded.cache import Cached, UnusableCacheError
from cbir.index.embedded.sqlite import Database
from cbir.index.exact import Space, Top, nearest
from cbir.types import Box, Vectors

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FEW_NEWER_ROWS = 4096
_FEW_CHANGES = 1024
"""As many newer rows and removed records leave the cache file as it is: a search hardly notices."""
_FILTERS_KEPT = 4
_FILTER_BYTES_KEPT = 64 << 20
_WRITER_WAITS = 60.0


@dataclass(frozen=True)
class Target:
    """The records of a block to search.

    `numbers`: their numbers in the block, ascending; None for all. `hidden` marks removed records.
    """

    block: Block
    numbers: NDArray[np.int64] | None = None
    hidden: NDArray[np.bool_] | None = None

    @cached_property
    def space(self) -> Space:
        """The vectors to search."""
        return self.block.space if self.numbers is None else self.block.select(self.numbers)

    def best(self, queries: Vectors, k: int, exclude: Sequence[str | None] | None) -> Top:
        """The k best for each row of `queries`, with record and row numbers of the block."""
        excluded = None if exclude is None else self._places(exclude)
        top = nearest(self.space, queries, k, self.hidden, excluded)
        if self.numbers is None or not len(self.numbers):
            return top
        part = top.rows - self.space.starts[top.records]
        records = self.numbers[top.records]
        return Top(top.scores, records, self.block.starts[records] + part)

    def _places(self, ids: Sequence[str | None]) -> NDArray[np.int64]:
        """The number of each id's record in the space, or -1."""
        find = self.block.ids.find
        found = np.array([-1 if name is None else find(name) for name in ids], dtype=np.int64)
        if self.numbers is None:
            return found
        if not len(self.numbers):
            return np.full(len(ids), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.numbers, found), len(self.numbers) - 1)
        return np.where(self.numbers[at] == found, at, -1)


@dataclass(frozen=True)
class View:
    """One state of an index: the cached block `base`, and `newer` records.

    Newer records and rows are numbered after those of the base. `alive`, bool (records of base,),
    marks the records that still exist; None for all.
    """

    generation: int
    base: Block
    newer: Block
    alive: NDArray[np.bool_] | None
    filtered: dict[tuple[str, ...], tuple[Target, Target]] = field(default_factory=dict)

    @cached_property
    def everything(self) -> tuple[Target, Target]:
        """The targets without a filter."""
        hidden = None if self.alive is None else ~self.alive
        return Target(self.base, hidden=hidden), Target(self.newer)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The rank by id of each record, base then newer."""
        base = np.arange(1, len(self.base) + 1, dtype=np.int64) << 32
        before = [self.base.ids.position(self.newer.ids[i]) for i in range(len(self.newer))]
        newer = (np.array(before, dtype=np.int64) << 32) + np.arange(1, len(self.newer) + 1)
        return np.concatenate((base, newer))

    def answer(
        self,
        targets: tuple[Target, Target],
        queries: Vectors,
        k: int,
        exclude: Sequence[str | None] | None,
    ) -> list[Matches]:
        """The k best records for each row of `queries`, float32 (q, dim), by score, then id."""
        base, newer = (target.best(queries, k, exclude) for target in targets)
        return self._matches(self._merged(base, newer, k) if newer.scores.shape[1] else base)

    def _merged(self, base: Top, newer: Top, k: int) -> Top:
        scores = np.concatenate((base.scores, newer.scores), axis=1)
        records = np.concatenate((base.records, newer.records + len(self.base)), axis=1)
        rows = np.concatenate((base.rows, newer.rows + len(self.base.matrix)), axis=1)
        order = np.lexsort((self.order[records], -scores), axis=-1)[:, :k]
        return Top(scores, records, rows).ordered(order)

    def _matches(self, top: Top) -> list[Matches]:
        there = top.scores > -np.inf
        scores, records, rows = top.scores[there], top.records[there], top.rows[there]
        numbers, places = np.unique(records, return_inverse=True)
        distinct = np.array([self._id(number) for number in numbers.tolist()], dtype=object)
        ids: list[str] = distinct[places].tolist()
        boxes: list[Box | None] = [None] * len(ids)
        if len(self.base.boxes) or len(self.newer.boxes):
            boxes = [self._box(*at) for at in zip(records.tolist(), rows.tolist(), strict=True)]
        ends = np.cumsum(np.count_nonzero(there, axis=1)).tolist()
        return [
            Matches(ids[start:end], scores[start:end].copy(), boxes[start:end])
            for start, end in pairwise([0, *ends])
        ]

    def _id(self, number: int) -> str:
        base = len(self.base)
        return self.base.ids[number] if number < base else self.newer.ids[number - base]

    def _box(self, number: int, row: int) -> Box | None:
        base = len(self.base)
        if number < base:
            return self.base.box(number, row)
        return self.newer.box(number - base, row - len(self.base.matrix))


class Views:
    """Tracks the database and provides the view of the latest committed generation."""

    def __init__(self, database: Database, folder: Path, name: str, meta: schema.Meta) -> None:
        self._database = database
        self._folder = folder
        self._name = name
        self._meta = meta
        self._lock = threading.Lock()
        self._cached: Cached | None = None
        self._view: View | None = None

    def current(self) -> View:
        """The view of the latest committed generation."""
        view = self._view
        with self._database.read() as connection:
            if view is not None and view.generation == schema.generation(connection):
                return view
        with self._lock:
            self._view = self._load()
            return self._view

    def filtered(self, where: Sequence[str]) -> tuple[View, tuple[Target, Target]]:
        """The current view and its records that pass the filters."""
        while True:  # retry only if another commit came in between
            view = self.current()
            if not where:
                return view, view.everything
            targets = view.filtered.get(tuple(where)) or self._select(view, tuple(where))
            if targets is not None:
                return view, targets

    def refresh(self) -> None:
        """Write the cache file again if much has changed since; only the writer calls this.

        A few changes cost searches less than writing all vectors would cost each run. If the file
        cannot be replaced because another process has it mapped (Windows), the old one stays: it
        is still valid, but leaves more newer records to search.
        """
        from filelock import Timeout

        try:
            with self._lock, self._cache_lock(_WRITER_WAITS):
                self._refresh()
        except Timeout:
            raise IndexStateError(
                f"the search cache of {self._name} is being built by another process",
                "all records are kept; a later search updates the cache",
            ) from None
        except OSError as error:
            raise IndexStateError(
                f"the search cache of {self._name} cannot be written: {error.strerror}",
                "all records are kept; "
                + write_hint(error, "free some space and run the same command again"),
            ) from error

    def discard_foreign(self) -> None:
        """Remove a cache of a later state than the database's; a writer calls this first.

        The database was restored from a backup: once it reaches that generation by other changes,
        the cache would pass for its own.
        """
        path = self._folder / files.CACHE
        with self._database.read() as connection:
            if (cache.generation(path) or 0) > schema.generation(connection):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the mapped file."""
        self._view = self._cached = None

    def _select(self, view: View, where: tuple[str, ...]) -> tuple[Target, Target] | None:
        """The records that pass the filters, kept for the next search; None if `view` is stale."""
        with self._database.read() as connection:
            if schema.generation(connection) != view.generation:
                return None
            conditions = filters.parse(where, record_rows.metadata_fields(connection))
            keys = filter_sql.matching_keys(connection, conditions)
        found = (_target(view.base, keys, view.alive), _target(view.newer, keys, None))
        if sum(target.space.matrix.nbytes for target in found) <= _FILTER_BYTES_KEPT:
            with self._lock:
                while len(view.filtered) >= _FILTERS_KEPT:
                    del view.filtered[next(iter(view.filtered))]
                view.filtered[where] = found
        return found

    def _refresh(self) -> None:
        cached = self._usable()
        if cached is None or not self._is_recent(cached):
            self._view = self._cached = cached = None  # some systems cannot replace a mapped file
            cached = self._read_truth()
            try:
                self._write(cached)
            except PermissionError:
                return
        with self._database.read() as connection:
            log_from = schema.log_from(connection)
        if log_from < cached.generation:  # a reader may have written the cache
            with self._database.write() as connection:
                record_rows.forget_removed(connection, cached.generation)

    def _is_recent(self, cached: Cached) -> bool:
        """Whether few rows were added and few records removed since."""
        with self._database.read() as connection:
            generation = schema.generation(connection)
            if not schema.log_from(connection) <= cached.generation <= generation:
                return False
            changes = record_rows.rows_after(connection, cached.max_key)
            changes += len(record_rows.removed_since(connection, cached.generation))
        return changes <= _FEW_CHANGES

    def _load(self) -> View:
        """The current view, based on the cache if usable, else on a new cache."""
        view = self._over(self._cached) or self._over(self._usable())
        while view is None:  # retry only if a writer committed a great deal meanwhile
            self._view = self._cached = None
            self._cached = self._rebuilt()
            view = self._over(self._cached)
        return view

    def _over(self, cached: Cached | None) -> View | None:
        """The current view based on `cached`; None if too much has changed since."""
        if cached is None:
            return None
        with self._database.read() as connection:
            generation = schema.generation(connection)
            if not schema.log_from(connection) <= cached.generation <= generation:
                return None
            newer_rows = record_rows.rows_after(connection, cached.max_key)
            if newer_rows > _FEW_NEWER_ROWS + len(cached.block.matrix) // 8:
                return None
            newer = read_block(connection, self._meta.spec.dim, after=cached.max_key)
            removed = record_rows.removed_since(connection, cached.generation)
        self._cached = cached
        gone = np.isin(cached.block.keys, np.array(removed, dtype=np.int64))
        return View(generation, cached.block, newer, ~gone if gone.any() else None)

    def _rebuilt(self) -> Cached:
        """Build a new cache; write it to its file if this process gets the lock."""
        try:
            with self._cache_lock(0):
                theirs = self._usable()
                if theirs is not None and self._over(theirs) is not None:
                    return theirs
                cached = self._read_truth()
                with suppress(OSError):  # no space: the cache works from memory too
                    self._write(cached)
                return cached
        except OSError:  # another process holds the lock (Timeout), or the folder is read-only
            return self._read_truth()

    def _cache_lock(self, timeout: float) -> BaseFileLock:
        from filelock import FileLock

        return FileLock(self._folder / files.CACHE_LOCK, timeout=timeout, thread_local=False)

    def _usable(self) -> Cached | None:
        """The content of the cache file; None if it is missing, damaged or of another index."""
        try:
            path = self._folder / files.CACHE
            return cache.read(path, self._meta.index_id, self._meta.spec.dim)
        except UnusableCacheError:
            return None

    def _write(self, cached: Cached) -> None:
        draft = self._folder / files.CACHE_DRAFT
        try:
            cache.write(self._folder / files.CACHE, draft, cached, self._meta.index_id)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _read_truth(self) -> Cached:
        with self._database.read() as connection:
            return Cached(
                read_block(connection, self._meta.spec.dim),
                schema.generation(connection),
                schema.last_key(connection),
            )


def _target(block: Block, keys: NDArray[np.int64], alive: NDArray[np.bool_] | None) -> Target:
    chosen = np.isin(block.keys, keys, assume_unique=True)
    if alive is not None:
        chosen &= alive
    return Target(block, np.flatnonzero(chosen))
