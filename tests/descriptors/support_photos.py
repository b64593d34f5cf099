"""Small pictures and a small descriptor for tests that need no trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cbir.types import DescriptorSpec, RgbImage, Vectors

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}


class MeanColour:
    """The mean colour of a picture and a constant, as a unit vector of four numbers."""

    spec = DescriptorSpec("mean-colour", 4, "ab" * 32, {"decoder": "Pillow"}, "", "MIT")

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        rows = np.array([[*image.reshape(-1, 3).mean(axis=0) / 255, 0.1] for image in images])
        vectors: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return vectors


class ColourWords(MeanColour):
    """Its text tower: the mean of the colours that a text names, grey if it names none."""

    spec = DescriptorSpec("colour-words", 4, "cd" * 32, {}, "", "MIT")
    has_text = True

    def describe_texts(self, texts: Sequence[str]) -> Vectors:
        named = [[COLOURS[word] for word in text.split() if word in COLOURS] for text in texts]
        means = [np.mean(colours or [(128, 128, 128)], axis=0) for colours in named]
        return self.describe([mean.reshape(1, 1, 3) for mean in means])


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 30)) -> RgbImage:
    """A noisy picture of about one colour: width x height."""
    noise = np.random.default_rng(seed).integers(-25, 26, (size[1], size[0], 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def write_photos(folder: Path, per_colour: int = 4) -> Path:
    """`folder`/COLOUR/N.png, `per_colour` pictures each of red, green and blue."""
    for place, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir(parents=True)
        for number in range(per_colour):
            image = picture(colour, seed=100 * place + number)
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder
