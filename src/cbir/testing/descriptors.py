"""Conformance tests for descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cbir.descriptors.contract import Descriptor, Preparing
from cbir.testing.expect import expect, expect_near
from cbir.types import UNIT_TOLERANCE, RgbImage, Vectors


def check_descriptor(descriptor: Descriptor, images: Sequence[RgbImage] | None = None) -> None:
    """Check spec, shapes, norms, order, and independence of batch and thread.

    `images`: at least two RGB uint8 images; None uses synthetic ones (flat, tiny, long).
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
    together = _described(descriptor, pictures)
    for picture, copy in zip(pictures, before, strict=True):
        expect(np.array_equal(picture, copy), "describe modifies its input images")
    again = _described(descriptor, pictures)
    expect(
        np.array_equal(together, again), "the same batch gives different vectors the second time"
    )
    for number, picture in enumerate(pictures):
        alone = _described(descriptor, [picture])[0]
        expect_near(alone, together[number], f"image {number} alone and in a batch")
    backwards = _described(descriptor, pictures[::-1])[::-1]
    for number in range(len(pictures)):
        expect_near(backwards[number], together[number], f"image {number} at another position")
    with ThreadPoolExecutor(2) as pool:
        for parallel in pool.map(lambda _: _described(descriptor, pictures), range(4)):
            expect(np.array_equal(parallel, together), "vectors differ between threads")
    if isinstance(descriptor, Preparing):
        prepared = [descriptor.prepare(picture) for picture in pictures]
        for number, row in enumerate(_described(descriptor, prepared)):
            expect_near(row, together[number], f"image {number} with and without prepare")


def _pictures() -> list[RgbImage]:
    draw = np.random.default_rng(0)
    shapes = [(32, 32), (48, 64), (1, 1), (200, 3), (5, 120)]
    pictures = [draw.integers(0, 256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]
    flat = [np.full((40, 30, 3), value, dtype=np.uint8) for value in (0, 255, 128)]
    return pictures + flat


def _described(descriptor: Descriptor, images: Sequence[RgbImage]) -> Vectors:
    vectors = descriptor.describe(images)
    expected = (len(images), descriptor.spec.dim)
    expect(
        isinstance(vectors, np.ndarray) and vectors.shape == expected,
        f"describe returned {getattr(vectors, 'shape', type(vectors))}; expected shape {expected}",
    )
    expect(vectors.dtype == np.float32, f"vectors are {vectors.dtype}; expected float32")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    expect(
        bool(np.all(np.abs(norms - 1) <= UNIT_TOLERANCE)),
        f"norms are {norms.tolist()}; every row must be finite and of unit norm",
    )
    return vectors
