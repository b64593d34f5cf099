"""Estimates the time and memory that a picture takes, before its pixels are decoded."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cbir.errors import ImageError
from cbir.images.camera_raw import RAW
from cbir.images.jpeg_scans import scan_count
from cbir.images.large_webp import is_large_webp

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MOST_SCANS = 500
"""Scans of a JPEG. Cameras and programs write up to 20."""

_JPEG, _PNG, _GIF, _TIFF = "image/jpeg", "image/png", "image/gif", "image/tiff"
_JP2, _PNM = "image/jp2", "image/x-portable-anymap"
_SMALL = 2**16  # bytes: a file with too few parts to keep a reader busy
_MOST_SEGMENTS, _MOST_CHUNKS, _MOST_BLOCKS, _MOST_STRIPS = 1000, 20_000, 1000, 100_000
_MOST_PACKETS = 5000
_MOST_TAGS = 2**16
_MOST_BLOCKS_OF_TAGS = 16
_TAG_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
              16: 8, 17: 8, 18: 8}  # fmt: skip
_RAW_PROFILE = "Raw profile type exif"  # hexadecimal, in a compressed text of a PNG
_LONGEST_HEADER = 4096
_PNM_HEADER = re.compile(rb"P\d(?:[\s\d]|#[^\r\n]*[\r\n])*")

# Nanoseconds a pixel on one core, for pictures that are hard to decode.
_TIMES = {_JPEG: 10, _PNG: 25, _GIF: 15, "image/webp": 25, "image/avif": 50, "image/heic": 80,
          "image/bmp": 10, _TIFF: 25, RAW: 25, _JP2: 200, _PNM: 10}  # fmt: skip
_SCAN_TIME, _BYTE_TIME = 1.5, 10
_PYTHON_TIME = 1000  # of Pillow's decoders in Python
# Bytes a pixel that a decoder needs beside Pillow's image.
_EXTRA = {"image/webp": 12, "image/avif": 9, "image/heic": 9, _JP2: 16, _TIFF: 4, RAW: 4}
_LARGE_WEBP = 1
_COEFFICIENTS = 6  # bytes a pixel, kept by JPEGs of several scans
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_RESULT = 3  # bytes a pixel
_READ_AT_ONCE = ("image/avif", "image/heic")  # EXIF is, too, when the header is read
_STRIPS = (273, 324)  # or tiles
_BIG = (b"+\0", b"\0+")  # BigTIFF
_BAND = 40_000_000  # bytes, while a part of the pixels is converted


@dataclass(frozen=True, slots=True)
class Cost:
    """The estimated peak of memory in bytes, and the time in seconds."""

    memory: int
    seconds: float


def cost_of(kind: str, image: ImageFile, data: bytes, pixels: int) -> Cost:
    """What decoding takes. `image`: only its header is read; `pixels`: before any reduction.

    Raises `ImageError` for a JPEG of more than `MOST_SCANS` scans.
    """
    from PIL.Image import DECODERS

    decoded = image.size[0] * image.size[1]
    scans = _scans(data) if kind == _JPEG else 1
    time: float = _TIMES[kind] * pixels + _BYTE_TIME * len(data)
    if scans > 1:
        time += _SCAN_TIME * scans * pixels
    if image.tile and image.tile[0][0] in DECODERS:
        time += _PYTHON_TIME * pixels
    extra = _LARGE_WEBP if is_large_webp(image, data) else _EXTRA.get(kind, 0)
    memory = (_STORED.get(image.mode, 4) + _RESULT + extra) * decoded
    memory += _COEFFICIENTS * pixels if scans > 1 else 0
    return Cost(memory + min(_BAND, 20 * decoded) + len(data), time / 1e9)


def is_intricate(kind: str, data: bytes) -> bool:
    """Whether reading the header may itself take long: it has many more parts than usual ones."""
    if kind == _JP2:
        return _is_intricate_jp2(data)
    if len(data) <= _SMALL:
        return False
    if kind in (_TIFF, RAW):
        return _is_intricate_tiff(data)
    if kind == _JPEG:
        return _is_intricate_jpeg(data)
    if kind == _PNG:
        return _is_intricate_png(data)
    if kind == _GIF:
        return _is_intricate_gif(data)
    if kind == _PNM:
        return _is_intricate_pnm(data[:_LONGEST_HEADER])
    return kind in _READ_AT_ONCE and _holds_large_tags(data)


def has_large_tags(image: Image) -> bool:
    """Whether reading EXIF may take much memory: versions of Pillow before 13 copy all values."""
    exif = image.info.get("exif") or b""
    text = image.info.get(_RAW_PROFILE) or ""
    return len(text) > 2 * _SMALL or _is_intricate_tiff(exif.removeprefix(b"Exif\0\0"))


def _scans(data: bytes) -> int:
    most = data.count(b"\xff\xda")  # fast, and may count bytes of metadata
    if most <= MOST_SCANS:
        return most
    count = scan_count(data, MOST_SCANS)
    if count > MOST_SCANS:
        raise ImageError(f"the JPEG has more than {MOST_SCANS} scans")
    return count


def _is_intricate_jpeg(data: bytes) -> bool:
    """Whether the first scan is not among the first segments, or EXIF takes more than one."""
    at, exif = 2, 0
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 1] != b"\xff":
            return True
        if data[at + 1 : at + 2] == b"\xda":
            return exif > _SMALL
        length = int.from_bytes(data[at + 2 : at + 4])
        exif += length if data[at + 4 : at + 10] == b"Exif\0\0" else 0
        at += 2 + length
    return True


def _is_intricate_png(data: bytes) -> bool:
    at = 8
    for _ in range(_MOST_CHUNKS):
        if at >= len(data):
            return False
        at += 12 + int.from_bytes(data[at : at + 4])
    return True


def _is_intricate_gif(data: bytes) -> bool:
    """Whether the first frame is not among the first blocks."""
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    for _ in range(_MOST_BLOCKS):
        if data[at : at + 1] != b"\x21":
            return False
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return True


def _is_intricate_tiff(data: bytes, at: int = 0) -> bool:
    """Whether the first picture of a TIFF file has many strips, or tags that share their bytes.

    `at`: where the file, or a block of EXIF, begins.
    """
    order, big = "<" if data[at : at + 2] == b"II" else ">", data[at + 2 : at + 4] in _BIG
    head, number, entry, size = (8, "Q", "HHQ", 20) if big else (4, "I", "HHI", 12)
    strips = total = 0
    try:
        (start,) = struct.unpack_from(order + number, data, at + head)
        start += at
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
        first = start + (8 if big else 2)
        for place in range(first, first + size * min(count, _MOST_TAGS), size):
            tag, kind, values = struct.unpack_from(order + entry, data, place)
            strips = max(strips, values if tag in _STRIPS else 0)
            total += values * _TAG_SIZES.get(kind, 0)
        is_long = count > _MOST_TAGS
    except struct.error:  # damaged; a reader sees that, too, or reads as far
        is_long = False
    return is_long or strips > _MOST_STRIPS or total > len(data) + _SMALL


def _holds_large_tags(data: bytes) -> bool:
    """Whether anything that looks like a block of EXIF has tags that share their bytes."""
    for mark in (b"II*\0", b"MM\0*"):
        at = data.find(mark)
        for _ in range(_MOST_BLOCKS_OF_TAGS):
            if at < 0:
                break
            if _is_intricate_tiff(data, at):
                return True
            at = data.find(mark, at + 1)
        else:
            return True
    return False


def _is_intricate_jp2(data: bytes) -> bool:
    """Whether there are many packets: layers times tiles, or precincts of any size (T.800, A.6)."""
    size, coding, first = (data.find(b"\xff" + mark) for mark in (b"\x51", b"\x52", b"\x90"))
    if not 0 < size < coding < first or data.find(b"\xff\x53", size, first) >= 0:
        return True
    try:
        right, bottom, tile_width, tile_height = struct.unpack_from(">II8xII", data, size + 6)
        style, layers = struct.unpack_from(">BxH", data, coding + 4)
    except struct.error:
        return True
    tiles = -(-right // max(1, tile_width)) * -(-bottom // max(1, tile_height))
    return bool(style & 1) or layers * tiles > _MOST_PACKETS


def _is_intricate_pnm(start: bytes) -> bool:
    """Whether there are long comments, which Pillow reads byte by byte."""
    found = _PNM_HEADER.match(start)
    end = found.end() if found else 0
    return b"#" in start[: end + 1] and (start[end : end + 1] or b"#") == b"#"
