"""Features of whitened patches (Coates, Lee and Ng 2011).

Normalises the brightness and contrast of every patch, whitens it, compares it with k filters, and
sums each filter's responses over the cells of a grid.

Mirrored filters give mirrored features: if the bank contains the mirror image of each filter, and
the whitening was fitted on patches and their mirror images, then mirroring an image swaps each
filter with its mirror image, and the left cells with the right ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.histograms import grid_spans
from cbir.errors import CbirError
from cbir.types import Floats

Bytes = NDArray[np.uint8]

CONTRAST_FLOOR = 10.0
"""Added to a patch's variance (0..255 scale), so that noise in flat areas stays small."""

SHORTEST = np.float32(1e-3)
"""The smallest divisor for a whitened patch's length: a flat patch has no direction."""

_PATCHES_AT_ONCE = 1024
"""Patches to normalise and whiten at a time: a 32 x 32 image, or a strip of a large one."""

_ANSWERS_AT_ONCE = 1 << 18
"""Patches x filters per product: 1 MiB fits the cache; less slows the product down."""

Pooling = Callable[[Floats, Floats, Floats], Floats]
"""Whitened patches (m, d), their cells (cells, m) and a buffer for (m, k) responses -> responses
summed over each cell, (cells, k)."""


@dataclass(frozen=True, slots=True)
class PatchFilters:
    """`filters` (k, d) in whitened space, `whitening` (d, d) and `mean` (d,), all float32.

    d = size * size * 3: the rows, columns and colours of a patch, in this order.
    """

    filters: Floats
    whitening: Floats
    mean: Floats
    size: int


