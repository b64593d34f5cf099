"""The folder of an embedded index, `NAME.cbir/`: its files and its writer lock."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cbir.errors import IndexStateError, write_hint
from cbir.wording import shell_word

if TYPE_CHECKING:
    from filelock import BaseFileLock

RECORDS = "index.sqlite"
THUMBNAILS = "thumbs.sqlite"
MODEL = "model"
CACHE = "vectors.cache"
CACHE_DRAFT = "vectors.cache.new"
CACHE_LOCK = "cache.lock"
SALVAGED = ".new"
"""Ends the name of a database that is being read from a damaged one."""
DAMAGED = ".damaged"
"""Follows the name of a database that was replaced by what could be read of it."""
KEYPOINTS = "keypoints"

_WRITER_LOCK = "writer.lock"
_WRITER_PID = "writer.pid"
_SQLITE_SIDE_FILES = ("", "-wal", "-shm", "-journal")
_OWN_NAMES = {MODEL, CACHE, CACHE_DRAFT, CACHE_LOCK, KEYPOINTS, _WRITER_LOCK, _WRITER_PID} | {
    name + side for name in (RECORDS, THUMBNAILS) for side in _SQLITE_SIDE_FILES
}


def holds_only_own_files(folder: Path) -> bool:
    """Whether `folder` contains only index files; true if it is empty."""
    return all(
        path.name in _OWN_NAMES or f"sqlite{DAMAGED}-" in path.name for path in folder.iterdir()
    )


def check_own_files(folder: Path, name: str) -> None:
    """Raise `IndexStateError` unless the files of the index are files in its `folder`.

    A stranger's index could hold a link in the place of a lock or log, which would be written to,
    or a pipe, which would be waited for. `KEYPOINTS` is no danger: `kept_files` follows no link.
    `name` is the index in messages.
    """
    for own in sorted(_OWN_NAMES - {KEYPOINTS}):
        path = folder / own
        with suppress(FileNotFoundError):  # a process may delete side files meanwhile
            kind = stat.S_IFMT(path.lstat().st_mode)
            if kind != (stat.S_IFDIR if own == MODEL else stat.S_IFREG):
                raise IndexStateError(
                    f"{name}/{own} is not a {'folder' if own == MODEL else 'regular file'}",
                    "replace links with what they lead to, and remove anything else",
                )


def remove_database(path: Path) -> None:
    """Remove a SQLite file and its side files."""
    for side in _SQLITE_SIDE_FILES:
        path.with_name(path.name + side).unlink(missing_ok=True)


def size_in_bytes(folder: Path) -> int:
    """The total size of all files in `folder`."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a writer may delete side files meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def lock_for_writing(folder: Path, name: str) -> BaseFileLock:
    """Acquire the writer lock of the index in `folder`, called `name` in messages.

    Raises `IndexStateError`, with the holder's process id, if another writer has the lock, and if
    the folder is not writable. The system releases the lock of a process that dies.
    """
    from filelock import FileLock, Timeout

    check_own_files(folder, name)
    lock = FileLock(folder / _WRITER_LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
        (folder / _WRITER_PID).write_text(f"{os.getpid()}\n", encoding="ascii")
    except Timeout:
        raise IndexStateError(
            f"{name} is being written by {_holder(folder)}", "wait until it finishes, or stop it"
        ) from None
    except OSError as error:
        lock.release()
        raise IndexStateError(
            f"{name} cannot be written: {error.strerror}",
            write_hint(error, "check its permissions and free space"),
        ) from error
    return lock


def unlock(lock: BaseFileLock, folder: Path) -> None:
    """Release the writer lock."""
    (folder / _WRITER_PID).unlink(missing_ok=True)
    lock.release()


def unfinished(url: str) -> IndexStateError:
    """The error for an index that was never completed."""
    return IndexStateError(
        f"{url} is incomplete: its creation was interrupted",
        f"cbir index FOLDER --into {shell_word(url)}",
    )


def _holder(folder: Path) -> str:
    try:
        return f"process {int((folder / _WRITER_PID).read_text(encoding='ascii'))}"
    except (OSError, ValueError):  # not written yet, or just removed
        return "another process"
