"""Decodes large WebP pictures in less than half of the memory that Pillow takes.

Pillow uses libwebp's decoder of animations, which holds two canvases, and copies them twice: 16
bytes a pixel. OpenCV decodes a still picture into one array, with the same values: both call
libwebp, which defines them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS = 8_000_000
"""From this size on; OpenCV takes a while to load."""


_VP8X_ANIMATION, _VP8X_ALPHA, _VP8L_ALPHA = 0x02, 0x10, 0x10  # flags
_MOST_CHUNKS = 16  # before the pixels: usual are three


def is_large_webp(image: Image, data: bytes) -> bool:
    """Whether `still_webp` decodes this file, in fewer bytes; reads no pixels."""
    width, height = image.size
    is_large = image.format == "WEBP" and width * height >= PIXELS
    return is_large and _end_of_pixels(data, image.mode == "RGBA") > 0


def still_webp(image: Image, data: bytes) -> Image:
    """`image` (of which only the header is read) with its pixels, from the bytes of its file.

    Raises `OSError`, as Pillow does, if OpenCV cannot read them. Pillow is not tried: it would take
    more memory than `costs` has counted, and calls the same decoder.
    """
    import cv2  # `descriptors.local.opencv` is about its threads, of which this uses none
    from PIL.Image import frombuffer

    # OpenCV would take what follows the pixels for more of them.
    end = _end_of_pixels(data, image.mode == "RGBA")
    file = np.frombuffer(b"RIFF" + (end - 8).to_bytes(4, "little") + data[8:end], np.uint8)
    try:
        pixels = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape != (*image.size[::-1], len(image.mode)):
        raise OSError("failed to read next frame")
    order = "BGR" if image.mode == "RGB" else "BGRA"
    found = frombuffer(image.mode, image.size, pixels, "raw", order, 0, 1)
    found.info = image.info
    return found


def _end_of_pixels(data: bytes, has_alpha: bool) -> int:
    """Where the pixels of a still picture end; 0 if a chunk says otherwise than the others.

    Pillow finds transparency in the chunk of the pixels, OpenCV in the header, and it decodes
    animations of one frame in another way.
    """
    told = {has_alpha}
    is_extended = data[12:16] == b"VP8X"
    if is_extended:
        if data[20] & _VP8X_ANIMATION:
            return 0
        told.add(bool(data[20] & _VP8X_ALPHA))
    at, before = 12, b""
    for _ in range(_MOST_CHUNKS if is_extended else 1):
        name = data[at : at + 4]
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        end += end % 2
        if name in (b"ANIM", b"ANMF") or (before == b"ALPH" and name != b"VP8 "):
            return 0
        if name in (b"VP8 ", b"VP8L"):
            told.add(before == b"ALPH" if name == b"VP8 " else bool(data[at + 12] & _VP8L_ALPHA))
            return end if len(told) == 1 else 0
        at, before = end, name
    return 0