def normalised_patches(images: Bytes, size: int, stride: int = 1) -> Floats:
    """All patches of uint8 images (n, h, w, 3): float32 (n, rows, cols, size * size * 3).

    Centres each patch and divides it by sqrt(variance + 10), on the 0..255 scale. An image smaller
    than a patch is padded on the right and at the bottom with its edge pixels.
    """
    below, right = (max(0, size - length) for length in images.shape[1:3])
    if below or right:
        images = np.pad(images, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(
        images.astype(np.float32), (size, size, 3), axis=(1, 2, 3)
    )[:, ::stride, ::stride, 0]
    dim = size * size * 3
    patches = windows.copy().reshape(-1, dim)
    share = np.full(dim, 1 / dim, dtype=np.float32)
    patches -= (patches @ share)[:, None]
    variances = np.einsum("ij,ij->i", patches, patches) / np.float32(dim)
    patches *= (1 / np.sqrt(variances + np.float32(CONTRAST_FLOOR)))[:, None]
    return patches.reshape(*windows.shape[:3], dim)


def fit_whitening(patches: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Mean (d,) and ZCA matrix (d, d) of patches (n, d): (patches - mean) @ matrix is white.

    Bell and Sejnowski 1997: V (S + epsilon)^-1/2 V^T for the covariance V S V^T; `epsilon` (0.1 in
    Coates and Ng) keeps low-variance directions small.
    """
    mean = patches.mean(axis=0, dtype=np.float64)
    centred = patches - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(patches)
    values, vectors = np.linalg.eigh(covariance)
    scales = 1 / np.sqrt(np.maximum(values, 0) + epsilon)
    whitening = (vectors * scales) @ vectors.T
    return mean.astype(np.float32), whitening.astype(np.float32)


def patch_features(
    images: Bytes,
    filters: PatchFilters,
    *,
    activation: str = "triangle",
    bias: float = 0.0,
    grid: int = 2,
    stride: int = 1,
    mirror: bool = False,
) -> Floats:
    """Pooled filter responses of uint8 images (n, h, w, 3): float32 (n, grid * grid * answers * k).

    With x a whitened patch and w_k a filter, the response of filter k is, by `activation`,
    "triangle": max(0, mean of all z - z_k - bias), z_k = |x - w_k| (Coates, Lee and Ng 2011,
    where bias is 0); "relu": max(0, w_k . x - bias); "cosine": two responses (those of all filters
    for one sign, then for the other), max(0, c - bias) and max(0, -c - bias), c the cosine of x
    and w_k (both signs of whitened patches: Thiry et al. 2021).
    Responses are summed over the cells of a `grid` x `grid` on the patches' positions (cells as in
    `histograms`: the middle position counts in both halves), cells by row and column.
    `mirror` adds the response of the mirrored filter in the mirrored cell, so that an image and
    its mirror image have the same features if the whitening was fitted on both.
    Raises `CbirError` for an unknown activation. NumPy's matrix product does nearly all the work
    and lets other Python threads run.
    """
    if activation not in ACTIVATIONS:
        raise CbirError(
            f"unknown patch activation '{activation}'", f"known: {', '.join(ACTIVATIONS)}"
        )
    bank = filters.filters
    if mirror:
        bank = np.concatenate([bank, mirrored_patches(bank, filters.size)])
    pooled = ACTIVATIONS[activation](bank, bias)
    k = len(bank)
    at_once = max(1, _ANSWERS_AT_ONCE // k)
    room = np.empty((at_once, k), dtype=np.float32)
    answers = ANSWERS[activation]
    features = np.zeros((len(images), grid * grid, answers * k), dtype=np.float32)
    for image, row in zip(images, features, strict=True):
        rows, columns = (patch_places(length, filters.size, stride) for length in image.shape[:2])
        cells, seen = _cells(rows, columns, grid), 0
        for white in _white_strips(image, filters, stride, rows, columns):
            for start in range(0, len(white), at_once):
                part = white[start : start + at_once]
                row += pooled(part, cells[:, seen : seen + len(part)], room[: len(part)])
                seen += len(part)
    if mirror:
        sides = features.reshape(len(images), grid, grid, answers, 2, k // 2)
        features = sides[..., 0, :] + sides[:, :, ::-1, :, 1]
    return features.reshape(len(images), -1)


def mirrored_patches(patches: Floats, size: int) -> Floats:
    """Patches or filters (n, size * size * 3), flipped left to right."""
    shape = (-1, size, size, 3)
    return np.ascontiguousarray(patches.reshape(shape)[:, :, ::-1]).reshape(patches.shape)


def patch_places(length: int, size: int, stride: int) -> int:
    """The number of patches of `size` along a side of `length` pixels at the given `stride`."""
    return max(0, length - size) // stride + 1


def _white_strips(
    image: Bytes, filters: PatchFilters, stride: int, rows: int, columns: int
) -> Iterator[Floats]:
    """The whitened patches (m, d) of an image of `rows` x `columns` patches, strip by strip."""
    deep = max(1, _PATCHES_AT_ONCE // columns)
    for top in range(0, rows, deep):
        bottom = min(top + deep, rows) - 1
        strip = image[top * stride : bottom * stride + filters.size]
        patches = normalised_patches(strip[None], filters.size, stride)
        patches -= filters.mean
        yield patches.reshape(-1, patches.shape[-1]) @ filters.whitening


def _cells(rows: int, columns: int, grid: int) -> Floats:
    """Whether a position belongs to a cell: 0 or 1, (grid * grid, rows * columns)."""
    member = np.zeros((grid, grid, rows, columns), dtype=np.float32)
    for i, (top, bottom) in enumerate(grid_spans(rows, grid)):
        for j, (left, right) in enumerate(grid_spans(columns, grid)):
            member[i, j, top:bottom, left:right] = 1
    return member.reshape(grid * grid, rows * columns)


def _triangle(filters: Floats, bias: float) -> Pooling:
    # |x - w|^2 = -2 w.x + 1 |x|^2 + |w|^2 1: two extra columns make it a single product.
    lengths = np.einsum("ij,ij->i", filters, filters)
    columns = np.vstack([filters.T, np.ones_like(lengths), lengths])
    share = np.full(len(filters), 1 / len(filters), dtype=np.float32)

    def pooled(white: Floats, cells: Floats, room: Floats) -> Floats:
        rows = np.empty((len(white), len(columns)), dtype=np.float32)
        np.multiply(white, -2, out=rows[:, :-2])
        np.einsum("ij,ij->i", white, white, out=rows[:, -2])
        rows[:, -1] = 1
        distances = np.matmul(rows, columns, out=room)
        np.abs(distances, out=distances)  # rounding may leave a zero just below zero
        np.sqrt(distances, out=distances)
        means = distances @ share - np.float32(bias)
        answers = np.subtract(means[:, None], distances, out=distances)
        return cells @ _positive(answers)

    return pooled


def _relu(filters: Floats, bias: float) -> Pooling:
    columns = np.vstack([filters.T, np.full(len(filters), -bias, dtype=np.float32)])

    def pooled(white: Floats, cells: Floats, room: Floats) -> Floats:
        rows = np.ones((len(white), len(columns)), dtype=np.float32)
        rows[:, :-1] = white
        return cells @ _positive(np.matmul(rows, columns, out=room))

    return pooled


def _cosine(filters: Floats, bias: float) -> Pooling:
    lengths = np.sqrt(np.einsum("ij,ij->i", filters, filters))
    unit = filters / np.maximum(lengths, SHORTEST)[:, None]
    columns = np.vstack([unit.T, np.full(len(filters), -bias, dtype=np.float32)])

    def pooled(white: Floats, cells: Floats, room: Floats) -> Floats:
        rows = np.ones((len(white), len(columns)), dtype=np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", white, white))
        np.divide(white, np.maximum(lengths, SHORTEST)[:, None], out=rows[:, :-1])
        above = np.matmul(rows, columns, out=room)  # c - bias
        below = np.subtract(np.float32(-2 * bias), above)  # -c - bias
        return np.hstack([cells @ _positive(above), cells @ _positive(below)])

    return pooled


def _positive(answers: Floats) -> Floats:
    """max(0, answers) in place; NumPy is twice as fast with a column of zeros as with a scalar."""
    return np.maximum(answers, np.zeros((len(answers), 1), dtype=np.float32), out=answers)


ACTIVATIONS: dict[str, Callable[[Floats, float], Pooling]] = {
    "triangle": _triangle,
    "relu": _relu,
    "cosine": _cosine,
}

ANSWERS: dict[str, int] = {"triangle": 1, "relu": 1, "cosine": 2}
"""The number of responses per filter, by activation."""
