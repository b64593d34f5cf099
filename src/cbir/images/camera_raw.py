"""Finds the largest preview in a camera RAW file: DNG, NEF, CR2, CR3, ARW, ORF, RW2, RAF and kin.

Most are TIFF files whose directories (IFDs) name previews beside the sensor's data; see TIFF 6.0,
TIFF/EP (ISO 12234-2) and the DNG specification. Where no directory names a useful one
(makers' notes, CR3), the file is searched for JPEGs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cbir.errors import ImageError

RAW = "image/x-camera-raw"
RAW_MAGIC = re.compile(
    rb"II(?:RO|RS|U\0|\*\0....CR\x02)|MMOR|FUJIFILMCCD-RAW|....ftypcrx ", re.DOTALL
)
"""RAW files with a signature of their own; the others look like TIFF files."""

RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef"),
    *(".mos", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
)

USEFUL_SIDE = 512
"""A preview is useful if its longer side has as many pixels, or about as many as the picture's."""

_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 259, 262
_OFFSETS, _ORIENTATION, _LENGTHS, _SUB_IFDS = 273, 274, 279, 330
_JPEG_OFFSET, _JPEG_LENGTH, _JPEG_FROM_RAW, _DNG_VERSION = 513, 514, 46, 50706
_SENSOR = (32803, 34892)  # photometric: colour filter array, linear raw
_MAKERS_COMPRESSION = (32767, 32769, 32770, 34713, 34892, 65000, 65535)
_COLOUR = (1, 2, 6)  # photometric: grey, RGB, YCbCr
_JPEG_TABLES = 347
_OLD_JPEG, _NEW_JPEG, _YCBCR = 6, 7, 6
_READABLE = (1, 5, 7, 8, 32773, 32946)  # compression: none, LZW, JPEG, deflate, PackBits
_USED = frozenset({
    _SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _ORIENTATION, _LENGTHS,
    _SUB_IFDS, _JPEG_OFFSET, _JPEG_LENGTH, _DNG_VERSION, _JPEG_TABLES,
})  # fmt: skip
_INTEGERS = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I"}
# More than any camera writes. Without limits, a small file could keep a reader busy for hours.
_MOST_IFDS, _MOST_TAGS, _MOST_VALUES, _MOST_JPEGS, _MOST_SEGMENTS = 64, 1000, 64, 1000, 200

Tags = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Preview:
    """An image file inside a RAW file; `orientation`: the picture's (EXIF, 1 to 8)."""

    data: bytes
    orientation: int


@dataclass(frozen=True, slots=True)
class _Found:
    """`start`, `end`: the bytes of a JPEG; a TIFF directory has no `end`."""

    width: int
    height: int
    start: int
    end: int | None


def find_preview(data: bytes) -> Preview | None:
    """The largest preview; None if the file is no camera RAW.

    A TIFF whose first picture says that it is a reduced one of a larger is treated alike. Raises
    `ImageError` if no preview of a RAW file is useful.
    """
    ifds = list(_ifds(data))
    tags = [tags for _, tags in ifds]
    is_raw = RAW_MAGIC.match(data) is not None or any(map(_is_sensors, tags))
    if not is_raw and not (tags and _is_reduced(tags[0])):
        return None
    found = sorted(_in_ifds(data, ifds), key=_pixels, reverse=True)
    if is_raw and not (found and _is_useful(found[0], tags)):
        found = sorted([*found, *_anywhere(data)], key=_pixels, reverse=True)
        if not (found and _is_useful(found[0], tags)):
            largest = f"the largest is {found[0].width} x {found[0].height}" if found else "none"
            raise ImageError(
                f"no preview of useful size in this camera RAW file ({largest})",
                "export it as JPEG or TIFF",
            )
    if not found:
        return None
    best = found[0]
    orientation = _one(tags[0], _ORIENTATION) if tags else _orientation_of_cr3(data)
    turned = orientation if orientation is not None and 1 <= orientation <= 8 else 1
    if _ORIENTATION in dict(ifds).get(best.start, {}):
        turned = 1  # the reader of TIFF files applies its own
    if best.end is not None:
        return Preview(data[best.start : best.end], turned)
    # A reader begins with the directory that the header points to.
    order = "<" if data[:2] == b"II" else ">"
    header = data[:2] + struct.pack(f"{order}HI", 42, best.start)
    return Preview(header + data[8:], turned)


def _in_ifds(data: bytes, ifds: list[tuple[int, Tags]]) -> Iterator[_Found]:
    if data.startswith(b"FUJIFILM") and len(data) > 92:
        yield from _jpeg_at(data, *struct.unpack_from(">II", data, 84))
    for offset, tags in ifds:
        start, length = _one(tags, _JPEG_OFFSET), _one(tags, _JPEG_LENGTH)
        photometric, compression = _one(tags, _PHOTOMETRIC), _one(tags, _COMPRESSION)
        if start is not None and length is not None:
            yield from _jpeg_at(data, start, length)
        elif _JPEG_FROM_RAW in tags and data[2:4] == b"U\0":
            yield from _jpeg_at(data, *tags[_JPEG_FROM_RAW][:2])
        elif photometric in _SENSOR:
            continue
        elif _is_whole_jpeg(tags):
            yield from _jpeg_at(data, tags[_OFFSETS][0], _one(tags, _LENGTHS) or 0)
        elif photometric in _COLOUR and compression in _READABLE:
            yield _Found(_one(tags, _WIDTH) or 0, _one(tags, _HEIGHT) or 0, offset, None)


