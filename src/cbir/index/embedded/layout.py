"""The files of an embedded index: `NAME.cbir/`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

RECORDS = "index.sqlite"
THUMBNAILS = "thumbs.sqlite"
MODEL = "model"
CACHE = "vectors.cache"
CACHE_DRAFT = "vectors.cache.new"
CACHE_LOCK = "cache.lock"
WRITER_LOCK = "writer.lock"
WRITER_PID = "writer.pid"

_SQLITE_SIDE_FILES = ("", "-wal", "-shm", "-journal")
_OWN_NAMES = {MODEL, CACHE, CACHE_DRAFT, CACHE_LOCK, WRITER_LOCK, WRITER_PID} | {
    name + side for name in (RECORDS, THUMBNAILS) for side in _SQLITE_SIDE_FILES
}


def holds_only_own_files(folder: Path) -> bool:
    """Whether nothing in `folder` was put there by anyone but an index (true when it is empty)."""
    return all(path.name in _OWN_NAMES for path in folder.iterdir())


def remove_database(path: Path) -> None:
    """Remove a SQLite file and what lies beside it."""
    for side in _SQLITE_SIDE_FILES:
        path.with_name(path.name + side).unlink(missing_ok=True)


def size_in_bytes(folder: Path) -> int:
    """What the files of an index take up on disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # side files come and go beside a writer
            total += path.stat().st_size if path.is_file() else 0
    return total
