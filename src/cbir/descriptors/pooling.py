"""Makes one row an image of a network's output: tokens of a transformer, or a map of features."""

from __future__ import annotations

import numpy as np

from cbir.errors import CbirError
from cbir.types import Floats

POOLINGS = ("none", "cls", "mean", "gem")
GEM_POWER = 3.0
GEM_FLOOR = 1e-6


def pooled(features: Floats, pooling: str) -> Floats:
    """Rows (n, dim) of tokens (n, tokens, dim) or of a feature map (n, dim, height, width).

    "none" returns `features` as they are; "cls" takes the first token; "mean" averages all tokens
    or places; "gem" is their generalised mean with power 3 (Radenović, Tolias and Chum, TPAMI
    2019), of values above 0.
    """
    if pooling == "none" or features.ndim not in (3, 4):
        return features
    if features.ndim == 4:
        features = features.reshape(*features.shape[:2], -1).swapaxes(1, 2)
    if pooling == "cls":
        return features[:, 0]
    if pooling == "mean":
        return np.asarray(features.mean(axis=1))
    cubes = np.maximum(features, GEM_FLOOR) ** GEM_POWER
    return np.asarray(cubes.mean(axis=1) ** (1 / GEM_POWER))


def embedding_rows(
    features: Floats, output: str, pooling: str, shape: tuple[int, int], name: str
) -> Floats:
    """The pooled rows of `output` of the model `name`; raises `CbirError` unless of `shape`."""
    rows = pooled(features, pooling)
    if rows.shape != shape:
        raise CbirError(
            f"output '{output}' of {name} has shape {features.shape}, which makes no "
            f"{shape[1]} dimensions by pooling '{pooling}'",
            "correct model.json",
        )
    return rows
