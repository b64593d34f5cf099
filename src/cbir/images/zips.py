"""A .zip file as an image source: reads members one by one, never extracts to disk."""

from __future__ import annotations

import calendar
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from lzma import LZMAError
from pathlib import Path
from threading import Lock

from cbir.errors import CbirError, ImageError
from cbir.images.decode import check_size
from cbir.images.items import SourceItem
from cbir.images.members import (
    HEAD_SIZE,
    archive_name,
    extension,
    is_candidate,
    label_of,
    member_key,
)

_ENCRYPTED = 0x1
_MEMBER_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError),  # unknown compression; a password
)


@dataclass
class ZipSource:
    """The images in the .zip file `path`, ordered by the bytes of their names.

    Reads members lazily, one at a time under a lock. Raises `CbirError` if the archive itself is
    damaged; for a damaged or encrypted member only the item's `read` raises.
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
        passed = self._members.keys() - set(self._images)
        self.ignored = Counter(map(extension, passed))
        for key in self._images:
            member = self._members[key]
            mtime_ns = calendar.timegm((*member.date_time, 0, 0, 0)) * 10**9
            label = label_of(key, self.name) if self.label_from_folder else None
            read = partial(self._read, member)
            yield SourceItem(key, key, label, member.file_size, mtime_ns, read, f"{member.CRC:08x}")

    def open(self, location: str) -> bytes:
        if not self.path.is_file():
            raise ImageError(f"the original is gone: {self.uri} no longer exists")
        if location not in self._images:
            raise ImageError(f"the original is gone: no image {location} in {self.uri}")
        return self._read(self._members[location])

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            raise CbirError(
                f"{self.path}: the archive cannot be read ({error})", "download or create it again"
            ) from error

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        """Visible files by key; of members with the same name the last wins, as in `unzip`."""
        members = {}
        for member in self._archive.infolist():
            key = member_key(member.filename)
            if key is not None and not member.is_dir():
                members[key] = member
        return dict(sorted(members.items(), key=lambda pair: pair[0].encode()))

    @cached_property
    def _images(self) -> dict[str, None]:
        """The keys of `_members` that are images, in order."""
        return dict.fromkeys(
            key
            for key, member in self._members.items()
            if is_candidate(key, partial(self._head, member))
        )

    def _head(self, member: zipfile.ZipInfo) -> bytes:
        try:
            with self._lock, self._archive.open(member) as file:
                return file.read(HEAD_SIZE)
        except _MEMBER_ERRORS:  # unreadable, and not an image by its name
            return b""

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        check_size(member.file_size)
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("password-protected: unpack the archive and index the folder")
        try:
            with self._lock:
                return self._archive.read(member)
        except _MEMBER_ERRORS as error:
            raise ImageError(f"damaged in the archive: {error}") from error
