"""Binary codes of vectors, compared by Hamming distance as in the hashing literature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.evaluation.protocols import (
    PLAIN,
    EvaluationOptions,
    OneProtocol,
    unseen_trial,
    usual_trial,
)
from cbir.evaluation.queries import Queries
from cbir.evaluation.rankings import Keys, Trial, full_measures, shuffled
from cbir.measures.names import with_pairs
from cbir.search.searcher import Searcher
from cbir.types import OnDone, Vectors

ITERATIONS = 50
SEED = 0

Signs = NDArray[np.float32]
"""Binary codes (n, bits) as -1 and 1: their product is bits - 2 x Hamming distance, exactly."""


@dataclass(frozen=True)
class Hamming:
    """Means of measures with codes of `bits` bits, under each protocol.

    `seed` fixes the rotation and the tie-breaking.
    """

    bits: int
    seed: int
    means: dict[OneProtocol, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """As in `cbir evaluate --json`."""
        return {
            "bits": self.bits,
            "seed": self.seed,
            "measures": self.means.get("usual"),
            "unseen_index": self.means.get("unseen"),
        }


@dataclass(frozen=True)
class Coder:
    """Turns vectors into codes: the signs of (vector - `mean` (dim,)) times `axes` (dim, bits)."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    def codes(self, vectors: Vectors) -> Signs:
        """Codes (n, bits) of `vectors` (n, dim)."""
        return np.where((vectors - self.mean) @ self.axes >= 0, np.float32(1), np.float32(-1))


def require_bits(bits: int, dim: int) -> None:
    """Raise `CbirError` unless `bits` is 1..`dim`."""
    if bits < 1:
        raise CbirError(f"codes of {bits} bits are not possible", "use 1 or more")
    if bits > dim:
        message = f"codes of {bits} bits need more than {dim} dimensions"
        raise CbirError(message, f"use at most {dim} bits")


def fit_codes(vectors: Vectors, bits: int, seed: int = SEED) -> Coder:
    """Iterative quantisation: PCA, then the rotation that brings `vectors` (n, dim) close to codes.

    Reads no labels. Raises `CbirError` unless `bits` is 1..dim. Gong and Lazebnik,
    "Iterative quantization: A procrustean approach to learning binary codes", CVPR 2011.
    """
    require_bits(bits, vectors.shape[1])
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    varied = vectors - mean
    # Directions without variance do no harm: the rotation spreads the variance over all bits.
    axes = np.linalg.eigh((varied.T @ varied).astype(np.float64))[1][:, ::-1][:, :bits]
    axes = axes.astype(np.float32)
    projected = varied @ axes
    draw = np.random.default_rng(seed).standard_normal((bits, bits))
    rotation = np.linalg.qr(draw)[0].astype(np.float32)
    for _ in range(ITERATIONS):
        signs = np.where(projected @ rotation >= 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(projected.T @ signs)
        rotation = left @ right
    return Coder(mean, axes @ rotation)


def hamming(
    searcher: Searcher,
    queries: Queries,
    names: Sequence[str],
    bits: int,
    options: EvaluationOptions = PLAIN,
    on_done: OnDone = lambda _done, _total: None,
) -> Hamming:
    """AP over the whole ranking and the measures `names`, with codes fitted on indexed vectors.

    `options` give the protocols and the seed.
    """
    seed = SEED if options.shuffle is None else options.shuffle
    coder = fit_codes(searcher.index.matrix()[1], bits, seed)
    means: dict[OneProtocol, dict[str, float]] = {}
    for protocol in options.protocols(len(queries.ids)):
        trial = (
            unseen_trial(queries, options)
            if protocol == "unseen"
            else usual_trial(searcher, queries, options)
        )
        found = hamming_measures(trial, coder, names, seed, on_done)
        means[protocol] = {name: float(values.mean()) for name, values in found.items()}
    return Hamming(bits, seed, means)


def hamming_measures(
    trial: Trial,
    coder: Coder,
    names: Sequence[str],
    seed: int = SEED,
    on_done: OnDone = lambda _done, _total: None,
) -> dict[str, NDArray[np.float64]]:
    """AP over the whole ranking and the measures `names` with codes, float64 (q,) each.

    Ties are frequent; `seed` breaks them at random, because ids contain the class.
    """
    drawn = replace(trial, places=shuffled(len(trial.codes), seed))
    return full_measures(drawn, _by_distance(trial, coder), with_pairs([*names, "AP"]), on_done)


def _by_distance(trial: Trial, coder: Coder) -> Keys:
    matrix, vectors = coder.codes(trial.matrix), coder.codes(trial.vectors)

    def keys(part: slice) -> NDArray[np.uint32]:
        products = vectors[part] @ matrix.T
        distances: NDArray[np.uint32] = ((matrix.shape[1] - products) / 2).astype(np.uint32)
        return distances

    return keys
