"""Tries a new model on pictures: equal ones, different ones, alone and together."""

from __future__ import annotations

import time

import numpy as np

from cbir.descriptors.cards import Model
from cbir.descriptors.contract import describe, describe_texts
from cbir.errors import CbirError
from cbir.types import RgbImage, Vectors

SIZES = ((480, 640), (640, 480), (333, 500))
"""Height and width of the pictures."""
TEXTS = ("a dog on a beach", "red flowers")
SECONDS = 0.5
SAME = 1e-4
"""The largest Euclidean distance between vectors of one picture across batches."""
DIFFERENT = 1e-6
"""The smallest distance between vectors of different pictures."""


def pictures() -> list[RgbImage]:
    """Coloured areas with soft edges and a fine grain: the same pictures on every machine."""
    from PIL import Image

    random = np.random.default_rng(0)
    made = []
    for height, width in SIZES:
        areas = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(areas.resize((width, height), Image.Resampling.BICUBIC))
        grain = random.integers(-20, 21, (height, width, 1))
        made.append(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    return made


def described_one_by_one(model: Model) -> bool:
    """Whether pictures must be described one by one: batches fail or change vectors.

    Raises `CbirError` if the model fails, is not deterministic, or tells no pictures apart.
    """
    shown = pictures()
    alone = np.concatenate([describe(model, [picture]) for picture in shown])
    if _gap(describe(model, shown[:1]), alone[:1]) > SAME:
        raise CbirError(
            "the network gives one picture different vectors each time",
            "export it for inference, without dropout and other random operators",
        )
    if min(_gap(alone[i], alone[j]) for i in range(len(shown)) for j in range(i)) <= DIFFERENT:
        raise CbirError(
            "the network gives different pictures the same vector",
            "choose another output with --output, or correct --mean, --std and --scale",
        )
    try:
        together = describe(model, [*shown, shown[0]])
    except CbirError:
        return True
    return _gap(together, np.concatenate([alone, alone[:1]])) > SAME


def check_words(model: Model) -> None:
    """Describe texts with `model`; raises `CbirError` if it fails or tells none apart."""
    rows = describe_texts(model, TEXTS)
    if _gap(rows[0], rows[1]) <= DIFFERENT:
        raise CbirError("the text network gives different texts the same vector", "export it again")


def images_per_second(model: Model) -> float:
    """How many pictures `model` describes a second on one core."""
    shown = pictures()
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS:
        describe(model, shown)
        count += len(shown)
    return count / seconds


def _gap(one: Vectors, other: Vectors) -> float:
    return float(np.max(np.linalg.norm(one - other, axis=-1)))
