"""Files that are written whole or not at all, also where the power fails meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write the new file or folder; it replaces `path` when the block succeeds.

    A reader finds the old one or the new one. When the block or the replacing fails, the old one
    stays and the new one is removed. Raises `OSError` as writing does.
    """
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        yield draft
        put_in_place(draft, path)


def put_in_place(draft: Path, path: Path) -> None:
    """Rename `draft`, a finished file or folder of files, to `path`, its bytes on disk first."""
    for file in draft.iterdir() if draft.is_dir() else (draft,):
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())
    draft.replace(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path`, which keeps its old content until all of it is written."""
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write `files` by name into `folder`; no file is replaced before all are written.

    Makes the folders that are missing; a name may hold slashes.
    """
    with ExitStack() as drafts:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            drafts.enter_context(replacing(path)).write_bytes(data)
