"""Unit vectors from raw features: power, centring, PCA, fusion with a posterior.

All functions work on float32 rows and return rows of unit L2 norm. A zero row (after centring)
becomes the first unit vector (1, 0, ..., 0), never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.types import Floats, Vectors

RANK_TOLERANCE = 1e-7
BHATTACHARYYA, EXPECTED_LIKELIHOOD = 0.5, 1.0


@dataclass(frozen=True)
class Posterior:
    """How a head's class scores enter a vector.

    The cosine of two fused vectors is `weight` times a probability product kernel of the posteriors
    (Jebara, Kondor & Howard 2004), softmax(logits / `temperature`) ** `power`; the rest of each
    unit vector is the embedding. Higher temperatures flatten the posterior.

    With power 0.5 the kernel is the Bhattacharyya coefficient, 1 for two images of the same
    posterior, however uncertain it is. With power 1 it is the probability that two images show the
    same class, if the posteriors are right: to rank by it is to rank by the probability of
    relevance (Robertson 1977). What an uncertain posterior lacks in norm, the embedding fills.
    Raises `ValueError` for values out of range.
    """

    temperature: float
    weight: float
    power: float = BHATTACHARYYA

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature > 0 and 0 <= self.weight <= 1):
            raise ValueError(f"{self}")
        if self.power not in (BHATTACHARYYA, EXPECTED_LIKELIHOOD):
            raise ValueError(f"a posterior to the power of {self.power}")

    def fused(self, embedding: Vectors, logits: Floats) -> Vectors:
        """Unit rows of `embedding` (n, dim), fused with the posteriors of `logits` (n, classes)."""
        posterior = softmax(logits, self.temperature) ** self.power
        share = self.weight * np.square(posterior).sum(axis=1, keepdims=True)
        rest = np.sqrt(np.maximum(1 - share, 0)).astype(np.float32)
        return np.hstack([rest * embedding, (np.sqrt(self.weight) * posterior).astype(np.float32)])

    def __str__(self) -> str:
        root = "sqrt " if self.power == BHATTACHARYYA else ""
        return f"{root}posterior (T={self.temperature:g}, weight {self.weight:g})"


def unit_rows(rows: Floats) -> Vectors:
    """Scale rows (n, dim) to unit L2 norm; a zero row becomes (1, 0, ..., 0)."""
    norms = np.sqrt(np.sum(np.square(rows, dtype=np.float64), axis=1, keepdims=True))
    units: Vectors = np.zeros(rows.shape, dtype=np.float32)
    np.divide(rows, norms, out=units, where=norms > 0, casting="same_kind")
    units[norms[:, 0] == 0, 0] = 1.0
    return units


def signed_power(rows: Floats, power: float) -> Floats:
    """sign(x) * abs(x) ** power of each value; 0.5 is the Hellinger map of histograms."""
    if power == 1:
        return rows
    sizes = np.abs(rows)
    raised: Floats = np.sqrt(sizes) if power == 0.5 else np.power(sizes, np.float32(power))
    return np.copysign(raised, rows)


def projected(rows: Floats, mean: Floats | None, projection: Floats | None = None) -> Vectors:
    """Rows (n, dim) minus `mean` (dim,), times `projection` (dim, fewer), scaled to unit norm.

    None skips the mean or the projection. A row equal to the mean becomes (1, 0, ..., 0).
    """
    if mean is not None:
        rows = rows - mean
    if projection is not None:
        rows = rows @ projection
    return unit_rows(rows)


@dataclass(frozen=True)
class Components:
    """The principal components of rows: their `mean` (dim,), the axes float64 (dim, count) of unit
    length, largest variance first, and the variances (count,) along them."""

    mean: Floats
    axes: NDArray[np.float64]
    variances: NDArray[np.float64]

    def projection(self, dims: int, whitening: float = 0.0) -> Floats:
        """The PCA projection (dim, `dims`), each axis divided by deviation ** `whitening`.

        0 keeps the variances, 1 equalises them (Jégou & Chum 2012).
        """
        scaled = self.axes[:, :dims] * self.variances[:dims] ** (-whitening / 2)
        return scaled.astype(np.float32)


def principal_components(rows: Floats, most: int) -> Components:
    """The first components of `rows` (n, dim): as many as the rows have, at most `most`.

    Exact: one symmetric eigenproblem of the smaller side of `rows`.
    """
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    varied = rows - mean
    wide = varied.shape[1] > varied.shape[0]
    # Both products have the same eigenvalues; the larger one would only add zeros.
    square = varied @ varied.T if wide else varied.T @ varied
    values, vectors = np.linalg.eigh(square.astype(np.float64) / max(1, len(rows)))
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int(np.sum(values > values[0] * RANK_TOLERANCE)) if values[0] > 0 else 0
    count = min(rank, most)
    axes = varied.T @ vectors[:, :count] if wide else vectors[:, :count]
    axes = axes / np.linalg.norm(axes, axis=0)
    # Fix the arbitrary sign of eigenvectors, so that the same rows give the same projection.
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(count)])
    return Components(mean, axes, values[:count])


def fit_projection(rows: Floats, dims: int, whitening: float = 0.0) -> tuple[Floats, Floats]:
    """Mean (dim,) and PCA projection (dim, `dims`) of `rows` (n, dim); see `Components`.

    Raises `CbirError` if the rows vary in fewer than `dims` directions.
    """
    found = principal_components(rows, dims)
    if dims > (rank := len(found.variances)):
        raise CbirError(
            f"cannot project to {dims} dimensions: the rows vary in {rank} directions",
            "choose fewer, or fit on more images",
        )
    return found.mean, found.projection(dims, whitening)


def softmax(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """The softmax of logits / temperature, (n, classes)."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def fuse(blocks: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """Concatenate unit blocks so that cosines add up: cos = sum of weight x block cosine.

    `weights` are non-negative and sum to 1; each block is scaled by the square root of its
    weight. Returns (n, sum of dims), unit norm.
    """
    return np.hstack(
        [np.float32(np.sqrt(w)) * block for block, w in zip(blocks, weights, strict=True)]
    )
