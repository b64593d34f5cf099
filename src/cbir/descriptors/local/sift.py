"""SIFT (Lowe 2004) at keypoints and on a dense grid, and RootSIFT.

Images are RGB uint8 (h, w, 3) of any size from 1 x 1. Points are in pixels; (0, 0) is the centre
of the top left pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.errors import CbirError
from cbir.types import Floats, RgbImage

DIM = 128
CELLS = 4
ORIENTATIONS = 8
CELL_WIDTH = 1.5
"""The side of a histogram cell relative to the keypoint size; four cells span 6 x size."""

_BASE_BLUR = (1.6**2 - 0.5**2) ** 0.5
_FAINT = 1e-3
"""Gradients below this (0..255 scale) are rounding errors of a blurred flat area."""

_CLIP = 0.2
_SCALE = 512.0


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """Points (n, 4): x, y, size (diameter), angle in degrees; descriptors (n, 128), 0..255.

    Both float32. The descriptor of a point of size s covers a square of about 6 s pixels a side.
    """

    points: Floats
    descriptors: Floats


def grey(image: RgbImage) -> NDArray[np.uint8]:
    """The luma (h, w) of an RGB image, ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, rounded."""
    luma = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return np.asarray(luma, dtype=np.uint8)


def keypoint_sift(image: RgbImage, limit: int = 0) -> LocalFeatures:
    """The `limit` strongest SIFT keypoints (0: all) and their descriptors, by OpenCV.

    Strongest first; equally strong ones (such as several angles at one point) by size, y, x and
    angle. An image without keypoints (flat, tiny) gives (0, 4) and (0, 128).
    """
    found, descriptors = cv2.SIFT.create(nfeatures=limit).detectAndCompute(grey(image), None)
    if not found:
        return LocalFeatures(np.zeros((0, 4), np.float32), np.zeros((0, DIM), np.float32))
    rows = np.array([(*k.pt, k.size, k.angle, k.response) for k in found], dtype=np.float32)
    x, y, size, angle, response = rows.T
    order = np.lexsort((angle, x, y, size, -response))
    if limit:  # OpenCV also keeps all keypoints tied with the last one
        order = order[:limit]
    kept = np.asarray(descriptors, dtype=np.float32)[order]
    return LocalFeatures(np.ascontiguousarray(rows[order, :4]), kept)


def dense_grid(length: int, step: int) -> NDArray[np.intp]:
    """Grid positions along a side of `length` pixels: every `step`, centred, at least one."""
    return np.arange((length - 1) % step // 2, length, step)


def dense_sift(image: RgbImage, step: int, sizes: Sequence[float]) -> LocalFeatures:
    """Upright SIFT at every `step`-th pixel, in each of `sizes` (keypoint diameters, pixels).

    Ordered by size as given, then y, then x: sizes x rows x columns points, angle 0. Each equals
    OpenCV's descriptor of an upright keypoint at that point (octave 0: the image blurred to sigma
    1.6 for every size), up to rounding. Pixels outside the image have no gradient; a descriptor
    of only such pixels, or of a flat area, is zero.

    The Gaussian window and the interpolation are separable in x and y. So all descriptors of a size
    are two matrix products over eight maps of gradient strength, one per orientation (after Vedaldi
    and Fulkerson's `vl_dsift`, 2008, with the exact window).
    """
    if step < 1 or not sizes or min(sizes) <= 0:
        raise CbirError(
            f"dense SIFT: invalid step {step} or sizes {list(sizes)}",
            "give a step of at least 1 and one or more positive sizes",
        )
    maps = _orientation_maps(grey(image))
    _, height, width = maps.shape
    ys, xs = dense_grid(height, step), dense_grid(width, step)
    points = np.zeros((len(sizes), len(ys), len(xs), 4), dtype=np.float32)
    points[..., 0] = xs
    points[..., 1] = ys[:, None]
    points[..., 2] = np.asarray(sizes, dtype=np.float32)[:, None, None]
    raw = np.concatenate([_pooled(maps, step, float(size)) for size in sizes])
    return LocalFeatures(points.reshape(-1, 4), _finished(raw))


def root_sift(descriptors: Floats) -> Floats:
    """RootSIFT rows (n, 128) of unit L2 norm: the square roots of L1-normalised SIFT.

    Arandjelović and Zisserman 2012: their dot product is the Hellinger kernel of the histograms.
    A zero row (a flat area) becomes the uniform row, all 1 / sqrt(128).
    """
    sums = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    rows = np.full(descriptors.shape, 1 / descriptors.shape[1], dtype=np.float32)
    np.divide(descriptors, sums, out=rows, where=sums > 0)
    return np.sqrt(rows, out=rows)


def _orientation_maps(luma: NDArray[np.uint8]) -> Floats:
    """Gradient strength (8, h, w), split between the two nearest of eight orientations."""
    height, width = luma.shape
    maps = np.zeros((ORIENTATIONS, height, width), dtype=np.float32)
    if min(height, width) < 3:  # border pixels have no gradient, and all pixels are on the border
        return maps
    image = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), _BASE_BLUR)
    right = image[1:-1, 2:] - image[1:-1, :-2]
    up = image[:-2, 1:-1] - image[2:, 1:-1]
    strength, angle = cv2.cartToPolar(right, up, angleInDegrees=True)
    strength[strength < _FAINT] = 0
    angle *= ORIENTATIONS / 360
    lower = angle.astype(np.intp)
    angle -= lower
    upper_share = strength * angle
    rows, columns = np.ogrid[1 : height - 1, 1 : width - 1]
    maps[lower % ORIENTATIONS, rows, columns] = strength - upper_share
    maps[(lower + 1) % ORIENTATIONS, rows, columns] = upper_share
    return maps


@lru_cache(maxsize=64)
def _window(length: int, step: int, size: float) -> Floats:
    """The weights (points x 4 cells, length) of pixels in cells, along one axis."""
    cells = (np.arange(length) - dense_grid(length, step)[:, None]) / (CELL_WIDTH * size)
    centres = np.arange(CELLS) - (CELLS - 1) / 2
    nearness = np.maximum(0, 1 - np.abs(cells[:, None, :] - centres[:, None]))
    window = nearness * np.exp(-np.square(cells) / (CELLS * CELLS / 2))[:, None, :]
    weights: Floats = window.reshape(-1, length).astype(np.float32)
    weights.flags.writeable = False
    return weights


def _pooled(maps: Floats, step: int, size: float) -> Floats:
    """Descriptors (points, 128) before normalisation: cell rows x cell columns x orientations."""
    _, height, width = maps.shape
    down, across = _window(height, step, size), _window(width, step, size)
    cells = down @ (maps @ across.T)
    split = cells.reshape(ORIENTATIONS, -1, CELLS, len(across) // CELLS, CELLS)
    return split.transpose(1, 3, 2, 4, 0).reshape(-1, DIM)


def _finished(rows: Floats) -> Floats:
    """Lowe's normalisation as in OpenCV: unit, clip at 0.2, unit, times 512, round, clip at 255."""
    limits = _CLIP * np.sqrt(np.einsum("ij,ij->i", rows, rows))
    np.minimum(rows, limits[:, None], out=rows)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows *= (_SCALE / np.maximum(norms, np.finfo(np.float32).eps))[:, None]
    np.rint(rows, out=rows)
    return np.minimum(rows, 255, out=rows)
