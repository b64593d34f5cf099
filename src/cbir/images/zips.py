"""A .zip file as an image source: reads members one by one, never extracts to disk."""

from __future__ import annotations

import calendar
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from lzma import LZMAError
from pathlib import Path
from threading import Lock
from typing import IO

from cbir.errors import CbirError, ImageError
from cbir.images.decode import check_size
from cbir.images.items import SourceItem, whole_seconds_ns
from cbir.images.members import (
    HEAD_SIZE,
    archive_name,
    extension,
    has_image_suffix,
    is_candidate,
    is_hidden_key,
    label_of,
    member_key,
)
from cbir.images.unpacked import Unpacked

_ENCRYPTED = 0x1
_UTF8 = 0x800
_FAT = 0
_UNICODE_PATH = 0x7075
_LONGEST_TARGET = 4096
_NO_NAMES = ("", ".", "..")
"""Parts of a name that `unzip` drops."""
_MEMBER_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, ValueError, struct.error),
    *(NotImplementedError, RuntimeError),  # unknown compression; a password
)


@dataclass
class ZipSource:
    """The images in the .zip file `path`, where `unzip` unpacks them, ordered by their keys' bytes.

    Reads members lazily, one at a time under a lock. Raises `CbirError` if the archive itself is
    damaged; for a damaged or encrypted member only the item's `read` raises. If the archive
    contains a name twice, the last member counts.
    """

    path: Path
    label_from_folder: bool = False
    descriptor: str | None = None
    scope: str = ""
    ignored: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.name = archive_name(self.path)
        self.uri = str(self.path)
        self._lock = Lock()

    @cached_property
    def count(self) -> int | None:
        """The number of items, from the archive's table of contents."""
        return len(self._images)

    def items(self) -> Iterator[SourceItem]:
        self.ignored = Counter(extension(key) for key, item in self._files.items() if not item)
        yield from self._images.values()

    def open(self, location: str) -> bytes:
        if not self.path.is_file():
            raise ImageError(f"the original is gone: {self.uri} no longer exists")
        if location not in self._images:
            raise ImageError(f"the original is gone: no image {location} in {self.uri}")
        data = self._images[location].read()
        assert isinstance(data, bytes)
        return data

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except _MEMBER_ERRORS as error:
            raise CbirError(
                f"{self.path}: the archive cannot be read ({error})", "download or create it again"
            ) from error

    @cached_property
    def _images(self) -> dict[str, SourceItem]:
        return {key: item for key, item in self._files.items() if item is not None}

    @cached_property
    def _files(self) -> dict[str, SourceItem | None]:
        """The visible files by key, in order; None for what is not an image."""
        unpacked: Unpacked[zipfile.ZipInfo] = Unpacked()
        keys = set()
        for member in self._archive.infolist():
            name = _name(member)
            if not (key := member_key(part for part in name.split("/") if part not in _NO_NAMES)):
                continue
            if name.rpartition("/")[2] in _NO_NAMES:
                unpacked.put_folder(key)
                continue
            keys.add(key)
            target = self._link_target(member)
            if target is None:
                unpacked.put_file(key, member)
            else:
                unpacked.put_symlink(key, target)
        visible = sorted((key for key in keys if not is_hidden_key(key)), key=str.encode)
        return {
            key: self._item(key, unpacked)
            for key in visible
            if unpacked.find(key) or not unpacked.is_folder(key)
        }

    def _item(self, key: str, unpacked: Unpacked[zipfile.ZipInfo]) -> SourceItem | None:
        member = unpacked.find(key)
        label = label_of(key, self.name) if self.label_from_folder else None
        if member is None:
            dead = partial(_refuse, unpacked.target(key))
            return SourceItem(key, key, label, None, None, dead) if has_image_suffix(key) else None
        if not is_candidate(key, partial(self._head, member)):
            return None
        read, stamp = partial(self._read, member), f"{member.CRC:08x}"
        return SourceItem(key, key, label, member.file_size, _mtime_ns(member), read, stamp)

    def _link_target(self, member: zipfile.ZipInfo) -> str | None:
        """Where a symbolic link leads; None for a file, and for a link that cannot be read."""
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if not is_link or member.file_size > _LONGEST_TARGET:
            return None
        try:
            with self._lock, self._open(member) as file:
                return file.read().decode("utf-8", "surrogateescape")
        except _MEMBER_ERRORS:  # its `read` will say why
            return None

    def _head(self, member: zipfile.ZipInfo) -> bytes:
        try:
            with self._lock, self._open(member) as file:
                return file.read(HEAD_SIZE)
        except _MEMBER_ERRORS:  # unreadable, and not an image by its name
            return b""

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        check_size(member.file_size)
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("password-protected: unpack the archive and index the folder")
        try:
            with self._lock, self._open(member) as file:
                return file.read()
        except _MEMBER_ERRORS as error:
            raise ImageError(f"damaged in the archive: {error}") from error

    def _open(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """`member`, also if its own header spells its name differently, as `unzip` opens it."""
        file = self._archive.fp
        assert file is not None
        file.seek(member.header_offset)
        flags, length = struct.unpack("<6xH18xH2x", file.read(30))
        member.orig_filename = file.read(length).decode("utf-8" if flags & _UTF8 else "cp437")
        return self._archive.open(member)


def _name(member: zipfile.ZipInfo) -> str:
    """The path of a member as `unzip` reads it, before it drops unsafe parts.

    Names without the UTF-8 flag are UTF-8 if they can be (macOS writes such), else cp437. A valid
    Unicode path field comes first. Backslashes separate folders if a FAT system wrote the member.
    """
    name = member.orig_filename
    if not member.flag_bits & _UTF8:
        raw = name.encode("cp437")
        with suppress(UnicodeDecodeError):
            name = (_unicode_path(member.extra, raw) or raw).decode()
    name = name.partition("\0")[0]
    if member.create_system == _FAT and "/" not in name:
        name = name.replace("\\", "/")
    return name


def _unicode_path(extra: bytes, name: bytes) -> bytes | None:
    """The Unicode path in a member's extra field (APPNOTE 4.6.9), if it is that of `name`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5:
            version, crc = struct.unpack_from("<BI", field)
            if version == 1 and crc == zlib.crc32(name):
                return field[5:]
    return None


def _mtime_ns(member: zipfile.ZipInfo) -> int | None:
    try:
        return whole_seconds_ns(calendar.timegm((*member.date_time, 0, 0, 0)))
    except ValueError:  # month 0 or above 12, as some programs write where they know no date
        return None


def _refuse(target: str) -> bytes:
    raise ImageError(f"a link to {target}, which is not in the archive")
