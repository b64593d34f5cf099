"""Networks trained for a benchmark, measured as they are: float32, without export or posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.perturbations import Pixels
from benchmarks.retrieval import leave_one_out, usual
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import projected
from cbir.descriptors.resize import resized
from cbir.training.labelled import accuracy
from cbir.training.network.loop import train
from cbir.training.network.network import EmbeddingNet
from cbir.training.network.prediction import predict
from cbir.training.network.settings import TrainSettings
from cbir.types import Floats, RgbImage, Vectors

AT_ONCE = 1000
WATCHED = 100
"""Images for the accuracy that the loop reports after each epoch, which is not used here."""

QUALITY = ("nAP@100", "MAP@R", "nAP@100, leave-one-out", "P@10", "accuracy")

Labelled = tuple[Pixels, NDArray[np.int64]]


@dataclass(frozen=True)
class Trained:
    """A network for images of `size` pixels, and the mean of its training images' embeddings."""

    network: EmbeddingNet
    size: int
    mean: Floats

    def outputs(self, images: Pixels) -> tuple[Vectors, Floats]:
        """The vectors (n, dim), centred as a model's are, and logits (n, classes)."""
        embeddings, logits = network_outputs(self.network, images, self.size)
        return projected(embeddings, self.mean), logits

    def vectors(self, images: Pixels) -> Vectors:
        """The first of `outputs`."""
        return self.outputs(images)[0]


def trained(images: Labelled, classes: int, settings: TrainSettings) -> Trained:
    """Train on `images` and their class numbers below `classes`."""
    pixels, labels = at_size(images[0], settings.size), images[1]
    network, _ = train(pixels, labels, (pixels[:WATCHED], labels[:WATCHED]), settings, classes)
    return Trained(network, settings.size, predict(network, pixels)[0].mean(axis=0))


def quality(
    model: Trained, indexed: tuple[Vectors, NDArray[np.int64]], test: Labelled
) -> dict[str, float]:
    """The figures `QUALITY` of `model` for the `test` images as queries to `indexed`, and alone.

    MAP@R (Musgrave et al. 2020, arXiv:2003.08505) is AP@R, where R images are relevant.
    """
    vectors, logits = model.outputs(test[0])
    queries = vectors, test[1]
    relevant = np.bincount(indexed[1])[test[1]]
    depths = [f"AP@{r}" for r in np.unique(relevant)]
    values = usual(indexed, queries, ["nAP@100", "P@10", *depths])
    map_at_r = np.array([values[f"AP@{r}"][number] for number, r in enumerate(relevant)])
    alone = leave_one_out(queries, ["nAP@100"])["nAP@100"]
    figures = (values["nAP@100"], map_at_r, alone, values["P@10"])
    means = (*(float(each.mean()) for each in figures), accuracy(logits, test[1]))
    return dict(zip(QUALITY, means, strict=True))


def at_size(images: Pixels | Sequence[RgbImage], size: int) -> Pixels:
    """Images resized to (n, size, size, 3), as descriptors resize."""
    if isinstance(images, np.ndarray) and images.shape[1:3] == (size, size):
        return images
    return np.stack([resized(image, size, size) for image in images])


def sample(images: Labelled, count: int, seed: int) -> Labelled:
    """A random `count` of `images`, or all if there are no more."""
    rows = np.random.default_rng(seed).permutation(len(images[0]))[:count]
    return images[0][rows], images[1][rows]


def network_outputs(network: EmbeddingNet, images: Pixels, size: int) -> tuple[Floats, Floats]:
    """Raw embeddings (n, dim) and logits (n, classes) of `images`, resized to `size`."""
    parts = [predict(network, at_size(some, size)) for some in batches(images, AT_ONCE)]
    embeddings, logits = zip(*parts, strict=True)
    return np.concatenate(embeddings), np.concatenate(logits)
