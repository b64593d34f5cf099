"""What a search sees: the cached block, newer records beside it, and what of it is gone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbir.errors import IndexStateError
from cbir.index import filters
from cbir.index.embedded import cache, store
from cbir.index.embedded import folder as files
from cbir.index.embedded.block import Block, join_ids, read_block
from cbir.index.embedded.cache import Cached, UnusableCacheError
from cbir.index.embedded.sqlite import Database
from cbir.index.exact import Space

_FEW_NEWER_ROWS = 4096
_FILTERS_KEPT = 4
_FILTER_BYTES_KEPT = 64 << 20
_WRITER_WAITS = 60.0


@dataclass(frozen=True)
class Target:
    """The vectors of one block that a query is compared with.

    `numbers` are the block's record numbers of the space's records, None where it is all of them;
    `hidden` marks records of the space that are gone.
    """

    space: Space
    numbers: NDArray[np.int64] | None
    hidden: NDArray[np.bool_] | None


@dataclass(frozen=True)
class View:
    """One state of an index. `alive` bool (records of base,): those that are still there."""

    generation: int
    base: Block
    newer: Block
    alive: NDArray[np.bool_] | None
    filtered: dict[tuple[str, ...], tuple[Target, Target]] = field(default_factory=dict)

    @cached_property
    def everything(self) -> tuple[Target, Target]:
        """Targets without a filter."""
        hidden = None if self.alive is None else ~self.alive
        return Target(self.base.space, None, hidden), Target(self.newer.space, None, None)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """A number a record, base then newer, that sorts all of them by id."""
        base = np.arange(1, len(self.base) + 1, dtype=np.int64) << 32
        before = [self.base.ids.position(self.newer.ids[i]) for i in range(len(self.newer))]
        newer = (np.array(before, dtype=np.int64) << 32) + np.arange(1, len(self.newer) + 1)
        return np.concatenate((base, newer))


class Views:
    """Follows the truth: the view of the generation that is committed now."""

    def __init__(self, database: Database, folder: Path, name: str, meta: store.Meta) -> None:
        self._database = database
        self._folder = folder
        self._name = name
        self._meta = meta
        self._lock = threading.Lock()
        self._cached: Cached | None = None
        self._view: View | None = None

    def current(self) -> View:
        """The view of what is committed at this moment."""
        view = self._view
        with self._database.read() as connection:
            if view is not None and view.generation == store.generation(connection):
                return view
        with self._lock:
            self._view = self._load()
            return self._view

    def filtered(self, where: Sequence[str]) -> tuple[View, tuple[Target, Target]]:
        """The present view, and what of it the filters let through; the last few are kept."""
        while True:  # again only when something was committed in the meantime
            view = self.current()
            targets = self._targets(view, tuple(where))
            if targets is not None:
                return view, targets

    def refresh(self) -> None:
        """Bring the cache file up to the present; the writer's part.

        Where the file cannot be replaced because another process has it mapped (Windows), the
        old one stays: it is still right, with more beside it to look through.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._folder / files.CACHE_LOCK, timeout=_WRITER_WAITS, thread_local=False)
        try:
            with self._lock, lock:
                self._refresh()
        except Timeout:
            raise IndexStateError(
                f"the search cache of {self._name} is being built by another process",
                "all records are kept; searching brings it up to date later",
            ) from None
        except OSError as error:
            raise IndexStateError(
                f"the search cache of {self._name} cannot be written: {error.strerror}",
                "all records are kept; free some space and run the same command again",
            ) from error

    def close(self) -> None:
        """Let go of the mapped file."""
        self._view = self._cached = None

    def _targets(self, view: View, where: tuple[str, ...]) -> tuple[Target, Target] | None:
        """What the filters let through; None if the truth has gone on since `view`."""
        if not where:
            return view.everything
        known = view.filtered.get(where)
        if known is not None:
            return known
        with self._database.read() as connection:
            if store.generation(connection) != view.generation:
                return None
            conditions = filters.parse(where, store.metadata_fields(connection))
            keys = store.matching_keys(connection, conditions)
        found = (_target(view.base, keys, view.alive), _target(view.newer, keys, None))
        if sum(target.space.matrix.nbytes for target in found) <= _FILTER_BYTES_KEPT:
            with self._lock:
                while len(view.filtered) >= _FILTERS_KEPT:
                    del view.filtered[next(iter(view.filtered))]
                view.filtered[where] = found
        return found

    def _refresh(self) -> None:
        with self._database.read() as connection:
            present = store.generation(connection)
        try:
            if self._read().generation == present:
                return
        except UnusableCacheError:
            pass
        self._view = self._cached = None  # a mapped file cannot be replaced everywhere
        cached = self._read_truth()
        try:
            self._write(cached)
        except PermissionError:
            return
        with self._database.write() as connection:
            store.forget_removed(connection, cached.generation)

    def _load(self) -> View:
        """The present view, over the cache if it is of use, else over a new one."""
        view = self._over(self._cached) or self._over(self._usable())
        while view is None:  # again only when a writer committed very much in the meantime
            self._view = self._cached = None
            self._cached = self._rebuilt()
            view = self._over(self._cached)
        return view

    def _over(self, cached: Cached | None) -> View | None:
        """The present view over `cached`; None where too much has happened since."""
        if cached is None:
            return None
        with self._database.read() as connection:
            generation = store.generation(connection)
            if not store.log_from(connection) <= cached.generation <= generation:
                return None
            if cached.generation == generation:
                self._cached = cached
                return View(generation, cached.block, _nothing(self._meta.spec.dim), None)
            newer_rows = store.rows_after(connection, cached.max_key)
            if newer_rows > _FEW_NEWER_ROWS + len(cached.block.matrix) // 8:
                return None
            newer = read_block(connection, self._meta.spec.dim, after=cached.max_key)
            removed = store.removed_since(connection, cached.generation)
        self._cached = cached
        gone = np.isin(cached.block.keys, np.array(removed, dtype=np.int64))
        return View(generation, cached.block, newer, ~gone if gone.any() else None)

    def _usable(self) -> Cached | None:
        try:
            return self._read()
        except UnusableCacheError:
            return None

    def _rebuilt(self) -> Cached:
        """A new cache: kept in its file by whoever gets the lock, else in memory only."""
        from filelock import FileLock

        lock = FileLock(self._folder / files.CACHE_LOCK, timeout=0, thread_local=False)
        try:
            with lock:
                theirs = self._usable()
                if theirs is not None and self._over(theirs) is not None:
                    return theirs
                cached = self._read_truth()
                with suppress(OSError):  # no space: it serves from memory as well
                    self._write(cached)
                return cached
        except OSError:  # somebody else is at it (a Timeout is one), or the place is read-only
            return self._read_truth()

    def _read(self) -> Cached:
        path = self._folder / files.CACHE
        return cache.read(path, self._meta.index_id, self._meta.spec.dim)

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
                store.generation(connection),
                store.last_key(connection),
            )


def _target(block: Block, keys: NDArray[np.int64], alive: NDArray[np.bool_] | None) -> Target:
    chosen = np.isin(block.keys, keys, assume_unique=True)
    if alive is not None:
        chosen &= alive
    numbers = np.flatnonzero(chosen)
    return Target(block.select(numbers), numbers, None)


def _nothing(dim: int) -> Block:
    return Block(
        np.empty(0, dtype=np.int64),
        join_ids(()),
        np.zeros(1, dtype=np.int64),
        np.empty((0, dim), dtype=np.float32),
        np.empty((0, 4), dtype=np.float64),
    )
