"""Histograms of brightness and colour, over the whole image or the cells of a grid.

All return float32 (n, grid * grid * bins), cells by row and column. A cell's histogram sums to
1 / (grid * grid), so a row sums to 1. On a side of h pixels, cell i of `grid` covers the pixels
from floor(i h / grid) to ceil((i + 1) h / grid): cells share a pixel if they do not divide the
side, a mirrored image has mirrored cells, and an image smaller than the grid still fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.descriptors.local.sift import grey
from cbir.types import Floats, RgbImage

Bins = tuple[int, int, int]

_ROUNDING = 1e-4
"""A colour within this fraction of a bin below an edge counts as above it, to absorb rounding."""


def gray_histogram(images: Sequence[RgbImage], bins: int = 32, grid: int = 1) -> Floats:
    """Brightness (ITU-R BT.601 luma) in `bins` of equal width over 0..256: (n, grid^2 * bins)."""
    numbers = (np.arange(256) * bins) // 256
    return _rows([_cell_counts(numbers[grey(i)], bins, grid) for i in images], bins, grid)


def lab_histogram(images: Sequence[RgbImage], bins: Bins = (4, 7, 7), grid: int = 1) -> Floats:
    """CIE L*a*b* (D65): joint histogram, (n, grid^2 * product of bins), L slowest, b fastest.

    Bins have equal width: L over 0..100, a and b over -64..64. Colours outside (only very vivid
    ones) count in the outermost bins. With odd numbers of bins for a and b, greys lie in the
    middle of a bin; with even numbers they lie on an edge, where rounding decides.
    """
    return _joint(images, cv2.COLOR_RGB2LAB, bins, ((0, 100), (-64, 64), (-64, 64)), grid)


def hsv_histogram(images: Sequence[RgbImage], bins: Bins = (8, 4, 4), grid: int = 1) -> Floats:
    """Hue, saturation, value: joint histogram, (n, grid^2 * product of bins), V fastest.

    Bins have equal width: H over 0..360 degrees from red, S and V over 0..1. Greys have hue 0.
    """
    return _joint(images, cv2.COLOR_RGB2HSV, bins, ((0, 360), (0, 1), (0, 1)), grid)


HISTOGRAMS: Mapping[str, Callable[..., Floats]] = {
    "gray": gray_histogram,
    "lab": lab_histogram,
    "hsv": hsv_histogram,
}


def _joint(
    images: Sequence[RgbImage],
    conversion: int,
    bins: Bins,
    ranges: tuple[tuple[float, float], ...],
    grid: int,
) -> Floats:
    total = bins[0] * bins[1] * bins[2]
    counts = []
    for image in images:
        colours = cv2.cvtColor(image.astype(np.float32) / 255, conversion)
        number = np.zeros(image.shape[:2], dtype=np.intp)
        for channel, (count, (low, high)) in enumerate(zip(bins, ranges, strict=True)):
            scaled = (colours[..., channel] - low) * (count / (high - low)) + _ROUNDING
            number = number * count + np.clip(scaled, 0, count - 1).astype(np.intp)
        counts.append(_cell_counts(number, total, grid))
    return _rows(counts, total, grid)


def _cell_counts(numbers: NDArray[np.intp], bins: int, grid: int) -> Floats:
    height, width = numbers.shape
    cells = [
        np.bincount(numbers[top:bottom, left:right].ravel(), minlength=bins)
        / ((bottom - top) * (right - left) * grid * grid)
        for top, bottom in grid_spans(height, grid)
        for left, right in grid_spans(width, grid)
    ]
    return np.concatenate(cells).astype(np.float32)


def _rows(counts: list[Floats], bins: int, grid: int) -> Floats:
    return np.array(counts, dtype=np.float32).reshape(len(counts), grid * grid * bins)


def grid_spans(length: int, grid: int) -> list[tuple[int, int]]:
    """First and one past the last pixel of each of `grid` cells along a side of `length`."""
    return [(i * length // grid, -(-(i + 1) * length // grid)) for i in range(grid)]
