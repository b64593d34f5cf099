"""A .zip file as an image source: reads members one by one, never extracts to disk."""

from __future__ import annotations

import bz2
import calendar
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import cast
from weakref import finalize

from cbir.errors import CbirError, ImageError
from cbir.files import open_file
from cbir.images.decode import BYTE_LIMIT, check_size
from cbir.images.expanding import DAMAGE, PORTION, Decompressor, Inflater, portions
from cbir.images.items import SourceItem, whole_seconds_ns
from cbir.images.members import (
    HEAD_SIZE,
    archive_name,
    cut_key,
    extension,
    has_image_suffix,
    is_candidate,
    is_hidden_key,
    is_too_long,
    label_of,
    member_key,
    refuse_long_name,
)
from cbir.images.unpacked import Unpacked

_ENCRYPTED = 0x1
_UTF8 = 0x800
_FAT = 0
_UNICODE_PATH = 0x7075
_LONGEST_TARGET = 4096
_NO_NAMES = ("", ".", "..")
"""Parts of a name that `unzip` drops."""
_MOST_MEMBERS, _MOST_TABLE_BYTES = 2_000_000, 500_000_000
"""Limits of the table of contents: Python takes some 600 bytes for each of its entries."""
_HEADER_BYTES, _LZMA_PROPERTIES = 30, 5
_ENTRY, _ENTRY_BYTES = b"PK\1\2", 46
_MEMBER_ERRORS = (
    *(*DAMAGE, zipfile.BadZipFile, ValueError, struct.error, OverflowError),
    *(NotImplementedError, RuntimeError),  # an unknown version
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
            file = _TableLimit(cast("io.FileIO", open_file(self.path)))
            finalize(self, file.close)
            return zipfile.ZipFile(file)
        except _MEMBER_ERRORS as error:
            raise CbirError(
                f"{self.path}: the archive cannot be read ({error})",
                "download or create it again; or unpack it with another program, and index the "
                "folder",
            ) from error

    @cached_property
    def _images(self) -> dict[str, SourceItem]:
        return {key: item for key, item in self._files.items() if item is not None}

    @cached_property
    def _files(self) -> dict[str, SourceItem | None]:
        """The visible files by key, in order; None for what is not an image."""
        unpacked: Unpacked[zipfile.ZipInfo] = Unpacked(self.path)
        keys = set()
        unread: dict[str, SourceItem | None] = {}
        for member in self._archive.infolist():
            name = _name(member)
            if is_too_long(name):
                key = cut_key(member_key([name]), member.header_offset)
                label = label_of(key, self.name) if self.label_from_folder else None
                unread[key] = SourceItem(key, key, label, None, None, refuse_long_name)
                continue
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
        return unread | {
            key: self._item(key, unpacked)
            for key in visible
            if unpacked.find(key) or not unpacked.is_folder(key)
        }

    @cached_property
    def _overlapping(self) -> set[int]:
        """The members (their `id`) whose bytes reach into another one's: a sign of a bomb."""
        found = set()
        following: int | None = None
        for member in sorted(self._archive.infolist(), key=_start, reverse=True):
            end = member.header_offset + _HEADER_BYTES + member.compress_size
            if following is not None and end > following:
                found.add(id(member))
            following = member.header_offset
        return found

    def _item(self, key: str, unpacked: Unpacked[zipfile.ZipInfo]) -> SourceItem | None:
        member = unpacked.find(key)
        label = label_of(key, self.name) if self.label_from_folder else None
        if member is None:
            dead = partial(unpacked.refuse_dead_link, key)
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
            return self._content(member, _LONGEST_TARGET).decode("utf-8", "surrogateescape")
        except (*_MEMBER_ERRORS, ImageError):  # its `read` will say why
            return None

    def _head(self, member: zipfile.ZipInfo) -> bytes:
        try:
            return self._beginning(member, HEAD_SIZE)
        except (*_MEMBER_ERRORS, ImageError):  # unreadable, and not an image by its name
            return b""

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        check_size(member.file_size)
        return self._content(member, BYTE_LIMIT)

    def _content(self, member: zipfile.ZipInfo, most: int) -> bytes:
        """The bytes of a member; raises `ImageError` if there are more than declared or `most`."""
        if id(member) in self._overlapping:
            raise ImageError("damaged in the archive: its bytes are those of other members, too")
        try:
            data = self._beginning(member, min(member.file_size, most) + 1)
        except _MEMBER_ERRORS as error:
            raise ImageError(f"damaged in the archive: {error}") from error
        if len(data) > min(member.file_size, most):
            declared = f"the {member.file_size:,} bytes that the archive states"
            raise ImageError(f"damaged in the archive: it expands to more than {declared}")
        if zlib.crc32(data) != member.CRC:
            raise ImageError("damaged in the archive: its checksum is wrong")
        return data

    def _beginning(self, member: zipfile.ZipInfo, size: int) -> bytes:
        """Up to `size` bytes of a member, whatever name its own header gives it, as in `unzip`."""
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("password-protected: unpack the archive and index the folder")
        file = self._archive.fp
        assert file is not None
        with self._lock:
            file.seek(member.header_offset)
            signature, name, extra = struct.unpack("<4s22xHH", file.read(_HEADER_BYTES))
            if signature != b"PK\3\4":
                raise zipfile.BadZipFile("it is not where the table of contents says")
            file.seek(name + extra, io.SEEK_CUR)
            left = member.compress_size

            def read(most: int) -> bytes:
                nonlocal left
                data = file.read(min(most, left))
                left -= len(data)
                return data

            data = bytearray()
            for portion in _expanded(member, read):
                data += portion
                if len(data) >= size:
                    break
        return bytes(data[:size])


def _expanded(member: zipfile.ZipInfo, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The content of a member in portions; `read` returns its compressed bytes."""
    if member.compress_type == zipfile.ZIP_STORED:
        yield from iter(partial(read, PORTION), b"")
        return
    new: Callable[[], Decompressor]
    if member.compress_type == zipfile.ZIP_DEFLATED:
        new = partial(Inflater, -zlib.MAX_WBITS)
    elif member.compress_type == zipfile.ZIP_BZIP2:
        new = bz2.BZ2Decompressor
    elif member.compress_type == zipfile.ZIP_LZMA:
        new = _lzma(read(9), member.file_size)
    else:
        name = zipfile.compressor_names.get(member.compress_type, member.compress_type)  # type: ignore[attr-defined]
        raise ImageError(
            f"compressed by a method that cannot be read here ({name}): "
            "unpack the archive and index the folder"
        )
    yield from portions(read, new, whole=False)


def _lzma(head: bytes, size: int) -> Callable[[], Decompressor]:
    """What decompresses LZMA as in a zip (APPNOTE 5.8.8); `size`: how much it is to give."""
    length, properties, dictionary = struct.unpack("<2xHBI", head)
    if length != _LZMA_PROPERTIES or properties >= 9 * 5 * 5:
        raise zipfile.BadZipFile("an unknown kind of LZMA")
    settings = {
        "id": lzma.FILTER_LZMA1,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
        # No more is needed, whatever the archive demands.
        "dict_size": min(max(dictionary, 4096), max(size, 4096), BYTE_LIMIT),
    }
    return partial(lzma.LZMADecompressor, lzma.FORMAT_RAW, filters=[settings])


class _TableLimit(io.BufferedReader):
    """Refuses to read an endless table of contents, which zipfile reads at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_TABLE_BYTES:
            raise zipfile.BadZipFile("its table of contents is longer than 500 MB")
        data = super().read(size)
        if len(data) > _MOST_MEMBERS * _ENTRY_BYTES and data.count(_ENTRY) > _MOST_MEMBERS:
            raise zipfile.BadZipFile(f"it has more than {_MOST_MEMBERS:,} members")
        return data


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


def _start(member: zipfile.ZipInfo) -> int:
    return member.header_offset
