"""Descriptors to compose: plain ones, and some that describe words too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cbir.descriptors.fusion import unit_rows
from cbir.types import DescriptorSpec, RgbImage, Vectors
from tests.descriptors.support_photos import MeanColour

HERE = "tests.descriptors.support_composed"
COLOUR = f"{HERE}:MeanColour"
SPREAD = f"{HERE}:Spread"
NOISE = f"{HERE}:Noise"
"""Names that load these."""

__all__ = ["COLOUR", "NOISE", "SPREAD", "MeanColour", "Noise", "Spread", "Worded"]


class Spread:
    """How far each channel spreads: six numbers."""

    spec = DescriptorSpec("spread", 6, "cd" * 32, {"resize": "none"}, "nothing", "MIT")

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        rows = [
            [*image.reshape(-1, 3).std(axis=0), *image.reshape(-1, 3).max(axis=0) / 9, 1.0]
            for image in images
        ]
        return unit_rows(np.array(rows, dtype=np.float32)[:, :6] - 5)


class Noise:
    """Random vectors, the same for the same picture."""

    spec = DescriptorSpec("noise", 8, "bc" * 32)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        seeds = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8]) for image in images]
        rows = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds])
        return unit_rows(rows.astype(np.float32))


class Worded(MeanColour):
    """The mean colour; words are the colours that they name."""

    has_text = True
    spec = DescriptorSpec("worded", 4, hashlib.sha256(b"worded").hexdigest())

    def describe_texts(self, texts: Sequence[str]) -> Vectors:
        rows = [[float(colour in text) for colour in ("red", "green", "blue")] for text in texts]
        return unit_rows(np.array([[*row, 0.1] for row in rows], dtype=np.float32))
