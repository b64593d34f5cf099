"""The scans of a JPEG: how many there are, and whether all are (ITU-T T.81, annexes B and G)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_FRAMES = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA
_MOST_SEGMENTS = 100_000
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def has_every_scan(data: bytes) -> bool:
    """Whether the scans of a JPEG contain every bit of every component's coefficients.

    The last scan itself may be incomplete.
    """
    missing: dict[int, set[int]] = {}
    for marker, segment in _segments(data):
        if marker in _FRAMES:
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif marker == _SCAN and segment:
            last = 1 + 2 * segment[0]
            first, end, bits = segment[last : last + 3].ljust(3, b"\xff")
            if bits & 15 == 0:  # the lowest bit of the coefficients first..end
                for component in segment[1:last:2]:
                    missing.get(component, set()).difference_update(range(first, end + 1))
    return bool(missing) and not any(missing.values())


def scan_count(data: bytes, most: int) -> int:
    """The number of scans without those of thumbnails in metadata, counted up to `most` + 1.

    A file with more than `_MOST_SEGMENTS` segments counts as one with too many scans.
    """
    scans = 0
    for number, (marker, _) in enumerate(_segments(data), 1):
        scans += marker == _SCAN
        if scans > most or number == _MOST_SEGMENTS:
            return most + 1
    return scans


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the content of each segment, up to `_MOST_SEGMENTS`."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _NEXT_MARKER.search(data, at)
        if found is None:
            return
        marker, at = data[found.start() + 1], found.start() + 2
        if at + 2 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, at)
        yield marker, data[at + 2 : at + length]
        at += length
