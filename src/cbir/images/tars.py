"""A tar file, compressed or not, as an image source: streamed, never extracted to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from lzma import LZMAError
from pathlib import Path
from typing import IO, Self

from cbir.errors import CbirError, ImageError
from cbir.images.decode import BYTE_LIMIT, check_size
from cbir.images.items import SourceItem
from cbir.images.members import (
    HEAD_SIZE,
    archive_name,
    extension,
    has_image_suffix,
    is_candidate,
    label_of,
    member_key,
)


@dataclass(frozen=True, slots=True)
class TarMember:
    """A visible file of the tar `path`; `file` is None for a link.

    It can be read only until the next member is requested.
    """

    path: Path
    key: str
    info: tarfile.TarInfo
    file: IO[bytes] | None

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, -1 for the rest; raises `CbirError` if the tar is damaged."""
        assert self.file is not None
        with _naming(self.path):
            return self.file.read(size)


@dataclass
class TarSource:
    """The images in the tar file `path`, in archive order.

    Each item carries its bytes, so memory holds only the items that the consumer keeps. If the
    archive is damaged, `items` yields the items before the damage, then raises `CbirError`.
    """

    path: Path
    label_from_folder: bool = False
    descriptor: str | None = None
    scope: str = ""
    count: int | None = field(default=None, init=False)
    ignored: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.name = archive_name(self.path)
        self.uri = str(self.path)

    def items(self) -> Iterator[SourceItem]:
        self.ignored = Counter()
        for member in stream_tar(self.path):
            item = member_item(member)
            if item is None:
                self.ignored[extension(member.key)] += 1
            else:
                yield item if self.label_from_folder else replace(item, label=None)

    def open(self, location: str) -> bytes:
        return open_member(self.path, location)


def stream_tar(path: Path) -> Iterator[TarMember]:
    """All visible files and links in a tar, in order; raises `CbirError` where it is damaged."""
    with _naming(path), tarfile.open(path, "r|*", tarinfo=_StrictInfo) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            key = member_key(info.name)
            if key is not None and not info.isdir():
                yield TarMember(path, key, info, tar.extractfile(info) if info.isreg() else None)


def member_item(member: TarMember) -> SourceItem | None:
    """The item of a member, labelled with its folder; None if it is not an image."""
    info, key = member.info, member.key
    stamp = None
    if member.file is None:
        if not has_image_suffix(key):
            return None
        read = partial(_refuse, f"a link to {info.linkname}, not a file in the archive")
    elif info.size > BYTE_LIMIT:
        read = partial(_refuse_size, info.size)
    else:
        head = member.read(HEAD_SIZE)
        if not is_candidate(key, lambda: head):
            return None
        data = head + member.read()
        read, stamp = partial(bytes, data), f"{zlib.crc32(data):08x}"
    label = label_of(key, archive_name(member.path))
    return SourceItem(key, key, label, info.size, int(info.mtime) * 10**9, read, stamp)


def open_member(path: Path, location: str) -> bytes:
    """The bytes of the image at `location` in a tar; reads the archive up to it."""
    if not path.is_file():
        raise ImageError(f"the original is gone: {path} no longer exists")
    for member in stream_tar(path):
        if member.key == location and (item := member_item(member)):
            data = item.read()
            assert isinstance(data, bytes)
            return data
    raise ImageError(f"the original is gone: no image {location} in {path}")


class _StrictInfo(tarfile.TarInfo):
    """Raises an error for a damaged header, which tarfile treats as the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):  # the regular end
                raise
            raise tarfile.ReadError(str(error)) from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zlib.error, LZMAError, EOFError, OSError) as error:
        raise CbirError(
            f"{path}: the archive is damaged or truncated ({error})", "download or create it again"
        ) from error


def _refuse(reason: str) -> bytes:
    raise ImageError(reason)


def _refuse_size(size: int) -> bytes:
    check_size(size)
    return b""
