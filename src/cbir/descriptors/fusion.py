"""Makes unit vectors of raw network outputs: centring, square-root posterior, weighted fusion.

Everything here works on float32 rows and returns rows of unit L2 norm. A row with nothing to say
(zero after centring) becomes the first unit vector (1, 0, ..., 0): fixed, valid, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.types import Vectors

Floats = NDArray[np.float32]


def unit_rows(rows: Floats) -> Vectors:
    """Rows of (n, dim) scaled to unit L2 norm; a zero row becomes (1, 0, ..., 0)."""
    norms = np.sqrt(np.sum(np.square(rows, dtype=np.float64), axis=1, keepdims=True))
    units: Vectors = np.zeros(rows.shape, dtype=np.float32)
    np.divide(rows, norms, out=units, where=norms > 0, casting="same_kind")
    units[norms[:, 0] == 0, 0] = 1.0
    return units


def centred(rows: Floats, mean: Floats) -> Vectors:
    """Rows (n, dim) minus `mean` (dim,), then scaled to unit norm."""
    return unit_rows(rows - mean)


def sqrt_posterior(logits: Floats, temperature: float) -> Vectors:
    """Square roots of softmax(logits / temperature), (n, classes).

    Their dot product is the Bhattacharyya coefficient of two posteriors (Bhattacharyya 1943), and
    they are of unit norm as they stand. Higher temperatures flatten the posterior.
    """
    scaled = logits.astype(np.float64) / (2 * temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    # exp(x / 2T) normalised to unit norm is sqrt(softmax(x / T)).
    return unit_rows(np.exp(scaled).astype(np.float32))


def fuse(blocks: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """Unit blocks side by side, so that cosines add: cos = sum of weight x block cosine.

    `weights` are non-negative and sum to 1; each block is scaled by the square root of its own.
    Returns (n, sum of dims), unit norm.
    """
    return np.hstack(
        [np.float32(np.sqrt(w)) * block for block, w in zip(blocks, weights, strict=True)]
    )
