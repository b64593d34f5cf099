"""Small changes of CIFAR-10 images: uint8 (n, size, size, 3) to the same."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def reencoded(images: Pixels, quality: int) -> Pixels:
    """The images encoded as JPEG (Pillow, 4:2:0) at `quality`, and decoded."""
    return np.stack([_reencoded(Image.fromarray(image), quality) for image in images])


def shifted(images: Pixels, down: int, right: int, fill: Literal["edge", "constant"]) -> Pixels:
    """The images moved by `down` and `right` pixels, or up and left if they are negative.

    What comes into view repeats the edge, or is black ("constant").
    """
    sides = [(max(0, by), max(0, -by)) for by in (0, down, right, 0)]
    padded = np.pad(images, sides, mode=fill)
    top, left = max(0, -down), max(0, -right)
    _, height, width, _ = images.shape
    moved: Pixels = padded[:, top : top + height, left : left + width]
    return moved


def brightened(images: Pixels, factor: float) -> Pixels:
    """All values times `factor`, rounded and clipped to 0..255."""
    changed: Pixels = np.clip(np.rint(images * np.float32(factor)), 0, 255).astype(np.uint8)
    return changed


def cropped(images: Pixels, margin: int) -> Pixels:
    """The images without `margin` pixels at each side, enlarged to their size (bicubic)."""
    _, height, width, _ = images.shape
    inner = images[:, margin : height - margin, margin : width - margin]
    size, bicubic = (width, height), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(one).resize(size, bicubic)) for one in inner])


def mirrored(images: Pixels) -> Pixels:
    """Left and right exchanged."""
    return images[:, :, ::-1]


def _reencoded(image: Image.Image, quality: int) -> Pixels:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))
