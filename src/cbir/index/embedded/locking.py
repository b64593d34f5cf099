"""One writer at a time: `writer.lock`, held for the whole run and freed by the system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cbir.errors import IndexStateError
from cbir.index.embedded import layout

if TYPE_CHECKING:
    from filelock import BaseFileLock


def lock_for_writing(folder: Path, name: str) -> BaseFileLock:
    """The held writer's lock of the index in `folder`.

    Raises `IndexStateError` with the process id of the holder when there is one, and when the
    folder cannot be written to. The system frees the lock of a process that dies, however it dies.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / layout.WRITER_LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise IndexStateError(
            f"{name} is being written by {_holder(folder)}",
            "wait until it has ended, or stop it",
        ) from None
    except OSError as error:
        raise IndexStateError(
            f"{name} cannot be written: {error.strerror}",
            "give a place that you may write to",
        ) from error
    try:
        (folder / layout.WRITER_PID).write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        lock.release()
        raise IndexStateError(
            f"{name} cannot be written: {error.strerror}", "free some space, or check the disk"
        ) from error
    return lock


def unlock(lock: BaseFileLock, folder: Path) -> None:
    """Give the writer's lock back."""
    (folder / layout.WRITER_PID).unlink(missing_ok=True)
    lock.release()


def _holder(folder: Path) -> str:
    try:
        return f"process {int((folder / layout.WRITER_PID).read_text(encoding='ascii'))}"
    except (OSError, ValueError):  # the holder has not written it yet, or is just leaving
        return "another process"
