"""Whether a JPEG has all of its scans (ITU-T T.81, annexes B and G)."""

from __future__ import annotations

import re
import struct

_FRAMES = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def has_every_scan(data: bytes) -> bool:
    """Whether the scans of a JPEG contain every bit of every component's coefficients.

    The last scan itself may be incomplete.
    """
    missing: dict[int, set[int]] = {}
    at = 2
    while found := _NEXT_MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.start() + 2
        if at + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, at)
        segment = data[at + 2 : at + length]
        at += length
        if marker in _FRAMES:
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif marker == _SCAN and segment:
            last = 1 + 2 * segment[0]
            first, end, bits = segment[last : last + 3].ljust(3, b"\xff")
            if bits & 15 == 0:  # the lowest bit of the coefficients first..end
                for component in segment[1:last:2]:
                    missing.get(component, set()).difference_update(range(first, end + 1))
    return bool(missing) and not any(missing.values())
