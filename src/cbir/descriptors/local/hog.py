"""Histograms of oriented gradients (Dalal and Triggs 2005), batched in NumPy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cbir.types import Floats, RgbImage

Bytes = NDArray[np.uint8]

_EPSILON = 1e-5
_CLIP = 0.2
_REACH = 255
"""Gradients of bytes lie in -255..255."""

_AT_ONCE = 1 << 17
"""Pixels per step, so that their arrays stay in the cache."""

_PICTURE_CELL = 16


def hog(images: Bytes, *, orientations: int = 9, cell: int = 8, block: int = 2) -> Floats:
    """HOG of images of one size: uint8 (n, h, w) grey or (n, h, w, 3) RGB -> float32 (n, dim).

    Dalal and Triggs 2005 as in scikit-image (`block_norm="L2-Hys"`): gradients by central
    differences, in the colour channel with the largest; each pixel votes for one of
    `orientations` in 0..180 degrees; cells of `cell` x `cell` pixels, overlapping blocks of
    `block` x `block` cells; no smoothing between cells. A row lists blocks by row and column, and
    cells likewise within a block: dim = block rows x block columns x block^2 x orientations.
    A flat image gives a zero row. An image smaller than one block is padded on the right and at the
    bottom with its edge pixels.
    """
    cells = _cell_votes(_at_least(images, cell * block), orientations, cell)
    windows = np.lib.stride_tricks.sliding_window_view(cells, (block, block), axis=(1, 2))
    n, rows, columns = windows.shape[:3]
    blocks = windows.transpose(0, 1, 2, 4, 5, 3).reshape(
        n, rows * columns, block * block * orientations
    )
    return _l2_hys(blocks).reshape(n, rows * columns * blocks.shape[2])


def hog_picture(image: RgbImage, *, orientations: int = 9, cell: int = 8) -> RgbImage:
    """Draw the HOG of an image: one star per cell, with rays along the edges in the cell.

    Each cell is 16 x 16 pixels. The brighter a ray, the stronger the edges in its direction
    (square root of the votes; the image's largest is white). A flat image is black.
    """
    votes = _cell_votes(_at_least(image[None], cell), orientations, cell)[0]
    strength = np.sqrt(votes / max(float(votes.max()), _EPSILON))
    rows, columns, _ = strength.shape
    stars = np.einsum("rco,oyx->rycx", strength, _rays(orientations))
    side = _PICTURE_CELL
    shades = np.clip(stars * 255, 0, 255).astype(np.uint8).reshape(rows * side, columns * side)
    return np.repeat(shades[..., None], 3, axis=2)


def _at_least(images: Bytes, side: int) -> Bytes:
    below, right = (max(0, side - length) for length in images.shape[1:3])
    if not below and not right:
        return images
    beyond = ((0, 0), (0, below), (0, right), (0, 0))
    return np.pad(images, beyond[: images.ndim], mode="edge")


def _cell_votes(images: Bytes, orientations: int, cell: int) -> Floats:
    """Summed gradient strengths (n, cell rows, cell columns, orientations)."""
    n, height, width = images.shape[:3]
    rows, columns = height // cell, width // cell
    votes = np.empty((n, rows, columns, orientations), dtype=np.float32)
    strength, orientation = _votes_of_gradients(orientations)
    at_once = max(1, _AT_ONCE // (height * width))
    place = np.arange(rows * columns, dtype=np.intp).reshape(rows, 1, columns, 1)
    for start in range(0, n, at_once):
        part = images[start : start + at_once]
        gradients = _gradients(part)[:, : rows * cell, : columns * cell]
        split = gradients.reshape(len(part), rows, cell, columns, cell)
        image = np.arange(len(part)).reshape(-1, 1, 1, 1, 1)
        bins = (image * (rows * columns) + place) * orientations + orientation[split]
        counted = np.bincount(
            bins.ravel(), strength[split].ravel(), len(part) * rows * columns * orientations
        )
        votes[start : start + len(part)] = counted.reshape(len(part), *votes.shape[1:])
    return votes


def _gradients(images: Bytes) -> NDArray[np.int32]:
    """Each pixel's gradient (down, across) as an index into `_votes_of_gradients`."""
    values = images.astype(np.int32)
    down, across = np.zeros_like(values), np.zeros_like(values)
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    across[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    if images.ndim == 4:
        largest = np.argmax(down * down + across * across, axis=-1, keepdims=True)
        down = np.take_along_axis(down, largest, axis=-1)[..., 0]
        across = np.take_along_axis(across, largest, axis=-1)[..., 0]
    return (down + _REACH) * (2 * _REACH + 1) + (across + _REACH)


@lru_cache(maxsize=4)
def _votes_of_gradients(orientations: int) -> tuple[Floats, NDArray[np.uint8]]:
    """Strength and orientation number of every possible gradient of bytes, as flat tables."""
    steps = np.arange(-_REACH, _REACH + 1, dtype=np.float64)
    down, across = np.meshgrid(steps, steps, indexing="ij")
    degrees = np.arctan2(down, across) * (180 / np.pi) % 180
    edges = np.arange(1, orientations) * (180 / orientations)
    numbers = np.searchsorted(edges.astype(np.float32), degrees.ravel(), side="right")
    return np.hypot(down, across).ravel().astype(np.float32), numbers.astype(np.uint8)


def _l2_hys(blocks: Floats) -> Floats:
    """Scale the last axis to unit L2 norm, clip at 0.2, and scale again."""
    for cut in (True, False):
        norms = np.sqrt(np.sum(np.square(blocks), axis=-1, keepdims=True) + _EPSILON**2)
        blocks = np.divide(blocks, norms, dtype=np.float32)
        if cut:
            np.minimum(blocks, _CLIP, out=blocks)
    return blocks


def _rays(orientations: int) -> Floats:
    """Lines (orientations, 16, 16) through the centre, perpendicular to each gradient."""
    side = _PICTURE_CELL
    offsets = np.arange(side) - (side - 1) / 2
    y, x = offsets[:, None], offsets[None, :]
    angles = ((np.arange(orientations) + 0.5) * np.pi / orientations)[:, None, None]
    off_line = np.abs(x * np.cos(angles) + y * np.sin(angles))
    inside = np.hypot(x, y) < side / 2
    rays: Floats = (np.maximum(0, 1 - off_line) * inside).astype(np.float32)
    return rays
