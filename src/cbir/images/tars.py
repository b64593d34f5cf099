"""A tar file, compressed or not, as an image source: streamed, never extracted to disk."""

from __future__ import annotations

import stat
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cbir.files import special_kind
from cbir.images.decode import BYTE_LIMIT, check_size
from cbir.images.items import SourceItem, whole_seconds_ns
from cbir.images.kept_tars import is_kept, open_member
from cbir.images.members import (
    HEAD_SIZE,
    archive_name,
    cut_key,
    extension,
    has_image_suffix,
    is_candidate,
    is_hidden_key,
    label_of,
    refuse_long_name,
)
from cbir.images.tar_members import TarMember, is_compressed, put_member, stream_tar
from cbir.images.unpacked import Unpacked

_MODES = {
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
}


@dataclass
class TarSource:
    """The images in the tar file `path`, in archive order; links come last.

    Each item carries its bytes, so memory holds only the items that the consumer keeps, and the
    name of every member. If the archive is damaged, `items` yields the items before the damage,
    then raises `CbirError`. If it contains a name twice, the last item counts. `reached`: how many
    bytes of the expanded archive the last walk has seen.
    """

    path: Path
    label_from_folder: bool = False
    descriptor: str | None = None
    scope: str = ""
    count: int | None = field(default=None, init=False)
    ignored: Counter[str] = field(default_factory=Counter, init=False)
    reached: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.name = archive_name(self.path)
        self.uri = str(self.path)

    def items(self) -> Iterator[SourceItem]:
        self.ignored, self.reached = Counter(), 0
        for item in tar_items(self.path, on_end=self._reach):
            if isinstance(item, str):
                self.ignored[item] += 1
            else:
                yield item if self.label_from_folder else replace(item, label=None)

    def open(self, location: str) -> bytes:
        return open_member(self.path, location)

    def opens_none(self) -> bool:
        """Whether `open` refuses all originals, as far as the last walk tells.

        Not of an archive that has gone since: the next run reports that.
        """
        with suppress(OSError):
            return not is_kept(self.reached) and is_compressed(self.path)
        return False

    def _reach(self, end: int) -> None:
        self.reached = max(self.reached, end)


def tar_items(
    path: Path,
    wanted: Callable[[str], bool] = lambda _: True,
    on_end: Callable[[int], None] = lambda _end: None,
) -> Iterator[SourceItem | str]:
    """The images whose keys are `wanted`, with folders as labels; the extensions of other files.

    Hidden files are left out. Links have the content that unpacking gives them. They come last,
    because finding it takes a second pass through the archive. `on_end` gets where each member ends
    in the expanded archive.
    """
    unpacked: Unpacked[int] = Unpacked(path)
    links: dict[str, None] = {}
    for member in stream_tar(path):
        info, key = member.info, member.key
        on_end(info.offset_data + (info.size if info.sparse is None else 0))
        if member.too_long:
            if not info.isdir():
                yield _unread(path, cut_key(key, info.offset), refuse_long_name)
            continue
        put_member(unpacked, member, info.offset)
        links.pop(key, None)
        if info.isdir() or is_hidden_key(key) or not wanted(key):
            continue
        if info.issym() or info.islnk():
            links[key] = None
        elif member.file is None:
            yield special_kind(_MODES.get(info.type, 0)) or extension(key)
        else:
            yield from _items(member, [key])
    yield from _linked(path, unpacked, links)


def _linked(
    path: Path, unpacked: Unpacked[int], links: Iterable[str]
) -> Iterator[SourceItem | str]:
    """The items of links; one that leads to a folder is none, as in a folder source."""
    leading: dict[int, list[str]] = {}
    for key in links:
        place = unpacked.find(key)
        if place is not None:
            leading.setdefault(place, []).append(key)
        elif unpacked.is_folder(key):
            continue
        elif has_image_suffix(key):
            yield _unread(path, key, partial(unpacked.refuse_dead_link, key))
        else:
            yield extension(key)
    for member in stream_tar(path) if leading else ():
        if member.info.offset in leading:
            yield from _items(member, leading.pop(member.info.offset))
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
        data = head + member.read(max(info.size - len(head), 0))
        read, stamp = partial(bytes, data), f"{zlib.crc32(data):08x}"
    for key in named:
        label = label_of(key, archive_name(member.path))
        yield SourceItem(key, key, label, info.size, whole_seconds_ns(info.mtime), read, stamp)


def _unread(path: Path, key: str, refuse: Callable[[], bytes]) -> SourceItem:
    return SourceItem(key, key, label_of(key, archive_name(path)), None, None, refuse)


def _refuse_size(size: int) -> bytes:
    check_size(size)
    return b""
