"""How descriptors bring a picture to their own size."""

from __future__ import annotations

import numpy as np

from cbir.types import RgbImage

RESIZE = "Pillow, bicubic, reducing gap 3, aspect ratio not kept"
FIT = "Pillow, bicubic, reducing gap 3, aspect ratio kept, short side at least 16"
"""What `resized` and `fitted` do. Parts of fingerprints: change them with the code."""

MIN_SIDE = 16


def resized(image: RgbImage, width: int, height: int) -> RgbImage:
    """`image` at `width` x `height`; the image itself where it is of that size."""
    if image.shape == (height, width, 3):
        return image
    from PIL import Image

    picture = Image.fromarray(image)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))


def fitted(image: RgbImage, longest: int) -> RgbImage:
    """`image` enlarged or shrunk until its longer side is `longest` pixels.

    The aspect ratio is kept, but for a shorter side of less than 16 pixels, which becomes 16: a
    picture of one row still has room for a local descriptor.
    """
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    sides = (max(MIN_SIDE, round(side * scale)) for side in (width, height))
    return resized(image, *sides)
