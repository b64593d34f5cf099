"""What a descriptor is, and the checks that every description goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from cbir.errors import CbirError
from cbir.types import UNIT_TOLERANCE, DescriptorSpec, RgbImage, Vectors


@runtime_checkable
class Descriptor(Protocol):
    """Turns images into vectors. An object with these two is a descriptor; no base class needed.

    `describe` takes n RGB images of any size and returns exactly n finite rows of unit L2 norm,
    float32 (n, spec.dim), in the same order, or raises. It may be called from several threads.
    A descriptor with nothing to say about an image returns a fixed, documented unit vector.
    """

    @property
    def spec(self) -> DescriptorSpec: ...

    def describe(self, images: Sequence[RgbImage]) -> Vectors: ...


@runtime_checkable
class Preparing(Protocol):
    """A descriptor that can shrink a picture to what it needs, so that batches stay small.

    `describe([prepare(image)])` equals `describe([image])`.
    """

    def prepare(self, image: RgbImage) -> RgbImage: ...


def prepare(descriptor: Descriptor, image: RgbImage) -> RgbImage:
    """`image` as small as `descriptor` can do with; the image itself if it does not say."""
    return descriptor.prepare(image) if isinstance(descriptor, Preparing) else image


def describe(descriptor: Descriptor, images: Sequence[RgbImage]) -> Vectors:
    """Vectors of `images`, float32 (n, dim), checked; raises `CbirError` on a broken answer."""
    dim = descriptor.spec.dim
    if not images:
        return np.empty((0, dim), dtype=np.float32)
    vectors = np.asarray(descriptor.describe(images))
    if vectors.shape != (len(images), dim):
        raise CbirError(
            f"descriptor {descriptor.spec.name} returned shape {vectors.shape} for "
            f"{len(images)} images; expected {(len(images), dim)}"
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(norms - 1) <= UNIT_TOLERANCE):  # also false for NaN and infinity
        worst = int(np.argmax(np.where(np.isfinite(norms), np.abs(norms - 1), np.inf)))
        raise CbirError(
            f"descriptor {descriptor.spec.name} returned a vector of norm {norms[worst]:g} "
            f"for image {worst} of the batch; rows must be finite and of unit norm"
        )
    return vectors


def describe_each(descriptor: Descriptor, images: Sequence[RgbImage]) -> list[Vectors | Exception]:
    """One (dim,) vector or one exception an image, in order.

    The batch is described at once; when that fails, image by image, so that one bad image costs
    one row and never shifts the others.
    """
    try:
        return list(describe(descriptor, images))
    except Exception as error:  # noqa: BLE001 - a user's descriptor may raise anything
        if len(images) == 1:
            return [error]
    return [result for image in images for result in describe_each(descriptor, [image])]
