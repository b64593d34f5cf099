"""Opens single members of tars: plain ones by their offsets, compressed ones from an expanded copy.

A compressed tar can only be read from its front. So the first original that is opened expands it
into `CBIR_HOME/archives`; that folder holds `MOST_KEPT` bytes at most, the last used files.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from cbir.errors import CbirError, ImageError
from cbir.files import put_in_place
from cbir.home import cbir_home
from cbir.images.decode import check_size
from cbir.images.expanding import DAMAGE
from cbir.images.members import HEAD_SIZE, is_candidate, is_hidden_key
from cbir.images.tar_members import (
    Content,
    is_compressed,
    open_content,
    put_member,
    stream_tar,
)
from cbir.images.unpacked import Unpacked

FOLDER = "archives"
MOST_KEPT = 5_000_000_000
"""The most bytes of expanded archives that are kept, and the largest that is expanded."""

_COPIES = (".tar", ".draft")  # a draft that is written now is among the last used
_PIECE = 2**20
_ROOM_EVERY = 64 * _PIECE


def open_member(path: Path, location: str) -> bytes:
    """The bytes of the image at `location` in a tar; raises `ImageError` if it cannot be had."""
    try:
        plain, state = _plain(path)
    except FileNotFoundError as error:
        raise ImageError(f"the original is gone: {path} no longer exists") from error
    except OSError as error:
        raise ImageError(
            f"the original in {path} cannot be read: {error.strerror or error}",
            "an expanded copy needs room: set CBIR_HOME to a folder that has it",
        ) from error
    table = _table(plain, state)
    if location not in table.places:
        if table.damage:  # it may lie behind the damage
            reason = table.damage.message.removeprefix(f"{plain}: ")
            raise CbirError(f"{path}: {reason}", table.damage.hint)
        raise ImageError(f"the original is gone: no image {location} in {path}")
    with closing(stream_tar(plain, table.places[location])) as members:
        member = next(members)
        check_size(member.info.size)
        data = member.read(HEAD_SIZE)
        if is_hidden_key(location) or not is_candidate(location, lambda: data):
            raise ImageError(f"the original is gone: no image {location} in {path}")
        return data + member.read(max(member.info.size - len(data), 0))


def is_kept(size: int) -> bool:
    """Whether a compressed tar that expands to `size` bytes is expanded to open originals."""
    return size <= MOST_KEPT


@dataclass(frozen=True, slots=True)
class _Table:
    """Where the members of a tar begin, by key; `damage`: why there may be more."""

    places: dict[str, int]
    damage: CbirError | None


@lru_cache(maxsize=2)
def _table(path: Path, state: str) -> _Table:
    """The members of a plain tar; `state` changes when the file does."""
    del state
    unpacked: Unpacked[int] = Unpacked(path)
    damage = None
    try:
        for member in stream_tar(path):
            put_member(unpacked, member, member.info.offset)
    except CbirError as error:
        damage = error
    return _Table(unpacked.files(), damage)


def _plain(path: Path) -> tuple[Path, str]:
    """The tar itself, or its expanded copy, and the state of that file."""
    found = _kept(path) if is_compressed(path) else path
    return found, _state(found)


def _kept(path: Path) -> Path:
    """The expanded copy of a compressed tar, made if it is not there."""
    folder = cbir_home() / FOLDER
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    kept = folder / f"{name}-{_state(path)}.tar"
    with suppress(FileNotFoundError):
        os.utime(kept)  # the last used ones stay
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if kept.exists():
            return kept
        too_large = kept.with_suffix(".large")
        if not too_large.exists():
            for old in folder.glob(f"{name}-*"):  # of an earlier state, or of a killed process
                old.unlink()
            if _expand(path, kept):
                return kept
            too_large.touch()
    raise ImageError(
        f"the original is in {path}, which expands to more than {MOST_KEPT // 10**9} GB",
        "to open originals, unpack it and index the folder",
    )


def _expand(path: Path, kept: Path) -> bool:
    """Write the content of `path` to `kept`, up to any damage; False if it is too large."""
    draft = kept.with_suffix(".draft")
    try:
        with open_content(path) as content, draft.open("wb") as file:
            while data := _next_piece(content):
                file.write(data)
                if not is_kept(file.tell()):
                    return False
                if file.tell() % _ROOM_EVERY < _PIECE:
                    _make_room(kept.parent, draft)
            _make_room(kept.parent, draft)
        put_in_place(draft, kept)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _next_piece(content: Content) -> bytes:
    """Empty at the end and where the archive is damaged: what lies before can be opened."""
    try:
        return content.read(_PIECE)
    except (*DAMAGE, CbirError):
        return b""


def _make_room(folder: Path, draft: Path) -> None:
    """Remove the copies that were not used for the longest time, until all fit."""
    copies = sorted(
        ((facts.st_mtime_ns, facts.st_size, path) for path, facts in _files(folder)), reverse=True
    )
    total = draft.stat().st_size
    for _, size, path in copies:
        total += size if path != draft else 0
        if total > MOST_KEPT and path != draft and path.suffix in _COPIES:
            with suppress(OSError):  # in use, on Windows
                path.unlink()


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return found


def _state(path: Path) -> str:
    """Text that changes when the file at `path` is replaced or written; raises OSError."""
    facts = path.stat()
    parts = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
