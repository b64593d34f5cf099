"""TIFF files tag by tag, such as cameras write them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Tags = Mapping[int, int | Sequence[int]]

CFA = 32803
SHORTS = frozenset({258, 259, 262, 274, 277, 339})


@dataclass
class Directory:
    """A directory's tags, the bytes of its only strip, and its SubIFDs.

    `jpeg`: whether tags 513 and 514 name the strip, as for a JPEG preview.
    """

    tags: Tags
    strip: bytes = b""
    below: Sequence[Directory] = field(default_factory=list)
    jpeg: bool = False


def tiff(*directories: Directory, order: str = "<", magic: bytes | None = None) -> bytes:
    """A TIFF file with a chain of directories."""
    start = magic or (b"II*\0" if order == "<" else b"MM\0*")
    file = bytearray(start + bytes(4))
    link = len(start)
    for directory in directories:
        offset, following = _append(file, directory, order)
        struct.pack_into(f"{order}I", file, link, offset)
        link = following
    return bytes(file)


def grey(
    samples: bytes, width: int, height: int, *, bits: int, white_is_zero: bool = False,
    sample_format: int = 1, order: str = "<",
) -> bytes:  # fmt: skip
    """A grey picture of one uncompressed strip."""
    tags = {
        256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 277: 1,
        278: height, 339: sample_format,
    }  # fmt: skip
    return tiff(Directory(tags, samples), order=order)


def _append(file: bytearray, directory: Directory, order: str) -> tuple[int, int]:
    """Add a directory with what it points to; its offset, and where the next one's goes."""
    below = [_append(file, one, order)[0] for one in directory.below]
    tags = dict(directory.tags)
    if directory.strip:
        place = len(file)
        file += directory.strip + bytes(len(directory.strip) % 2)
        names = (513, 514) if directory.jpeg else (273, 279)
        tags |= {names[0]: place, names[1]: len(directory.strip)}
    if below:
        tags[330] = below
    entries = b""
    for tag, value in sorted(tags.items()):
        values = [value] if isinstance(value, int) else list(value)
        form = f"{order}{len(values)}{'H' if tag in SHORTS else 'I'}"
        packed = struct.pack(form, *values)
        if len(packed) > 4:
            place = len(file)
            file += packed
            packed = struct.pack(f"{order}I", place)
        kind = 3 if tag in SHORTS else 4
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    offset = len(file)
    file += struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return offset, len(file) - 4
