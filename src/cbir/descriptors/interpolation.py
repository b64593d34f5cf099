"""Interpolation without antialiasing, of the part of a resized image that is needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cbir.types import RgbImage

PLAIN = ("nearest", "bilinear", "bicubic")
CUBIC = -0.75
"""The parameter of the cubic kernel, as in PyTorch and OpenCV (Pillow's is -0.5)."""


def interpolated(
    image: RgbImage, size: tuple[int, int], part: tuple[int, int, int, int], kernel: str
) -> RgbImage:
    """A `part` (top, left, height, width) of `image` resized to `size` (height, width).

    The result has the pixels of `torch.nn.functional.interpolate` with `align_corners=False` and
    `antialias=False`, rounded. `kernel` is one of `PLAIN`.
    """
    top, left, rows, columns = part
    values = _along(image, size[0], top, rows, kernel)
    turned = _along(values.swapaxes(0, 1), size[1], left, columns, kernel)
    whole: RgbImage = np.clip(np.rint(turned.swapaxes(0, 1)), 0, 255).astype(np.uint8)
    return whole


def _along(
    values: NDArray[np.generic], length: int, start: int, count: int, kernel: str
) -> NDArray[np.float32]:
    """Rows `start` to `start + count` of `values`, resized to `length` rows; float32."""
    ratio = values.shape[0] / length
    places = np.arange(start, start + count)
    if kernel == "nearest":
        nearest = np.minimum((places * ratio).astype(int), len(values) - 1)
        return np.asarray(values[nearest], dtype=np.float32)
    exact = (places + 0.5) * ratio - 0.5
    first = np.floor(exact).astype(int)
    taps = (0, 1) if kernel == "bilinear" else (-1, 0, 1, 2)
    total = np.zeros((count, *values.shape[1:]), dtype=np.float32)
    for tap in taps:
        away = np.abs(exact - (first + tap))
        weights = 1 - away if kernel == "bilinear" else _cubic(away)
        rows = np.clip(first + tap, 0, len(values) - 1)
        total += values[rows] * weights.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return total


def _cubic(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of pixels at a distance of `away` (0..2): Keys, IEEE TASSP 29(6), 1981."""
    near = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    far = CUBIC * (((away - 5) * away + 8) * away - 4)
    return np.where(away <= 1, near, far)
