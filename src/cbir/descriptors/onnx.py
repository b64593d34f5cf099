"""Descriptors that run a network: `model.onnx` and its card `model.json`.

The network takes uint8 (n, height, width, 3) RGB and returns `embedding` (n, dim) and `logits`
(n, classes), both float32. The card defines how they become vectors (see `OnnxCard`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.cards import CARD_FILE, ModelCard, checked_files
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import Posterior, projected
from cbir.descriptors.resize import RESIZE, resized
from cbir.descriptors.runtime import Network
from cbir.types import DescriptorSpec, RgbImage, Vectors

NETWORK_FILE = "model.onnx"
MAX_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class OnnxCard(ModelCard):
    """The card of a network. These fields affect vectors and are part of the fingerprint.

    `size` is the input's width and height; `mean` (dim,) centres the embedding; `temperature`
    flattens the posterior; `posterior_weight` is the posterior's share of the fused cosine.
    """

    kind: ClassVar[str] = "onnx"
    size: int
    mean: tuple[float, ...]
    temperature: float
    posterior_weight: float

    @classmethod
    def converted(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Convert JSON values to fields."""
        return super().converted(stored) | {"mean": tuple(stored["mean"])}

    @property
    def posterior(self) -> Posterior:
        """The posterior's settings in a fused vector."""
        return Posterior(self.temperature, self.posterior_weight)

    def vector_facts(self) -> dict[str, Any]:
        """All card fields that change a vector, as JSON values."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "temperature": self.temperature,
            "posterior_weight": self.posterior_weight,
            "resize": RESIZE,
        }


class OnnxDescriptor:
    """A network's centred embedding, fused with the square root of its posterior.

    The variant "fused" has both (dim + classes dimensions), "embedding" only the embedding.
    `files` are the model's files by name; they are stored with an index. Thread-safe.
    """

    FILES: ClassVar[tuple[str, ...]] = (NETWORK_FILE, CARD_FILE)

    def __init__(self, files: Mapping[str, bytes], variant: str = "fused") -> None:
        checked_files(files, self.FILES, variant)
        self.files = dict(files)
        self.card = OnnxCard.parse(files[CARD_FILE])
        self.variant = variant
        self.network = Network(files[NETWORK_FILE], f"{NETWORK_FILE} of {self.card.name}")
        self._mean = np.asarray(self.card.mean, dtype=np.float32)

    @cached_property
    def spec(self) -> DescriptorSpec:
        card, fused = self.card, self.variant == "fused"
        return card.spec(
            self.variant,
            len(card.mean) + (len(card.classes) if fused else 0),
            self.files[NETWORK_FILE],
            {
                "resize": f"{card.size}x{card.size}, {RESIZE}",
                "vector": "centred embedding" + (f" + {card.posterior}" if fused else ""),
            },
        )

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` at the network's input size, (size, size, 3)."""
        return resized(image, self.card.size, self.card.size)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """The unit vectors (n, spec.dim) of `images`."""
        return np.concatenate([self._vectors(some) for some in batches(images, MAX_BATCH)])

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """The class numbers (n,) by the posterior in `vectors`; None if there is no posterior."""
        if self.variant != "fused":
            return None
        classes: NDArray[np.intp] = np.argmax(vectors[:, len(self.card.mean) :], axis=1)
        return classes

    def _vectors(self, images: Sequence[RgbImage]) -> Vectors:
        pixels = np.stack([self.prepare(image) for image in images])
        embedding, logits = self.network.outputs(pixels)
        unit = projected(embedding, self._mean)
        return self.card.posterior.fused(unit, logits) if self.variant == "fused" else unit
