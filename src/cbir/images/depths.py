"""Scales grey values of more than 8 bits, or with a sign, to 0..255."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_SIGNED = 2

# By kind and bits of a value, the ranges from black to white in which pictures are usually stored.
_RANGES: dict[tuple[str, int], list[tuple[float, float]]] = {
    ("i", 8): [(0, 2**7 - 1), (-(2**7), 2**7 - 1)],
    ("i", 16): [(0, 2**15 - 1), (-(2**15), 2**15 - 1)],
    ("i", 32): [(0, 2**16 - 1), (0, 2**31 - 1), (-(2**31), 2**31 - 1)],
    ("u", 32): [(0, 2**16 - 1), (0, 2**32 - 1)],
    ("f", 32): [(0, 1), (0, 255)],
}
_LEAST_PART = 1 / 16
"""A wide range of integers is used only if the values span at least this part of it."""


def is_deep(image: Image) -> bool:
    """Whether `grey_scale` has something to scale; reads no pixels."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_signed(image)


def grey_scale(image: Image, bands: Iterable[Image]) -> Callable[[Image], Image] | None:
    """What makes mode "L" of a band of a grey image; None if there is nothing to scale.

    `bands`: all parts of the image, of which the range is found; little memory is used beside them.
    Unsigned values of up to 16 bits are scaled from their full range. 32-bit, signed and float
    values are scaled from the narrowest usual range that contains them, or from their minimum and
    maximum if that would leave next to no contrast. WhiteIsZero (TIFF) is inverted.
    """
    from PIL.Image import fromarray

    if not is_deep(image):
        return None
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS, (16 if image.mode.startswith("I;16") else 32,))[0])
    # Pillow inverts what has at most 8 bits.
    inverted = tags.get(_PHOTOMETRIC) == 0 and image.mode != "L"
    kind: type[np.uint32 | np.int8] | None = None
    if tags and image.mode == "I" and not _is_signed(image):
        kind = np.uint32
    elif image.mode == "L":
        kind = np.int8

    def values_of(band: Image) -> NDArray[Any]:
        values = np.asarray(band)
        return values if kind is None else values.view(kind)

    if image.mode.startswith("I;16"):
        scale = partial(_from_unsigned, top=2**bits - 1)
    else:
        black, white = _range(map(values_of, bands), bits)
        scale = partial(_from_range, black=black, white=white)

    def grey(band: Image) -> Image:
        scaled = scale(values_of(band))
        return fromarray(255 - scaled if inverted else scaled)

    return grey


def as_black_is_zero(tiff: bytes) -> bytes | None:
    """A WhiteIsZero TIFF file with its first picture marked as BlackIsZero; None for all others.

    Pillow reads some depths only so; the pixels come out inverted.
    """
    if tiff[2:4] not in (b"*\0", b"\0*"):  # BigTIFF
        return None
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, value = struct.unpack_from(f"{order}H6xH", tiff, entry)
        if tag == _PHOTOMETRIC and value == 0:
            return tiff[: entry + 8] + struct.pack(f"{order}H", 1) + tiff[entry + 10 :]
    return None


def _is_signed(image: Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return image.mode in ("L", "I") and tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED


def _from_unsigned(values: NDArray[Any], top: int) -> NDArray[np.uint8]:
    """Scale 0..top to 0..255, rounding to nearest."""
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def _range(parts: Iterable[NDArray[Any]], bits: int) -> tuple[float, float]:
    """The values of black and white."""
    low, high, kind = float("inf"), float("-inf"), ""
    for values in parts:
        finite = _finite(values)
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        kind = values.dtype.kind
    usual, least = _RANGES[kind, bits], 0.0 if kind == "f" else _LEAST_PART
    return next(
        (
            (black, white)
            for black, white in usual
            if black <= low
            and high <= white
            and ((black, white) == usual[0] or high - low >= (white - black) * least)
        ),
        (low, high),
    )


def _from_range(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    scaled = (_finite(values) - black) * 255 / ((white - black) or 1.0)
    return np.rint(scaled).astype(np.uint8)


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
