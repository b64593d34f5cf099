"""A tar file, compressed or not, as an image source: streamed, never extracted to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from lzma import LZMAError
from pathlib import Path
from typing import IO, Self

from cbir.errors import CbirError, ImageError
from cbir.images.decode import BYTE_LIMIT, check_size
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


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of the tar `path`; `key` is where it is unpacked, `file` None if it is no file.

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
    """The images in the tar file `path`, in archive order; links come last.

    Each item carries its bytes, so memory holds only the items that the consumer keeps, and the
    name of every member. If the archive is damaged, `items` yields the items before the damage,
    then raises `CbirError`. If it contains a name twice, the last item counts.
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
        for item in tar_items(self.path):
            if isinstance(item, str):
                self.ignored[item] += 1
            else:
                yield item if self.label_from_folder else replace(item, label=None)

    def open(self, location: str) -> bytes:
        return open_member(self.path, location)


def stream_tar(path: Path) -> Iterator[TarMember]:
    """All members of a tar, in order; raises `CbirError` where it is damaged."""
    with _naming(path), tarfile.open(path, "r|*", tarinfo=_StrictInfo) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            if key := _unpacked_key(info.name):
                is_link = info.islnk() or info.issym()
                yield TarMember(path, key, info, None if is_link else tar.extractfile(info))


def tar_items(
    path: Path, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[SourceItem | str]:
    """The images whose keys are `wanted`, with folders as labels; the extensions of other files.

    Hidden files are left out. Links have the content that unpacking gives them. They come last,
    because finding it takes a second pass through the archive.
    """
    unpacked: Unpacked[int] = Unpacked()
    links: dict[str, None] = {}
    for number, member in enumerate(stream_tar(path)):
        info, key = member.info, member.key
        visible = wanted(key) and not is_hidden_key(key)
        links.pop(key, None)
        if info.isdir():
            unpacked.put_folder(key)
        elif info.issym() or info.islnk():
            if info.issym():
                unpacked.put_symlink(key, info.linkname)
            else:
                unpacked.put_hard_link(key, _unpacked_key(info.linkname))
            if visible:
                links[key] = None
        elif member.file is None:  # a pipe or device
            if visible:
                yield extension(key)
        else:
            unpacked.put_file(key, number)
            if visible:
                yield from _items(member, [key])
    yield from _linked(path, unpacked, links)


def _linked(
    path: Path, unpacked: Unpacked[int], links: Iterable[str]
) -> Iterator[SourceItem | str]:
    """The items of links; one that leads to a folder is none, as in a folder source."""
    leading: dict[int, list[str]] = {}
    for key in links:
        number = unpacked.find(key)
        if number is not None:
            leading.setdefault(number, []).append(key)
        elif not unpacked.is_folder(key):
            dead = has_image_suffix(key)
            yield _dead_link(path, key, unpacked.target(key)) if dead else extension(key)
    members = enumerate(stream_tar(path)) if leading else ()
    for number, member in members:
        if number in leading:
            yield from _items(member, leading.pop(number))
        if not leading:
            break


def _items(member: TarMember, keys: Sequence[str]) -> Iterator[SourceItem | str]:
    """The image in `member` under each of `keys`; their extensions if it is no image."""
    info, head = member.info, member.read(HEAD_SIZE)
    named = [key for key in keys if is_candidate(key, lambda: head)]
    yield from (extension(key) for key in keys if key not in named)
    if not named:
        return
    read: Callable[[], bytes] = partial(_refuse_size, info.size)
    stamp = None
    if info.size <= BYTE_LIMIT:
        data = head + member.read()
        read, stamp = partial(bytes, data), f"{zlib.crc32(data):08x}"
    for key in named:
        label = label_of(key, archive_name(member.path))
        yield SourceItem(key, key, label, info.size, whole_seconds_ns(info.mtime), read, stamp)


def _dead_link(path: Path, key: str, target: str) -> SourceItem:
    read = partial(_refuse, f"a link to {target}, which is not in the archive")
    return SourceItem(key, key, label_of(key, archive_name(path)), None, None, read)


def _unpacked_key(name: str) -> str:
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


def open_member(path: Path, location: str) -> bytes:
    """The bytes of the image at `location` in a tar; reads the whole archive."""
    if not path.is_file():
        raise ImageError(f"the original is gone: {path} no longer exists")
    found: SourceItem | None = None
    try:
        for item in tar_items(path, lambda key: key == location):
            found = found if isinstance(item, str) else item
    except CbirError:
        if found is None:  # else it lies before the damage
            raise
    if found is None:
        raise ImageError(f"the original is gone: no image {location} in {path}")
    data = found.read()
    assert isinstance(data, bytes)
    return data


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
    except (tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, ValueError) as error:
        raise CbirError(
            f"{path}: the archive is damaged or truncated ({error})", "download or create it again"
        ) from error


def _refuse(reason: str) -> bytes:
    raise ImageError(reason)


def _refuse_size(size: int) -> bytes:
    check_size(size)
    return b""
