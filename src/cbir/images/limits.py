"""How much time and memory decoding may take: one picture, and all pictures at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from weakref import finalize

from cbir.errors import CbirError, ImageError
from cbir.machine import usable_cores
from cbir.types import RgbImage

SECONDS = 20.0
"""How long a picture may be decoded."""

MEMORY = 2_000_000_000
"""Bytes that decoding a picture may take."""

UNKNOWN = MEMORY // 2
"""Bytes that are set aside for a picture whose header is not read before it is decoded."""

_LOOK = 0.2  # seconds between two looks at the clock
_QUICK = 2.0  # seconds: decoding that cannot be stopped is estimated to take no longer
_PART = 10  # estimates may be wrong by this factor
_SMALL = 32_000_000  # bytes: pictures of up to 4 megapixels do not wait for others


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one picture.

    `pixels`: None for those of `images.decode`. `seconds`: of a decoding in a process of its own;
    infinite to decode whatever it is in this process. `stopped`: once it is set, such a process is
    ended. `wait`: how many seconds a picture waits for others, see `decoding_room`. `side`: a JPEG
    is decoded at 1/2, 1/4 or 1/8 of its size if its longest side remains at least this.
    """

    pixels: int | None = None
    seconds: float = SECONDS
    stopped: threading.Event | None = None
    wait: float = inf
    side: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds > 0:  # also not a number
            raise CbirError(f"{self.seconds} seconds to decode a picture", "give a number above 0")

    @property
    def in_process(self) -> float:
        """The longest estimate, in seconds, of a picture that is decoded in this process."""
        return inf if self.seconds == inf else min(_QUICK, self.seconds / _PART)


DEFAULT = Limits()


class NoRoomError(CbirError):
    """Other pictures are being decoded, and this one has waited for `Limits.wait` seconds."""


_total = max(MEMORY, 256_000_000 * usable_cores())
_taken = 0
_kept = 0
_changed = threading.Condition()


@contextmanager
def decoding_room(size: int, limits: Limits = DEFAULT) -> Iterator[None]:
    """Wait until `size` more bytes may be used for decoding, and use them for the block.

    All threads together use at most `MEMORY`, or 256 MB a core if that is more. What is larger
    than all of that is decoded alone; what is small does not wait. With `limits.wait`, pixels that
    are kept (`keep`) count, too; raises `NoRoomError` after that time. Raises `ImageError` once
    `limits.stopped` is set.
    """
    global _taken
    if size <= _SMALL:
        yield
        return
    size = min(size, _total)
    end = time.monotonic() + limits.wait
    with _changed:
        while _taken + size + (_kept if limits.wait < inf else 0) > _total:
            if limits.stopped is not None and limits.stopped.is_set():
                raise ImageError("decoding was stopped")
            if time.monotonic() >= end:
                raise NoRoomError(
                    "other large pictures are being searched with", "try again in a few seconds"
                )
            _changed.wait(_LOOK)
        _taken += size
    try:
        yield
    finally:
        with _changed:
            _taken -= size
            _changed.notify_all()


def keep(pixels: RgbImage) -> None:
    """Count the bytes of `pixels` among those in use, for as long as they are in memory."""
    if pixels.nbytes > _SMALL:
        _keep(pixels.nbytes)
        finalize(pixels, _keep, -pixels.nbytes)


def _keep(size: int) -> None:
    global _kept
    with _changed:
        _kept += size
        _changed.notify_all()
