"""Reads a tar, compressed or not, member by member, with a bound on everything it can demand."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import IO, Any, BinaryIO, Self, TypeVar

from cbir.errors import CbirError
from cbir.files import open_file
from cbir.images.expanding import DAMAGE, PORTION, decompressor, portions
from cbir.images.members import MOST_NAME_BYTES, is_too_long, member_key
from cbir.images.unpacked import Unpacked

EXPANDED_TIMES, EXPANDED_BYTES = 1000, 1_000_000_000
"""A tar may expand to this multiple of its size plus this many bytes."""

_HEADER_BYTES, _HEADERS_BYTES = 2**20, 2**23
"""The longest extended header that is read; all headers of one member, with its map of holes."""
_RECORD_BYTES = MOST_NAME_BYTES + 512
"""The longest record of such a header: enough to see that a name is too long."""
_LENGTH = re.compile(rb"(\d{1,20}) ")
_KEYS = {
    *(b"path", b"linkpath", b"size", b"mtime"),
    *(b"GNU.sparse." + key for key in (b"major", b"minor", b"name", b"realsize", b"size")),
    *(b"GNU.sparse." + key for key in (b"map", b"numblocks", b"offset", b"numbytes")),
}
_CHARSET = b"21 hdrcharset=BINARY\n"
"""Found at once; older versions of tarfile search whole headers for it, in quadratic time."""
_ERRORS = (tarfile.TarError, *DAMAGE, ValueError, OverflowError, RecursionError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of the tar `path`; `key` is where it is unpacked, `file` None if it is no file.

    It can be read only until the next member is requested. `too_long`: its name or headers exceed
    the limit, so that `key` is only the beginning of its name.
    """

    path: Path
    key: str
    info: tarfile.TarInfo
    file: IO[bytes] | None
    too_long: bool = False

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end; raises `CbirError` if the tar is damaged."""
        assert self.file is not None
        left = size
        taken = []
        # tarfile joins the parts of a sparse file one by one, in quadratic time.
        step = size if self.info.sparse is None else PORTION
        with naming(self.path):
            while left > 0 and (data := self.file.read(min(left, step))):
                taken.append(data)
                left -= len(data)
        return b"".join(taken)


def stream_tar(path: Path, start: int = 0) -> Generator[TarMember]:
    """The members of a tar from the offset `start`, in order.

    Raises `CbirError` where it is damaged or expands too far.
    """
    with naming(path), open_content(path) as content:
        content.seek(start)
        tar = _tar(content)
        while (info := tar.next()) is not None:
            content.allowed = inf
            if info.size < 0 or tar.offset <= info.offset:
                raise tarfile.ReadError("a member of negative size")
            if info.sparse is not None:  # its holes are in no stream
                content.spend(info.size)
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            if key := unpacked_key(info.name):
                cut = isinstance(info, _Header) and info.too_long
                too_long = cut or is_too_long(info.name) or is_too_long(info.linkname)
                is_link = info.islnk() or info.issym()
                file = None if is_link or too_long else tar.extractfile(info)
                yield TarMember(path, key, info, file, too_long)
            content.allowed = _HEADERS_BYTES


def is_tar(path: Path) -> bool:
    """Whether `path` begins like a tar, compressed or not; raises EOFError if it is cut off."""
    try:
        with open_content(path) as content:
            _tar(content)
    except EOFError:
        raise
    except _ERRORS:
        return False
    return True


def is_compressed(path: Path) -> bool:
    """Whether a tar can only be read from its front."""
    with open_content(path) as content:
        return content.is_compressed


def put_member(unpacked: Unpacked[T], member: TarMember, content: T) -> None:
    """Put what unpacking `member` leaves; `content` says where its bytes are."""
    info, key = member.info, member.key
    if member.too_long:
        return
    if info.isdir():
        unpacked.put_folder(key)
    elif info.issym():
        unpacked.put_symlink(key, info.linkname)
    elif info.islnk():
        unpacked.put_hard_link(key, unpacked_key(info.linkname))
    elif member.file is not None:
        unpacked.put_file(key, content)


def unpacked_key(name: str) -> str:
    """The key at which `name` is unpacked; empty for the archive's own top folder.

    A leading `/` is dropped, as tar does. Python's tarfile follows `..`, GNU tar and bsdtar refuse
    it; here it leads to the parent folder, but never out of the archive.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return member_key(parts)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns errors about damage into a `CbirError` that names the archive."""
    try:
        yield
    except _ERRORS as error:
        raise CbirError(
            f"{path}: the archive is damaged or truncated ({error})", "download or create it again"
        ) from error


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """The bytes of a tar, decompressed; raises OSError."""
    with open_file(path) as file:
        new = decompressor(file.read(8))
        file.seek(0)
        most = EXPANDED_TIMES * os.fstat(file.fileno()).st_size + EXPANDED_BYTES
        yield Content(path, file, new and portions(file.read, new, whole=True), most)


class Content:
    """What tarfile reads: the decompressed bytes of a file; in a compressed one, only forwards.

    Raises `CbirError` once more than `most` bytes are expanded.
    """

    def __init__(
        self, path: Path, file: BinaryIO, expanded: Iterator[bytes] | None, most: int
    ) -> None:
        self.name = str(path)
        self.is_compressed = expanded is not None
        self.allowed: float = inf
        self._path = path
        self._file = file
        self._expanded = expanded
        self._left = most
        self._rest = memoryview(b"")
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, place: int) -> int:
        """Go to `place` without using up what is allowed."""
        if self._expanded is None:
            self._rest = memoryview(b"")
            self._at = self._file.seek(place)
            return self._at
        if place < self._at:
            raise tarfile.StreamError("the members overlap")
        while self._at < place and self._take(min(place - self._at, PORTION)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        if size > self.allowed:
            raise tarfile.ReadError(f"headers of more than {_HEADERS_BYTES >> 20} MiB")
        self.allowed -= size
        return self._take(size)

    def put_back(self, data: bytes) -> None:
        """The next read returns `data`, in place of the bytes that were read last."""
        self._rest = memoryview(data + self._rest)
        self._at -= len(data)

    def spend(self, size: int) -> None:
        """Count `size` expanded bytes."""
        self._left -= size
        if self._left < 0:
            raise CbirError(
                f"{self._path}: the archive expands to more than {EXPANDED_TIMES:,} times its size",
                "if you trust it, unpack it and index the folder",
            )

    def _take(self, size: int) -> bytes:
        taken = []
        left = size
        while left > 0 and (self._rest or self._refill(left)):
            taken.append(self._rest[:left])
            self._rest = self._rest[left:]
            left -= len(taken[-1])
        self._at += size - left
        return b"".join(taken)

    def _refill(self, size: int) -> bool:
        if self._expanded is None:
            self._rest = memoryview(self._file.read(size))
        else:
            self._rest = memoryview(next(self._expanded, b""))
            self.spend(len(self._rest))
        return len(self._rest) > 0


def _tar(content: Content) -> tarfile.TarFile:
    content.allowed = _HEADERS_BYTES
    return tarfile.open(fileobj=content, mode="r:", tarinfo=_Header, encoding="utf-8")  # type: ignore[call-overload,no-any-return]


class _Header(tarfile.TarInfo):
    """Refuses damaged headers, which tarfile treats as the end, and passes over endless ones."""

    too_long = False

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):  # the regular end
                raise
            raise tarfile.ReadError(str(error)) from error

    def _proc_gnulong(self, tar: Any) -> Self:
        if 0 <= self.size <= _RECORD_BYTES:
            return super()._proc_gnulong(tar)  # type: ignore[misc,no-any-return]
        return self._passed_over(tar)

    def _proc_pax(self, tar: Any) -> Self:
        """As tarfile, but only the records that say what and where a file is."""
        if not 0 <= self.size <= _HEADER_BYTES:
            return self._passed_over(tar)
        records, left_out = _needed(tar.fileobj.read(self._block(self.size))[: self.size])  # type: ignore[attr-defined]
        self.size = len(records)
        tar.fileobj.put_back(records.ljust(self._block(self.size), b"\0"))  # type: ignore[attr-defined]
        following: Self = super()._proc_pax(tar)  # type: ignore[misc]
        following.too_long |= left_out
        return following

    def _passed_over(self, tar: Any) -> Self:
        """The member that follows, without what this header says about it."""
        tar.fileobj.seek(tar.fileobj.tell() + self._block(max(self.size, 0)))  # type: ignore[attr-defined]
        try:
            following = self.fromtarfile(tar)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        following.offset = self.offset
        following.too_long = True
        return following


def _needed(header: bytes) -> tuple[bytes, bool]:
    """The needed records (`LENGTH KEY=VALUE\\n`) of a pax header, and whether one is too long."""
    kept, too_long = [_CHARSET], False
    at = 0
    while length := _LENGTH.match(header, at):
        end = at + int(length[1])
        if not length.end() < end <= len(header):
            raise tarfile.ReadError("an invalid header")
        if header[length.end() : end].partition(b"=")[0] in _KEYS:
            if end - at > _RECORD_BYTES:
                too_long = True
            else:
                kept.append(header[at:end])
        at = end
    kept.sort(key=_is_sparse_name)  # the last name counts
    return b"".join(kept), too_long


def _is_sparse_name(record: bytes) -> bool:
    """Whether it holds the name of a sparse file; `path` is then that of its condensed form."""
    return b" GNU.sparse.name=" in record
