"""Writes files completely or not at all, even if the power fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft path (file or folder) that atomically replaces `path` if the block succeeds.

    Readers see either the old version or the new one. On failure the old version stays and the
    draft is removed. A symbolic link stays and its target is replaced; a pipe or device is written
    directly. Raises `OSError`.
    """
    path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        yield draft
        put_in_place(draft, path)


def put_in_place(draft: Path, path: Path) -> None:
    """Flush `draft`, a file or a folder of files, to disk and rename it to `path`."""
    for file in draft.iterdir() if draft.is_dir() else (draft,):
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())
    draft.replace(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing the old file only once everything is written."""
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write `files`, by name, into `folder`; replace existing files only once all are written.

    Creates missing folders. Names may contain slashes.
    """
    with ExitStack() as drafts:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            drafts.enter_context(replacing(path)).write_bytes(data)
