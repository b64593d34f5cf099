"""Features of whitened patches (Coates, Lee and Ng 2011), a few images at a time.

Every patch of an image is normalised in brightness and contrast, whitened, and compared with k
filters; what the comparison says of each filter is summed over the cells of a grid.

Mirrored filters give mirrored features: where the set holds the mirror image of each of its
filters and the whitening was fitted on patches and their mirror images alike, the features of a
mirrored image are those of the image with each filter's number exchanged for its mirror's, and
the cells of the left for those of the right. A head that is the same for both then needs no
second pass for the mirrored image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.histograms import grid_spans
from cbir.errors import CbirError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

CONTRAST_FLOOR = 10.0
"""Added to a patch's variance (0..255 scale), so that noise in flat places stays small."""

_RESPONSES_AT_ONCE = 1 << 19
"""Patches x filters worked on at a time: 2 MiB, about what a core's own cache holds."""


@dataclass(frozen=True, slots=True)
class PatchFilters:
    """What encodes patches: `filters` (k, d) in whitened space, `whitening` (d, d), `mean` (d,).

    All float32; d = size * size * 3, a patch's rows, columns and colours in this order.
    """

    filters: Floats
    whitening: Floats
    mean: Floats
    size: int


def normalised_patches(images: Bytes, size: int, stride: int = 1) -> Floats:
    """All patches of uint8 images (n, h, w, 3): float32 (n, rows, cols, size * size * 3).

    Each has its mean taken away and is divided by sqrt(variance + 10), on the 0..255 scale. An
    image smaller than a patch is filled up on the right and below with its last pixels.
    """
    below, right = (max(0, size - length) for length in images.shape[1:3])
    if below or right:
        images = np.pad(images, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size, 3), axis=(1, 2, 3))
    windows = windows[:, ::stride, ::stride, 0]
    patches = windows.reshape(*windows.shape[:3], -1).astype(np.float32)
    patches -= patches.mean(axis=-1, keepdims=True)
    variances = np.einsum("...d,...d->...", patches, patches) / patches.shape[-1]
    patches /= np.sqrt(variances + np.float32(CONTRAST_FLOOR))[..., None]
    return patches


def fit_whitening(patches: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Mean (d,) and ZCA matrix (d, d) of patches (n, d): (patches - mean) @ matrix is white.

    Bell and Sejnowski 1997: V (S + epsilon)^-1/2 V^T of the covariance V S V^T; `epsilon` (Coates
    and Ng take 0.1) keeps directions that hardly vary from being blown up.
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
) -> Floats:
    """Pooled filter answers of uint8 images (n, h, w, 3): float32 (n, grid * grid * k).

    With x a whitened patch and w_k a filter, `activation` is
    "triangle": max(0, mean of all z - z_k), z_k = |x - w_k| (Coates, Lee and Ng 2011);
    "relu": max(0, w_k . x - bias).
    Answers are summed over each cell of a `grid` x `grid` on the patches' places (cells as in
    `histograms`: the middle place counts in both halves), cells by row and column.
    """
    if activation not in ACTIVATIONS:
        raise CbirError(
            f"unknown activation '{activation}'", f"known: {', '.join(sorted(ACTIVATIONS))}"
        )
    pool = ACTIVATIONS[activation]
    k = len(filters.filters)
    features = np.empty((len(images), grid * grid, k), dtype=np.float32)
    for number in range(len(images)):
        patches = normalised_patches(images[number : number + 1], filters.size, stride)[0]
        rows, columns, dim = patches.shape
        white = (patches.reshape(-1, dim) - filters.mean) @ filters.whitening
        features[number] = pool(white, filters.filters, _cells(rows, columns, grid), bias)
    return features.reshape(len(images), -1)


def _cells(rows: int, columns: int, grid: int) -> Floats:
    """Which places belong to which cell: 0 or 1, (grid * grid, rows * columns)."""
    member = np.zeros((grid, grid, rows, columns), dtype=np.float32)
    for i, (top, bottom) in enumerate(grid_spans(rows, grid)):
        for j, (left, right) in enumerate(grid_spans(columns, grid)):
            member[i, j, top:bottom, left:right] = 1
    return member.reshape(grid * grid, rows * columns)


def _triangle(white: Floats, filters: Floats, cells: Floats, bias: float) -> Floats:
    del bias
    squares = np.einsum("ij,ij->i", white, white)[:, None]
    lengths = np.einsum("ij,ij->i", filters, filters)
    distances = np.sqrt(np.maximum(0, squares + lengths - 2 * (white @ filters.T)))
    answers = np.maximum(0, distances.mean(axis=1, keepdims=True) - distances)
    return np.matmul(cells, answers, dtype=np.float32)


def _relu(white: Floats, filters: Floats, cells: Floats, bias: float) -> Floats:
    answers = np.maximum(0, white @ filters.T - np.float32(bias))
    return np.matmul(cells, answers, dtype=np.float32)


ACTIVATIONS: dict[str, Callable[[Floats, Floats, Floats, float], Floats]] = {
    "triangle": _triangle,
    "relu": _relu,
}
