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


def is_large_webp(image: Image) -> bool:
    """Whether `still_webp` is worth it; reads no pixels."""
    width, height = image.size
    animated = getattr(image, "is_animated", False)
    return image.format == "WEBP" and width * height >= PIXELS and not animated


def still_webp(image: Image, data: bytes) -> Image:
    """`image` (of which only the header is read) with its pixels, from the bytes of its file.

    `image` itself if OpenCV cannot read them, so that Pillow says why.
    """
    import cv2  # `descriptors.local.opencv` is about its threads, of which this uses none
    from PIL.Image import frombuffer

    file = np.frombuffer(_without_metadata(data), np.uint8)
    try:
        pixels = cv2.imdecode(file, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return image
    if pixels is None or pixels.shape != (*image.size[::-1], len(image.mode)):
        return image
    order = "BGR" if image.mode == "RGB" else "BGRA"
    found = frombuffer(image.mode, image.size, pixels, "raw", order, 0, 1)
    found.info = image.info
    return found


def _without_metadata(data: bytes) -> bytes:
    """A file that ends with its pixels: OpenCV would take what follows for more of them."""
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            end += end % 2
            return b"RIFF" + (end - 8).to_bytes(4, "little") + data[8:end]
        at = end + end % 2
    return data
