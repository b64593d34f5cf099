"""Scales grey values of more than 8 bits, or with a sign, to 0..255."""

from __future__ import annotations

import struct
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
    """Whether `eight_bit` has something to scale; reads no pixels."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_signed(image)


def eight_bit(image: Image) -> Image:
    """A grey image as mode "L"; all others are returned as they are.

    Unsigned values of up to 16 bits are scaled from their full range. 32-bit, signed and float
    values are scaled from the narrowest usual range that contains them, or from their minimum and
    maximum if that would leave next to no contrast. WhiteIsZero (TIFF) is inverted.
    """
    from PIL.Image import fromarray

    if not is_deep(image):
        return image
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS, (16 if image.mode.startswith("I;16") else 32,))[0])
    if image.mode.startswith("I;16"):
        grey = _from_unsigned(values, 2**bits - 1)
    else:
        if tags and image.mode == "I" and not _is_signed(image):
            values = values.view(np.uint32)
        elif image.mode == "L":
            values = values.view(np.int8)
        grey = _from_any_range(values, _RANGES[values.dtype.kind, bits])
    # Pillow inverts what has at most 8 bits.
    inverted = tags.get(_PHOTOMETRIC) == 0 and image.mode != "L"
    return fromarray(255 - grey if inverted else grey)


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


def _from_any_range(values: NDArray[Any], usual: list[tuple[float, float]]) -> NDArray[np.uint8]:
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    is_float, spread = values.dtype.kind == "f", high - low
    black, white = next(
        (
            (black, white)
            for black, white in usual
            if black <= low
            and high <= white
            and ((black, white) == usual[0] or is_float or spread >= (white - black) * _LEAST_PART)
        ),
        (low, high),
    )
    return np.rint((finite - black) * 255 / ((white - black) or 1.0)).astype(np.uint8)
