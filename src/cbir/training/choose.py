"""Tunes weights and temperatures by retrieval quality on the held-out split.

Half of the images are the index, the other half the queries; test images are never used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.fusion import EXPECTED_LIKELIHOOD, Posterior
from cbir.measures.by_class import class_measures
from cbir.types import Floats, Vectors

TEMPERATURES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)
WEIGHTS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95)
"""Candidate weights of the posterior. Not 1: images with equal class probabilities have the same
posterior, so ids alone would order them."""
UNDECIDED = Posterior(1.0, 0.5, EXPECTED_LIKELIHOOD)
"""What a handful of held-out images leaves: any choice scores the same."""
STEPS = (0.25, 0.5, 2.0, 4.0)
ROUNDS = 2
MEASURE = "nAP@100"
DEPTH = 100

Labels = NDArray[np.int64]


def cosines(vectors: Vectors) -> Floats:
    """Cosines (queries, index) of the second half of unit `vectors` with the first."""
    half = len(vectors) // 2
    scores: Floats = vectors[half:] @ vectors[:half].T
    return scores


def per_query(similarities: Floats, labels: Labels) -> NDArray[np.float64]:
    """The nAP@100 (queries,) of the second half of the images as queries to the first half.

    `similarities` (queries, index) come from `cosines`; `labels` (n,) cover both halves.
    """
    half = len(labels) // 2
    index, queries = labels[:half], labels[half:]
    relevant = np.bincount(index, minlength=int(labels.max()) + 1)[queries]
    ranked = index[best_columns(similarities, min(DEPTH, half))]
    return class_measures(ranked, queries, relevant, [MEASURE])[MEASURE]


def score(similarities: Floats, labels: Labels) -> float:
    """The mean nAP@100 over the queries; see `per_query`."""
    return float(per_query(similarities, labels).mean())


def choose_fusion(
    embeddings: Vectors,
    logits: Floats,
    labels: Labels,
    temperatures: Sequence[float] = TEMPERATURES,
) -> tuple[Posterior, float]:
    """The best posterior temperature and weight, with power 1, and their score.

    `embeddings` are unit rows (n, dim), `logits` (n, classes), `labels` (n,).
    """
    tried = (
        Posterior(temperature, weight, EXPECTED_LIKELIHOOD)
        for temperature in temperatures
        for weight in WEIGHTS
    )
    choices = [(one, score(cosines(one.fused(embeddings, logits)), labels)) for one in tried]
    best = max(value for _, value in choices)
    if all(value == best for _, value in choices):
        return UNDECIDED, best
    return next(choice for choice in choices if choice[1] == best)


def choose_weights(
    blocks: Sequence[Vectors], labels: Labels, start: Sequence[float]
) -> tuple[list[float], float]:
    """Shares of unit `blocks` (n, dim each) in the fused cosine, and their score.

    Coordinate search from `start`: scales one share at a time while the score improves. The shares
    sum to 1.
    """
    by_block = np.stack([cosines(block) for block in blocks])

    def scored(weights: Sequence[float]) -> float:
        return score(
            np.tensordot(np.asarray(_shares(weights), np.float32), by_block, axes=1), labels
        )

    weights, best = list(start), scored(start)
    for _ in range(ROUNDS if len(blocks) > 1 else 0):
        for number, factor in ((n, f) for n in range(len(blocks)) for f in STEPS):
            tried = [*weights]
            tried[number] *= factor
            result = scored(tried)
            if result > best:
                weights, best = tried, result
    return _shares(weights), best


def _shares(weights: Sequence[float]) -> list[float]:
    return [round(weight / sum(weights), 4) for weight in weights]


def best_columns(similarities: Floats, count: int) -> NDArray[np.intp]:
    """The `count` best columns of each row, best first; ties by column number."""
    if count < similarities.shape[1]:
        columns = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
    else:
        columns = np.broadcast_to(np.arange(count), similarities.shape)
    near = np.take_along_axis(similarities, columns, axis=1)
    order = np.lexsort((columns, -near), axis=-1)
    return np.take_along_axis(columns, order, axis=1)