def _jpeg_at(data: bytes, start: int, length: int) -> Iterator[_Found]:
    """The JPEG at `start`, unless there is none that shows a picture."""
    size = _jpeg_size(data, start) if data[start : start + 2] == b"\xff\xd8" else None
    if size:
        yield _Found(*size, start, start + length)


def _anywhere(data: bytes) -> Iterator[_Found]:
    """JPEGs that no directory names."""
    start = data.find(b"\xff\xd8\xff")
    for _ in range(_MOST_JPEGS):
        if start < 0:
            return
        yield from _jpeg_at(data, start, len(data) - start)
        start = data.find(b"\xff\xd8\xff", start + 3)


def _jpeg_size(data: bytes, start: int) -> tuple[int, int] | None:
    """Width and height of a baseline or progressive JPEG; None for lossless ones (sensor data)."""
    at = start + 2
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if width and height and data[at + 4] == 8 else None
        if marker in (0xC3, 0xDA, 0xD9) or length < 2:
            return None
        at += 2 + length
    return None


def _ifds(data: bytes) -> Iterator[tuple[int, Tags]]:
    """The directories of a TIFF file and their offsets: the chain from the header, and SubIFDs."""
    is_big = data[2:4] in (b"+\0", b"\0+")  # BigTIFF, which no camera writes
    if data[:2] not in (b"II", b"MM") or is_big or len(data) < 8:
        return
    order = "<" if data[:2] == b"II" else ">"
    waiting = [struct.unpack_from(f"{order}I", data, 4)[0]]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_IFDS:
        offset = waiting.pop(0)
        if offset in seen or not 8 <= offset <= len(data) - 2:
            continue
        seen.add(offset)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        end = offset + 2 + 12 * count
        if end > len(data):
            continue
        tags = dict(_entries(data, order, offset + 2, min(count, _MOST_TAGS)))
        yield offset, tags
        waiting += tags.get(_SUB_IFDS, ())
        if end + 4 <= len(data):
            waiting += struct.unpack_from(f"{order}I", data, end)


def _entries(data: bytes, order: str, at: int, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The tags in use with integer values; of many values the first ones."""
    for entry in range(at, at + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
        if tag == _JPEG_FROM_RAW:  # its bytes are a JPEG
            yield tag, (struct.unpack_from(f"{order}I", data, entry + 8)[0], number)
        elif tag in _USED and kind in _INTEGERS:
            form = f"{order}{min(number, _MOST_VALUES)}{_INTEGERS[kind]}"
            fits = number * struct.calcsize(_INTEGERS[kind]) <= 4
            place = entry + 8 if fits else struct.unpack_from(f"{order}I", data, entry + 8)[0]
            if place + struct.calcsize(form) <= len(data):
                yield tag, struct.unpack_from(form, data, place)


def _is_sensors(tags: Tags) -> bool:
    return (
        _one(tags, _PHOTOMETRIC) in _SENSOR
        or _DNG_VERSION in tags
        or _one(tags, _COMPRESSION) in _MAKERS_COMPRESSION
    )


def _is_whole_jpeg(tags: Tags) -> bool:
    """Whether the only strip is a JPEG file that needs no other tag."""
    compression = _one(tags, _COMPRESSION)
    usual = compression == _NEW_JPEG and _one(tags, _PHOTOMETRIC) == _YCBCR
    alone = len(tags.get(_OFFSETS, ())) == 1 and _JPEG_TABLES not in tags
    return alone and (usual or compression == _OLD_JPEG)


def _is_reduced(tags: Tags) -> bool:
    return bool((_one(tags, _SUBFILE) or 0) & 1)


def _is_useful(found: _Found, tags: list[Tags]) -> bool:
    sides = [max(_one(one, _WIDTH) or 0, _one(one, _HEIGHT) or 0) for one in tags]
    return max(found.width, found.height) >= min(USEFUL_SIDE, 0.9 * max(sides, default=USEFUL_SIDE))


def _orientation_of_cr3(data: bytes) -> int | None:
    """From the TIFF block that a CR3 file keeps in its box CMT1."""
    start = data.find(b"CMT1", 0, 2**16) + 4
    block = data[start : start + 2**16]
    return next((_one(tags, _ORIENTATION) for _, tags in _ifds(block)), None) if start > 3 else None


def _one(tags: Tags, tag: int) -> int | None:
    return tags[tag][0] if tags.get(tag) else None


def _pixels(found: _Found) -> int:
    return found.width * found.height
