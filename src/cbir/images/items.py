"""The image source interface and the items that sources yield."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cbir.types import RgbImage


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One image of a source, not yet decoded.

    `key`: percent-encoded path inside the source, used for the id (CIFAR-10:
    `train/airplane/0000`). `location`: percent-encoded path to reopen the image, with extension;
    equal to `key` for folders and archives. No segment of either is empty, `.` or `..`, because
    browsers would change such an address. `mtime_ns`: None if there is no date or it cannot be
    stored. `read` returns the file's bytes, or RGB pixels if there is no file. It may raise OSError
    or ImageError; call it once, from any thread. `stamp`: text that changes if the file is replaced
    by another one of the same size and modification time (inode and change time, or the CRC in an
    archive); None where there is nothing so reliable.
    """

    key: str
    location: str
    label: str | None
    file_size: int | None
    mtime_ns: int | None
    read: Callable[[], bytes | RgbImage]
    stamp: str | None = None


class ImageSource(Protocol):
    """Yields images in a stable order.

    `name`: the suggested registration name (folder or archive name without its extension,
    `cifar10`). `uri`: the location (absolute path, or `cifar10`). `scope`: the key prefix that the
    source covers ("train/" for cifar10:train, "" for all; without a final "/" exactly one key);
    records outside it do not count as missing. `descriptor`: the source's default descriptor, or
    None. `count`: the number of items, if known before iterating. `ignored`: the files that
    neither name nor content identify as images, counted by extension; final after `items()`.
    """

    name: str
    uri: str
    scope: str
    descriptor: str | None
    ignored: Counter[str]

    @property
    def count(self) -> int | None: ...

    def items(self) -> Iterator[SourceItem]: ...

    def open(self, location: str) -> bytes | RgbImage:
        """The original at `location`; raises ImageError if it is gone or outside the source."""


def storable_ns(ns: int) -> int | None:
    """A time in nanoseconds since 1970; None if an index cannot store it (more than 64 bits)."""
    return ns if -(2**63) <= ns < 2**63 else None


def whole_seconds_ns(seconds: float) -> int | None:
    """Whole `seconds` since 1970 in nanoseconds; None if that is no date or cannot be stored."""
    return storable_ns(int(seconds) * 10**9) if math.isfinite(seconds) else None


def content_hash(data: bytes | RgbImage) -> str:
    """The sha256 (hex) of a file's bytes, or of the RGB pixels if there is no file."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()
