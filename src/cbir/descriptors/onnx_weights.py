"""Where an ONNX file keeps weights outside itself, read from its protobuf without a library.

The messages and numbers are those of onnx.proto3 (ONNX 1.19), the encoding is protobuf's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import PurePosixPath

from cbir.files import MODEL_BYTES
from cbir.types import ModelFile

_WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Message -> field -> the message in it, as far as they lead to entries of external data."""
_KEY, _VALUE = 1, 2
_LOCATION = b"location"
_MOST_FIELDS = 5_000_000
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_PLAIN = re.compile(r"\w[\w.-]{,99}", re.ASCII)

_Data = bytes | mmap


def weight_files(network: ModelFile) -> set[str]:
    """The names of the files beside `network` that hold weights of it.

    Raises `ValueError`, with the reason, if weights are in anything but a file beside it, and if
    this cannot be told: the file is damaged, too large, or no ONNX file.
    """
    if isinstance(network, bytes):
        found = _locations(network)
    else:
        with network.open("rb") as file:
            if not 0 < (size := network.stat().st_size) <= MODEL_BYTES:
                raise ValueError("it is empty" if not size else "it is too large")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                found = _locations(data)
    names = {location: PurePosixPath(location).as_posix() for location in sorted(found)}
    for location, name in names.items():
        if not _PLAIN.fullmatch(name):
            raise ValueError(f"it keeps weights in {location!r}, which cannot be a file beside it")
    return set(names.values())


def _locations(data: _Data) -> set[str]:
    """Everything that an entry of external data calls a location."""
    if data.find(_LOCATION) < 0:  # gigabytes are searched faster than parsed
        return set()
    found: set[str] = set()
    waiting = [("model", 0, len(data))]
    left = _MOST_FIELDS
    while waiting:
        message, start, end = waiting.pop()
        strings: dict[int, set[bytes]] = {_KEY: set(), _VALUE: set()}
        for field, begin, stop in _fields(data, start, end):
            left -= 1
            if not left:
                raise ValueError("it has too many parts")
            if message == "entry":
                strings.setdefault(field, set()).add(data[begin:stop])
            elif inner := _WITHIN[message].get(field):
                waiting.append((inner, begin, stop))
        if _LOCATION in strings[_KEY]:
            found |= {value.decode(errors="replace") for value in strings[_VALUE] or {b""}}
    return found


def _fields(data: _Data, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of the message between `place` and `end`."""
    while place < end:
        tag, place = _number(data, place, end)
        kind = tag & 7
        if kind == _VARINT:
            begin = place
            _, place = _number(data, place, end)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            begin, place = place, place + (8 if kind == _EIGHT_BYTES else 4)
        elif kind == _BYTES:
            size, begin = _number(data, place, end)
            place = begin + size
        else:
            raise ValueError("it is damaged, or not an ONNX file")
        if place > end:
            raise ValueError("it is damaged, or not an ONNX file")
        yield tag >> 3, begin, place


def _number(data: _Data, place: int, end: int) -> tuple[int, int]:
    """A number of up to ten bytes of seven bits, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is damaged, or not an ONNX file")
