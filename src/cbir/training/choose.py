"""What is chosen on held-out images by how well they find each other: weights, temperatures.

One half of the images is the index, the other the queries; nothing here sees a test image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.fusion import sqrt_posterior
from cbir.measures.by_class import class_measures
from cbir.types import Vectors

TEMPERATURES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)
WEIGHTS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95)
"""Shares of the posterior to choose from. Not 1: images that a classifier is equally sure of have
the same posterior, and would be ordered by their ids."""
STEPS = (0.25, 0.5, 2.0, 4.0)
ROUNDS = 2
MEASURE = "nAP@100"
DEPTH = 100

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """What was chosen on the held-out images, and what it scored there."""

    temperature: float
    weight: float
    score: float


def cosines(vectors: Vectors) -> Floats:
    """Cosines (queries, index) of the second half of unit `vectors` with the first."""
    half = len(vectors) // 2
    scores: Floats = vectors[half:] @ vectors[:half].T
    return scores


def score(similarities: Floats, labels: Labels) -> float:
    """Mean nAP@100 of the second half of the images searched in the first.

    `similarities` (queries, index) as of `cosines`, `labels` (n,) of both halves.
    """
    half = len(labels) // 2
    index, queries = labels[:half], labels[half:]
    relevant = np.bincount(index, minlength=int(labels.max()) + 1)[queries]
    ranked = index[_best(similarities, min(DEPTH, half))]
    return float(class_measures(ranked, queries, relevant, [MEASURE])[MEASURE].mean())


def choose_fusion(
    embeddings: Vectors,
    logits: Floats,
    labels: Labels,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Choice:
    """The temperature and posterior weight that rank best.

    `embeddings` are unit rows (n, dim), `logits` (n, classes), `labels` (n,).
    """
    by_embedding = cosines(embeddings)
    choices = []
    for temperature in temperatures:
        by_posterior = cosines(sqrt_posterior(logits, temperature))
        for weight in WEIGHTS:
            fused = (1 - weight) * by_embedding + weight * by_posterior
            choices.append(Choice(temperature, weight, score(fused, labels)))
    return max(choices, key=lambda choice: choice.score)


def choose_weights(
    blocks: Sequence[Vectors], labels: Labels, start: Sequence[float]
) -> tuple[list[float], float]:
    """Shares of unit `blocks` (n, dim each) in the fused cosine, and what they score.

    Starts at `start` and changes one block at a time, by a factor, as long as that ranks better;
    the shares sum to 1.
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


def _best(similarities: Floats, count: int) -> NDArray[np.intp]:
    """The `count` best columns of each row, best first, equal ones by number."""
    if count < similarities.shape[1]:
        columns = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
    else:
        columns = np.broadcast_to(np.arange(count), similarities.shape)
    near = np.take_along_axis(similarities, columns, axis=1)
    order = np.lexsort((columns, -near), axis=-1)
    return np.take_along_axis(columns, order, axis=1)
