"""A folder of checked files about pictures; each can be made again; the least used go first.

Each file begins with a sha256 over its name and content, so a damaged file, or one under another's
name, is noticed and dropped. Any number of processes may use a folder; what cannot be read or
written is not kept. The folder may belong to an index from a stranger: hashes name the files, only
regular files of bounded size are read, links are never followed, and only our files are deleted.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

BYTES = 256 * 2**20
"""The largest total size of a folder; it is checked after every `_CHECKED_EVERY` files written."""

FILE_BYTES = 2**20
"""The largest size of one file; a larger one is damaged."""

_DIGEST = 32
_CHECKED_EVERY = 200
_USE_NOTED_EVERY = 60.0  # seconds; the order of use need not be more exact
_DRAFT_AGE = 3600.0  # seconds after which a draft belongs to a process that was killed
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}\.kept")
_DRAFT = re.compile(r"\.[0-9a-f]{64}-[0-9a-f]{16}\.kept-[0-9]+-[0-9]+")


class KeptFiles:
    """The files in `folder`, which is created when needed if its parent exists. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._written = 0

    def get(self, content_hash: str, settings: str) -> bytes | None:
        """What is kept of a picture for these settings, None if nothing; drops a damaged file."""
        path = self._path(content_hash, settings)
        if path is None:
            return None
        found = _content(path)
        with suppress(OSError):  # the folder may be read-only
            if found is None:
                path.unlink(missing_ok=True)
            elif time.time() - path.lstat().st_mtime > _USE_NOTED_EVERY:
                os.utime(path)
        return found

    def put(self, content_hash: str, settings: str, content: bytes) -> None:
        """Keep `content`, at most `FILE_BYTES`, if the folder can be written."""
        path = self._path(content_hash, settings)
        if path is None:
            return
        draft = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_native_id()}")
        try:
            self._folder.mkdir(exist_ok=True)
            with draft.open("xb") as file:
                file.write(_digest(path.name, content) + content)
            draft.replace(path)  # replaces a link itself, not the file that it names
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            return
        with self._lock:
            due = self._written % _CHECKED_EVERY == 0
            self._written += 1
        if due:
            _remove_least_used(self._folder)

    def _path(self, content_hash: str, settings: str) -> Path | None:
        """Where the file is; None for what is no hash, which an index from a stranger may hold."""
        if not _HASH.fullmatch(content_hash):
            return None
        return self._folder / f"{content_hash}-{sha256(settings.encode()).hexdigest()[:16]}.kept"


def damaged_files(folder: Path) -> list[Path]:
    """The files in `folder` whose checksum is wrong."""
    return [path for path, _ in _files(folder, _NAME) if _content(path) is None and path.exists()]


def remove_unless(folder: Path, stays: Callable[[set[str]], set[str]]) -> None:
    """Remove the files of pictures that are gone; `stays` selects the hashes of those that are not.

    Files that cannot be removed stay.
    """
    hashes = {path: path.name[:64] for path, _ in _files(folder, _NAME)}
    kept = stays(set(hashes.values())) if hashes else set()
    for path, content_hash in hashes.items():
        if content_hash not in kept:
            with suppress(OSError):
                path.unlink()


def _digest(name: str, content: bytes) -> bytes:
    return sha256(name.encode() + content).digest()


def _content(path: Path) -> bytes | None:
    """The content of a file, None if it is missing, unreadable or damaged."""
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > FILE_BYTES + _DIGEST:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    content = data[_DIGEST:]
    return content if data[:_DIGEST] == _digest(path.name, content) else None


def _files(folder: Path, name: re.Pattern[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in `folder` with a matching `name`; none if the folder is missing or a link."""
    if folder.is_symlink():
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with suppress(OSError):  # another process has removed it
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def _remove_least_used(folder: Path) -> None:
    """Remove abandoned drafts, and files until the rest fits in `BYTES`."""
    abandoned = time.time() - _DRAFT_AGE
    drafts = [path for path, facts in _files(folder, _DRAFT) if facts.st_mtime < abandoned]
    kept = sorted(_files(folder, _NAME), key=lambda file: (file[1].st_mtime, file[0].name))
    excess = sum(facts.st_size for _, facts in kept) - BYTES
    oldest = []
    for path, facts in kept:
        if excess <= 0:
            break
        oldest.append(path)
        excess -= facts.st_size
    for path in drafts + oldest:
        with suppress(OSError):
            path.unlink()
