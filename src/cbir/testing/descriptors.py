"""Conformance tests for descriptors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cbir.descriptors.contract import Descriptor, Preparing, TextDescribing, has_text
from cbir.testing.expect import expect, expect_near
from cbir.types import UNIT_TOLERANCE, RgbImage, Vectors

TEXTS = (
    "a dog on a beach",
    "",
    "Ein großer Hund",
    "собака на пляже",
    "海辺の犬",
    "🐕",
    "dog " * 500,
)
"""Texts of several scripts, an empty one, and one longer than any model's context."""


def check_descriptor(descriptor: Descriptor, images: Sequence[RgbImage] | None = None) -> None:
    """Check spec, shapes, norms, order, and independence of batch and thread.

    Checks texts as well if the descriptor has a text tower. `images`: at least two RGB uint8
    images; None uses synthetic ones (flat, tiny, long).
    """
    pictures = list(images) if images is not None else _pictures()
    expect(len(pictures) >= 2, "give at least two images")
    spec = descriptor.spec
    expect(spec.dim > 0, f"spec.dim is {spec.dim}; a vector has at least one dimension")
    expect(bool(spec.name), "spec.name is empty")
    expect(
        len(spec.fingerprint) == 64 and set(spec.fingerprint) <= set("0123456789abcdef"),
        f"spec.fingerprint is {spec.fingerprint!r}; expected 64 hex digits, a sha256",
    )
    expect(descriptor.spec == spec, "spec changes between reads")
    before = [picture.copy() for picture in pictures]
    together = _check_batches(lambda some: _described(descriptor, some), pictures, "image")
    for picture, copy in zip(pictures, before, strict=True):
        expect(np.array_equal(picture, copy), "describe modifies its input images")
    if isinstance(descriptor, Preparing):
        prepared = [descriptor.prepare(picture) for picture in pictures]
        for number, row in enumerate(_described(descriptor, prepared)):
            expect_near(row, together[number], f"image {number} with and without prepare")
    if has_text(descriptor):
        _check_batches(lambda some: _described_texts(descriptor, some), TEXTS, "text")


def _check_batches(
    describe: Callable[[Sequence[Any]], Vectors], given: Sequence[Any], what: str
) -> Vectors:
    """The vectors of `given`, which depend neither on the batch nor on the thread."""
    together = describe(given)
    expect(
        np.array_equal(together, describe(given)),
        f"the same batch of {what}s gives different vectors the second time",
    )
    for number, one in enumerate(given):
        expect_near(describe([one])[0], together[number], f"{what} {number} alone and in a batch")
    backwards = describe(given[::-1])[::-1]
    for number in range(len(given)):
        expect_near(backwards[number], together[number], f"{what} {number} at another position")
    with ThreadPoolExecutor(2) as pool:
        for parallel in pool.map(lambda _: describe(given), range(4)):
            expect(np.array_equal(parallel, together), f"{what} vectors differ between threads")
    return together


def _pictures() -> list[RgbImage]:
    draw = np.random.default_rng(0)
    shapes = [(32, 32), (48, 64), (1, 1), (200, 3), (5, 120)]
    pictures = [draw.integers(0, 256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]
    flat = [np.full((40, 30, 3), value, dtype=np.uint8) for value in (0, 255, 128)]
    return pictures + flat


def _described(descriptor: Descriptor, images: Sequence[RgbImage]) -> Vectors:
    return _checked(descriptor, descriptor.describe(images), len(images), "describe")


def _described_texts(descriptor: Descriptor, texts: Sequence[str]) -> Vectors:
    assert isinstance(descriptor, TextDescribing)
    return _checked(descriptor, descriptor.describe_texts(texts), len(texts), "describe_texts")


def _checked(descriptor: Descriptor, vectors: Vectors, count: int, call: str) -> Vectors:
    expected = (count, descriptor.spec.dim)
    expect(
        isinstance(vectors, np.ndarray) and vectors.shape == expected,
        f"{call} returned {getattr(vectors, 'shape', type(vectors))}; expected shape {expected}",
    )
    expect(vectors.dtype == np.float32, f"vectors are {vectors.dtype}; expected float32")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    expect(
        bool(np.all(np.abs(norms - 1) <= UNIT_TOLERANCE)),
        f"norms are {norms.tolist()}; every row must be finite and of unit norm",
    )
    return vectors
