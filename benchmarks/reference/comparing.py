"""Compares a pulled model with the reference library: inputs, token ids and vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.reference.exports import Export, Tokens
from cbir.descriptors.contract import describe, prepare
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.text import TextTokenizer
from cbir.descriptors.text_network import TOKENIZER_FILE
from cbir.types import Floats, RgbImage

INPUTS = 1e-3
COSINE = 0.999
ERROR = 0.01
"""Bounds: the difference of inputs, the centred cosine, and the error (see `Difference`)."""

SIZES = [
    (1, 1), (1, 2), (2, 1), (1, 40), (60, 1), (2, 3), (3, 2), (3, 100), (90, 4), (5, 5), (7, 9),
    (10, 200), (13, 17), (16, 16), (20, 21), (31, 33), (32, 32), (40, 500), (48, 64), (64, 48),
    (97, 101), (100, 100), (111, 223), (128, 128), (150, 1000), (199, 200), (223, 224), (223, 225),
    (224, 223), (224, 224), (224, 225), (224, 448), (225, 224), (225, 225), (240, 320), (255, 256),
    (256, 224), (256, 256), (256, 257), (257, 256), (300, 5000), (333, 500), (384, 384), (385, 383),
    (399, 601), (480, 640), (601, 399), (640, 427), (777, 333), (5000, 300),
]  # fmt: skip
"""Height and width of 50 images."""


@dataclass(frozen=True)
class Difference:
    """How far vectors (n, dim) are from the reference's.

    Random networks map everything to nearly one direction: the mean is subtracted before the
    smallest `cosine` is taken, and errors (`worst`, `median`) are divided by the median distance
    between two of the reference's vectors.
    """

    cosine: float
    worst: float
    median: float

    @property
    def small(self) -> bool:
        """Whether it is within the bounds."""
        return self.cosine >= COSINE and self.worst < ERROR

    @property
    def large(self) -> bool:
        """Whether both are out of bounds."""
        return self.cosine < COSINE and self.worst > ERROR


def difference(own: Floats, reference: Floats) -> Difference:
    """Compare unit vectors (n, dim) with the rows of a reference."""
    reference = unit_rows(reference)
    mean = reference.mean(axis=0)
    cosines = np.sum(unit_rows(own - mean) * unit_rows(reference - mean), axis=1)
    distances = np.linalg.norm(reference[:, None] - reference[None], axis=2)
    errors = np.linalg.norm(own - reference, axis=1) / np.median(distances[distances > 0])
    return Difference(float(cosines.min()), float(errors.max()), float(np.median(errors)))


def pulled(name: str, endpoint: str, home: Path) -> OnnxDescriptor:
    """What `cbir models pull` makes of a model of the hub at `endpoint`, with homes in `home`."""
    homes = {"HF_HOME": str(home / "huggingface"), "CBIR_HOME": str(home / "cbir")}
    ended = subprocess.run(
        [sys.executable, "-m", "cbir", "models", "pull", name, "--yes", "--json"],
        env={**os.environ, **homes, "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    made = load_descriptor(json.loads(ended.stdout)["place"])
    assert isinstance(made, OnnxDescriptor)
    return made


def drawn(sizes: Sequence[tuple[int, int]]) -> list[RgbImage]:
    """Images of these heights and widths: coloured areas with soft edges, and noise."""
    made = []
    for seed, (height, width) in enumerate(sizes):
        random = np.random.default_rng(seed)
        areas = Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        smooth = np.asarray(areas.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        noise = random.integers(-40, 41, (height, width, 3))
        made.append(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    return made


def vectors(model: OnnxDescriptor, images: Sequence[RgbImage]) -> Floats:
    """The vectors of `images` as indexing makes them: prepared one by one, described in batches."""
    return describe(model, [prepare(model, image) for image in images])


@dataclass(frozen=True)
class Reference:
    """What a reference library makes of images and texts: inputs of its networks, and rows."""

    pixels: Floats
    images: Floats
    tokens: Sequence[Tokens]
    texts: Floats


def reference_of(export: Export, images: Sequence[RgbImage], texts: Sequence[str]) -> Reference:
    """What the library of `export` makes of these; no texts if there is no text tower."""
    pixels = np.stack([export.pixels(image) for image in images])
    rows = export.images(pixels)
    if not export.tokens or not export.texts:
        return Reference(pixels, rows, (), np.empty((0, rows.shape[1]), dtype=np.float32))
    tokens = [export.tokens(text) for text in texts]
    return Reference(pixels, rows, tokens, np.concatenate([*map(export.texts, tokens)]))


def inputs_apart(model: OnnxDescriptor, images: Sequence[RgbImage], reference: Floats) -> float:
    """The largest difference between the inputs that `model` makes and those of the reference."""
    own = model.card.input.inputs([prepare(model, image) for image in images])
    return float(np.abs(own - reference).max())


def ids_apart(model: OnnxDescriptor, texts: Sequence[str], reference: Sequence[Tokens]) -> int:
    """How many texts get other inputs of the text network than those of the reference."""
    assert model.card.text is not None
    tokenizer = TextTokenizer(model.files[TOKENIZER_FILE], model.card.text)
    apart = 0
    for text, expected in zip(texts, reference, strict=True):
        made = tokenizer.encode([text], list(expected))
        apart += not all(np.array_equal(made[name], ids) for name, ids in expected.items())
    return apart
