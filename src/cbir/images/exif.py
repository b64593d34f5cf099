"""Reads what a camera wrote beside the pixels: date taken, camera, lens and position (EXIF 2.32).

Own code over the few tags that are needed: Pillow's reader opens the file a second time, reads all
tags, and warns about each damaged one.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from io import BytesIO
from typing import Any

from cbir.images.costs import is_intricate
from cbir.images.formats import JPEG, PNG, TIFF, sniff

POSITION = ("latitude", "longitude")
"""The fields that say where a picture was taken; only this machine may see them."""

_MAKE, _MODEL, _ORIENTATION, _EXIF, _GPS = 0x010F, 0x0110, 0x0112, 0x8769, 0x8825
_TAKEN, _DIGITISED, _LENS = 0x9003, 0x9004, 0xA434
_TEXT, _SHORT, _RATIONAL, _POINTERS = (2, 129), 3, 5, (4, 13)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 13: 4, 129: 1}
_LONGEST_TEXT = 200
_MOST_TAGS = 1000
_MOST_SEGMENTS = 1000
_MARKS = {PNG: b"eXIf", "image/webp": b"EXIF"}
_ORIENTATION_IN_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")
_PLUGINS = {
    "image/heic": ("pi_heif", "HeifImageFile"),
    "image/avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
}


def exif_fields(data: bytes) -> dict[str, str | float]:
    """The fields of an image file that its EXIF block has; {} if there is none.

    `taken`: ISO date and time without a zone, seconds `2024-05-03T12:30:45`, or the date alone.
    `camera`: make and model. `lens`. `latitude`, `longitude`: degrees, north and east positive.
    Damaged values are left out. Raises `MemoryError`, and nothing else.
    """
    try:
        return dict(_fields(_Block(_block(data))))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the pixels are worth indexing without it
        return {}


def orientation_of(data: bytes) -> int:
    """The orientation, 1 to 8, that an image file has in EXIF, else in XMP; 1 if in neither."""
    try:
        found = _Block(_block(data)).first().get(_ORIENTATION)
    except struct.error:
        found = None
    if isinstance(found, int) and 1 <= found <= 8:
        return found
    written = _ORIENTATION_IN_XMP.search(data)
    return int(written[1]) if written else 1


def _block(data: bytes) -> bytes:
    """The EXIF block, which begins like a TIFF file."""
    kind = sniff(data)
    if kind == TIFF:
        return data
    if kind in _PLUGINS:
        if is_intricate(kind, data):
            return b""
        module, name = _PLUGINS[kind]
        held = getattr(import_module(module), name)(BytesIO(data)).info.get("exif") or b""
        return bytes(held).removeprefix(b"Exif\0\0")
    if kind == JPEG:
        return _jpeg_block(data)
    mark = _MARKS.get(kind or "")
    at = data.find(mark) if mark else -1
    if at < 0:
        return b""
    # WebP has a size after the mark, and some writers repeat the mark of JPEG.
    starts = [data.find(head, at, at + 20) for head in (b"II*\0", b"MM\0*")]
    start = min((start for start in starts if start >= 0), default=None)
    return b"" if start is None else data[start:]


def _jpeg_block(data: bytes) -> bytes:
    """The block of a JPEG, from its segments before the pixels."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 1] != b"\xff" or data[at + 1 : at + 2] == b"\xda":
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : end]
        at = end
    return b""


class _Block:
    """Reads directories of tags and their values; raises `struct.error` beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data[:2] == b"II" else ">"

    def first(self) -> dict[int, Any]:
        return self.directory(*self._read("I", 4))

    def directory(self, at: Any) -> dict[int, Any]:
        """The readable tags of the directory at an offset: text, integers or pairs of integers."""
        if not isinstance(at, int):
            return {}
        tags: dict[int, Any] = {}
        (count,) = self._read("H", at)
        for number in range(min(count, _MOST_TAGS)):
            try:
                tag, value = self._tag(at + 2 + 12 * number)
            except struct.error:
                continue
            tags.setdefault(tag, value)
        return tags

    def _tag(self, at: int) -> tuple[int, Any]:
        tag, kind, count = self._read("HHI", at)
        size = _SIZES.get(kind, 0) * count
        place = at + 8 if size <= 4 else self._read("I", at + 8)[0]
        if kind in _TEXT:
            return tag, self._data[place : place + min(size, 4 * _LONGEST_TEXT)]
        if kind == _RATIONAL:
            numbers = self._read(f"{2 * min(count, 3)}I", place)
            return tag, list(zip(numbers[::2], numbers[1::2], strict=True))
        if kind == _SHORT and tag == _ORIENTATION:
            return tag, self._read("H", place)[0]
        return tag, self._read("I", place)[0] if kind in _POINTERS else None

    def _read(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, self._data, at)


def _fields(block: _Block) -> Iterator[tuple[str, str | float]]:
    tags = block.first()
    own = _readable(block, tags.get(_EXIF))
    taken = _date(own.get(_TAKEN)) or _date(own.get(_DIGITISED))
    camera = _camera(_text(tags.get(_MAKE)), _text(tags.get(_MODEL)))
    for name, value in (("taken", taken), ("camera", camera), ("lens", _text(own.get(_LENS)))):
        if value:
            yield name, value
    gps = _readable(block, tags.get(_GPS))
    latitude = _degrees(gps.get(1), gps.get(2), "NS", 90)
    longitude = _degrees(gps.get(3), gps.get(4), "EW", 180)
    if latitude is not None and longitude is not None:
        yield from zip(POSITION, (latitude, longitude), strict=True)


def _readable(block: _Block, at: Any) -> dict[int, Any]:
    try:
        return block.directory(at)
    except struct.error:
        return {}


def _text(value: Any) -> str:
    """The text of a tag on one line, "" for anything else."""
    if not isinstance(value, bytes):
        return ""
    raw = value.partition(b"\0")[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:_LONGEST_TEXT].strip()


def _camera(make: str, model: str) -> str:
    """`Canon EOS 5D`, `Apple iPhone 12`: many models begin with the name of their maker."""
    first = make.partition(" ")[0]
    if not first or model.casefold().startswith(first.casefold()):
        return model
    return f"{make} {model}".strip()


def _date(value: Any) -> str:
    text = _text(value)[:19].replace("-", ":")
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:  # a clock that was never set, or a date alone
        pass
    try:
        return datetime.strptime(text[:10], "%Y:%m:%d").date().isoformat()
    except ValueError:
        return ""


def _degrees(side: Any, parts: Any, sides: str, most: int) -> float | None:
    """Degrees, minutes and seconds as a number; None if they are no place on Earth."""
    letter = _text(side)[:1].upper()
    if not letter or letter not in sides or not isinstance(parts, list) or not parts:
        return None
    if any(not below for _, below in parts):
        return None
    degrees: float = sum(above / below / 60**power for power, (above, below) in enumerate(parts))
    if not math.isfinite(degrees) or degrees > most:
        return None
    return round(-degrees if letter == sides[1] else degrees, 7)
