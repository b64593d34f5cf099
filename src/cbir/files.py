"""Writes files completely or not at all, even if the power fails; reads and links model files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

LINKED_BYTES = 16 * 2**20
"""Size from which `place` links a file."""
READ_BYTES = 2**20
MODEL_BYTES = 4 * 2**30
"""The largest size of the files of a model together."""
_LARGEST = {".json": 64 * 2**20, ".npz": 2**30}
_MODEL_FILE = re.compile(r"([1-9]\d?/)?\w[\w.-]{,99}", re.ASCII)


def special_kind(mode: int) -> str | None:
    """The kind of a file with this mode: "named pipe", "socket", "device"; None for others."""
    if stat.S_ISFIFO(mode):
        return "named pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, unbuffered.

    Raises OSError, also for a named pipe, a socket or a device: reading these may never end.
    """
    # Before opening: opening a device can have effects. And after it: the name may change hands.
    require_regular(path)
    # A pipe that has taken the place of the file would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        require_regular(path, os.fstat(number).st_mode)
        return open(number, "rb", buffering=0)  # noqa: PTH123
    except BaseException:
        os.close(number)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; raises OSError as `open_file` does."""
    with open_file(path) as file:
        return file.read()


def require_regular(path: str | os.PathLike[str], mode: int | None = None) -> None:
    """Raise OSError unless `path` is a regular file; `mode`: of the opened file, if it is open."""
    mode = os.stat(path).st_mode if mode is None else mode  # noqa: PTH116
    if kind := special_kind(mode):
        raise OSError(errno.EINVAL, f"a {kind}, not a file", os.fspath(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))


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


@contextmanager
def alone(lock: Path, refused: Exception) -> Iterator[None]:
    """Hold the file `lock` for the block; raises `refused` if another process holds it.

    The system releases the lock of a process that dies.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise refused from None
    try:
        yield
    finally:
        held.release()


def require_writable(folder: Path) -> None:
    """Raise `OSError`, with the system's reason, unless something can be created in `folder`."""
    TemporaryDirectory(dir=folder, prefix=".cbir-").cleanup()


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


def write_files(
    files: Mapping[str, bytes | Path], folder: Path, shared: Path | None = None
) -> None:
    """Write `files`, by name, into `folder`; replace existing files only once all are written.

    Creates missing folders. Names may contain slashes. `shared`: see `place`.
    """
    with ExitStack() as drafts:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            place(data, drafts.enter_context(replacing(path)), shared)


def content(file: bytes | Path) -> bytes:
    """The bytes of a file, which is given by content or by path."""
    return file if isinstance(file, bytes) else read_regular(file)


def size_of(file: bytes | Path) -> int:
    """The size of a file in bytes, which is given by content or by path."""
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def sha256_of(*files: bytes | Path) -> str:
    """The sha256 (hex) of `files` one after another; reads paths in portions."""
    digest = hashlib.sha256()
    for file in files:
        if isinstance(file, bytes):
            digest.update(file)
            continue
        with open_file(file) as opened:
            while portion := opened.read(READ_BYTES):
                digest.update(portion)
    return digest.hexdigest()


def lies_in(file: Path, folder: Path) -> bool:
    """Whether `file` is in `folder`, where links lead."""
    return file.resolve().is_relative_to(folder.resolve())


def model_faults(folder: Path, names: Iterable[str], *, links: bool = False) -> dict[str, str]:
    """Why files of the model in `folder`, which may be a stranger's, must not be opened, by name.

    They are regular files of bounded size in the folder, with plain names: `model.json`, or
    `1/model.json` for the first part of a composition. `links`: links may lead out of the folder.
    """
    found, total = {}, 0
    for name in names:
        fault, size = _fault(folder, name, links)
        total += size
        if fault or total > MODEL_BYTES:
            found[name] = fault or f"makes the model larger than {MODEL_BYTES >> 30} GiB"
    return found


def is_model_file(name: str) -> bool:
    """Whether a file of a model may be called `name`."""
    return _MODEL_FILE.fullmatch(name) is not None


def _fault(folder: Path, name: str, links: bool) -> tuple[str, int]:
    """What is wrong with a file of a model, "" if nothing, and its size."""
    if not is_model_file(name):
        return "has a name that no file of a model has", 0
    path = folder / name
    try:
        if not (links or lies_in(path, folder)):
            return "is a link out of its folder", 0
        status = path.stat()
    except FileNotFoundError:
        return "is missing", 0
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        return f"cannot be opened: {error}", 0
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file", 0
    limit = _LARGEST.get(path.suffix, MODEL_BYTES)
    if status.st_size > limit:
        return f"is larger than {limit >> 20} MiB", 0
    return "", status.st_size


def place(file: bytes | Path, path: Path, shared: Path | None = None) -> None:
    """Put `file` at the new `path`: hard-link large files where the file system can, else copy.

    Only files in the folder `shared` are linked: others may be written again in place. Small files
    are copied, so that a damaged copy never damages the other.
    """
    if isinstance(file, bytes):
        path.write_bytes(file)
        return
    large = file.stat().st_size >= LINKED_BYTES
    if large and shared and lies_in(file, shared) and os.access(file, os.W_OK):
        with suppress(OSError):
            os.link(file.resolve(), path)
            return
    shutil.copyfile(file, path)
