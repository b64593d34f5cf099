"""Keeps an index up with its folders and archives while they change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any

from cbir.descriptors.contract import Descriptor
from cbir.descriptors.models import load_descriptor
from cbir.errors import CbirError
from cbir.images.excludes import excludes
from cbir.images.folders import FolderSource
from cbir.images.sources import open_source
from cbir.index.open import index_exists, open_index
from cbir.ingest.indexing import descriptor_of_index, index_images
from cbir.ingest.run import PruneRefusedError
from cbir.ingest.run_state import OnProgress, Progress
from cbir.registry import require_extra
from cbir.types import AddReport

QUIET_SECONDS = 0.5
"""A burst of changes is over when nothing has changed for this long."""
BURST_SECONDS = 30.0
"""A burst that goes on is indexed after this time."""
LOOK_SECONDS = 1.0
"""How often the sources themselves are looked at: no system tells about mounted drives."""
RETRY_SECONDS = 30.0
"""When a pass that failed is tried again, if nothing changes before."""
REST_SECONDS = 60.0
"""The longest rest after a pass; it is as long as the pass, so half of the time is idle."""

OnPass = Callable[[AddReport, AddReport | None], None]
"""Takes the report of a pass, and that of the last one over the same sources: None in the first
pass, and the same report if these sources were not together before."""

_EXCLUDES = {"exclude": (), "default_excludes": True}

State = tuple[int, ...]


def watch_images(
    sources: Sequence[str | Path],
    into: str | Path,
    *,
    stop: Event | None = None,
    on_pass: OnPass = lambda *_: None,
    on_message: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress = lambda _: None,
    descriptor: str | Descriptor | None = None,
    **options: Any,
) -> None:
    """Index `sources` into `into`, and again after each burst of changes, until `stop` is set.

    Takes the options of `index_images` except `rebuild`; Ctrl-C ends it, too. Every pass scans all
    sources. `on_message` gets a line when a source is not there, or has come back, and when a pass
    fails. A folder that is gone, or that has no images any more, may be on a drive that is not
    mounted: its records stay as they are, until it is back. A pass that fails (the index is locked,
    the disk is full) is tried again after the next change or `RETRY_SECONDS`; the first one raises
    its error. Raises `CbirError` if a source cannot change (`cifar10:train`) or is not there and
    was never indexed.
    """
    require_extra("watching folders", "watch", "watchfiles")
    watcher = _Watcher(sources, os.fspath(into), stop or Event(), options, descriptor)
    watcher.on_pass, watcher.on_message, watcher.on_progress = on_pass, on_message, on_progress
    with suppress(KeyboardInterrupt):
        watcher.run()


class _Watcher:
    """The state between the passes of `watch_images`."""

    on_pass: OnPass
    on_message: Callable[[str], None]
    on_progress: OnProgress

    def __init__(
        self,
        sources: Sequence[str | Path],
        into: str,
        stop: Event,
        options: dict[str, Any],
        descriptor: str | Descriptor | None,
    ) -> None:
        self._into = into
        self._stop = stop
        self._options = options
        self._descriptor = descriptor
        self._indexed = _indexed_places(into)
        self._paths = [self._path(os.fspath(source)) for source in sources]
        self._waiting: set[Path] = set()
        self._reports: dict[tuple[Path, ...], AddReport] = {}
        self._problem = ""
        self._due_at = 0.0

    def run(self) -> None:
        """Index until `stop` is set."""
        self._pass(self._there())
        while not self._stop.is_set():
            # Whatever changed before the system began to watch: the next pass finds it.
            self._due_at = 0.0
            states = self._states()
            for changed in self._changes([path for path in states if path.is_dir()]):
                if changed or time.monotonic() >= self._due_at:
                    self._try_pass()
                if self._states() != states:
                    break

    def _path(self, source: str) -> Path:
        path = Path(source).resolve()
        try:
            opened = open_source(source)
        except CbirError:
            if not self._is_indexed(path):
                raise
            return path
        if not Path(opened.uri).is_absolute():
            raise CbirError(f"{source} never changes", "index it without --watch")
        return path

    def _is_indexed(self, path: Path) -> bool:
        return any(path.is_relative_to(place) for place in self._indexed)

    def _states(self) -> dict[Path, State]:
        """What tells whether a source was replaced, mounted, unmounted or, a file, written."""
        states: dict[Path, State] = {}
        for path in self._paths:
            with suppress(OSError):
                status = path.stat()
                states[path] = status.st_dev, status.st_ino
                if not path.is_dir():
                    states[path] += status.st_size, status.st_mtime_ns
        return states

    def _changes(self, folders: Sequence[Path]) -> Iterator[bool]:
        """Whether anything has changed in `folders`: after each burst, and every LOOK_SECONDS."""
        from watchfiles import watch

        if not folders:
            while not self._stop.wait(LOOK_SECONDS):
                yield False
            return
        index = str(Path(self._into).resolve())
        inside = os.path.join(index, "")  # noqa: PTH118 - Path drops the final separator
        try:
            for changes in watch(
                *folders,
                watch_filter=lambda _, path: path != index and not path.startswith(inside),
                step=int(QUIET_SECONDS * 1000),
                debounce=int(BURST_SECONDS * 1000),
                rust_timeout=int(LOOK_SECONDS * 1000),
                yield_on_timeout=True,
                stop_event=self._stop,
                ignore_permission_denied=True,
            ):
                yield bool(changes)
        except FileNotFoundError:  # gone since it was looked at
            self._stop.wait(LOOK_SECONDS)
        except (OSError, RuntimeError) as error:
            raise CbirError(
                f"the system cannot watch {', '.join(map(str, folders))}: {error}",
                "raise the limit fs.inotify.max_user_watches, or set WATCHFILES_FORCE_POLLING=1",
            ) from error

    def _try_pass(self) -> None:
        """Run one pass; report an error once, until a pass succeeds."""
        self._due_at = float("inf")
        started = time.monotonic()
        try:
            self._pass(self._there())
        except (CbirError, OSError) as error:
            self._tell_problem(error)
            self._due_at = time.monotonic() + RETRY_SECONDS
        self._stop.wait(min(time.monotonic() - started, REST_SECONDS))

    def _pass(self, paths: tuple[Path, ...]) -> None:
        if not paths or self._stop.is_set():
            return
        try:
            report = index_images(
                paths,
                self._into,
                descriptor=self._descriptor,
                on_progress=self._progress,
                **self._options,
            )
        except PruneRefusedError as error:
            report = error.report
            self._tell_problem(error)
        else:
            self._problem = ""
        self._indexed = _indexed_places(self._into)
        if isinstance(self._descriptor, str):  # loaded once, not in every pass
            self._descriptor = load_descriptor(self._descriptor)
        elif self._descriptor is None and self._indexed:
            self._descriptor = descriptor_of_index(self._into)
        for once in ("again", "rehash"):  # what is removed later stays removed
            self._options.pop(once, None)
        self.on_pass(report, self._reports.get(paths, report) if self._reports else None)
        self._reports[paths] = report
        if report.interrupted:
            self._stop.set()

    def _progress(self, progress: Progress) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt  # ends a run after a commit
        self.on_progress(progress)

    def _there(self) -> tuple[Path, ...]:
        """The sources to index; tells which ones are awaited, or back."""
        awaited = {path: reason for path in self._paths if (reason := self._absence(path))}
        for path in self._paths:
            if path in awaited and path not in self._waiting:
                self.on_message(f"waiting for {path}: {awaited[path]}")
            elif path in self._waiting and path not in awaited:
                self.on_message(f"{path} is back")
        self._waiting = set(awaited)
        return tuple(path for path in self._paths if path not in awaited)

    def _absence(self, path: Path) -> str:
        """Why the records of a source must stay as they are; "" if it is there."""
        if not path.exists():
            return "it is gone; its records stay as they are"
        if not self._is_indexed(path) or not path.is_dir():
            return ""
        rules = excludes(*(self._options.get(name, given) for name, given in _EXCLUDES.items()))
        source = FolderSource(path, rules=rules)
        if next(source.items(), None) or "chosen" in source.left_out.paths.values():
            return ""
        return "it has no images (is its drive mounted?); its records stay as they are"

    def _tell_problem(self, error: Exception) -> None:
        if str(error) != self._problem:
            self._problem = str(error)
            self.on_message(self._problem)


def _indexed_places(into: str) -> set[str]:
    """The places of the sources of an index; none if there is no index yet."""
    if not index_exists(into):
        return set()
    with closing(open_index(into)) as index:
        return set(index.sources().values())
