"""Resizes images for descriptors."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from cbir.types import RgbImage

RESIZE = "Pillow, bicubic, reducing gap 3, aspect ratio not kept"
FIT = "Pillow, bicubic, reducing gap 3, aspect ratio kept, short side at least 16"
"""What `resized` and `fitted` do. Part of fingerprints: change these texts only with the code."""

MIN_SIDE = 16

Size: TypeAlias = tuple[int, int] | int
"""Width and height, or the longest side with the aspect ratio preserved."""


def at_size(image: RgbImage, size: Size) -> RgbImage:
    """Resize `image` to a model's `size`."""
    return fitted(image, size) if isinstance(size, int) else resized(image, *size)


def resized(image: RgbImage, width: int, height: int) -> RgbImage:
    """Resize `image` to `width` x `height`; an image of that size is returned unchanged."""
    if image.shape == (height, width, 3):
        return image
    from PIL import Image

    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))


def fitted(image: RgbImage, longest: int) -> RgbImage:
    """Resize `image` so that its longer side is `longest` pixels, preserving the aspect ratio.

    The shorter side has at least 16 pixels, so that even a one-row image fits a local descriptor.
    """
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    sides = (max(MIN_SIDE, round(side * scale)) for side in (width, height))
    return resized(image, *sides)
