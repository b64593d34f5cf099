"""The descriptor interface and the checks on every call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError, QueryError
from cbir.types import UNIT_TOLERANCE, DescriptorSpec, RgbImage, Vectors

_Rows = TypeVar("_Rows", bound=Sequence[Any] | NDArray[Any])


@runtime_checkable
class Descriptor(Protocol):
    """Turns images into vectors. Any object with these two members is a descriptor.

    `describe` takes n RGB images of any size and returns exactly n finite rows of unit L2 norm,
    float32 (n, spec.dim), in the same order, or raises. It must be thread-safe. For an image
    without features it returns a fixed, documented unit vector.
    """

    @property
    def spec(self) -> DescriptorSpec: ...

    def describe(self, images: Sequence[RgbImage]) -> Vectors: ...


@runtime_checkable
class Preparing(Protocol):
    """A descriptor that can shrink images in advance, to keep batches small.

    `describe([prepare(image)])` equals `describe([image])`.
    """

    def prepare(self, image: RgbImage) -> RgbImage: ...


@runtime_checkable
class TextDescribing(Protocol):
    """A descriptor that can have a text tower, which turns words into vectors among its images'.

    `describe_texts` returns unit rows, float32 (n, spec.dim), as `describe` does; it is called
    only if `has_text` is true. It must be thread-safe.
    """

    @property
    def has_text(self) -> bool: ...

    def describe_texts(self, texts: Sequence[str]) -> Vectors: ...


def prepare(descriptor: Descriptor, image: RgbImage) -> RgbImage:
    """`image` as prepared by `descriptor`; unchanged if the descriptor has no `prepare`."""
    return descriptor.prepare(image) if isinstance(descriptor, Preparing) else image


def describe(descriptor: Descriptor, images: Sequence[RgbImage]) -> Vectors:
    """The checked vectors of `images`, float32 (n, dim); raises `CbirError` if invalid."""
    if not images:
        return np.empty((0, descriptor.spec.dim), dtype=np.float32)
    return _checked(descriptor, np.asarray(descriptor.describe(images)), len(images), "image")


def has_text(descriptor: Descriptor) -> bool:
    """Whether `descriptor` has a text tower."""
    return isinstance(descriptor, TextDescribing) and descriptor.has_text


def describe_texts(descriptor: Descriptor, texts: Sequence[str]) -> Vectors:
    """The checked vectors of `texts`, float32 (n, dim).

    Raises `QueryError` if the descriptor has no text tower, `CbirError` if the vectors are invalid.
    """
    if not (isinstance(descriptor, TextDescribing) and descriptor.has_text):
        raise QueryError(
            f"{descriptor.spec.short} cannot be searched by words: it has no text tower",
            "search with a picture, or index with a model that has one: cbir models pull",
        )
    if not texts:
        return np.empty((0, descriptor.spec.dim), dtype=np.float32)
    return _checked(descriptor, np.asarray(descriptor.describe_texts(texts)), len(texts), "text")


def describe_each(descriptor: Descriptor, images: Sequence[RgbImage]) -> list[Vectors | Exception]:
    """One vector (dim,) or one exception per image, in order.

    Describes the batch at once and, if that fails, image by image, so one bad image affects only
    its own row.
    """
    try:
        return list(describe(descriptor, images))
    except Exception as error:  # noqa: BLE001 - a user's descriptor may raise anything
        if len(images) == 1:
            return [error]
    return [result for image in images for result in describe_each(descriptor, [image])]


def _checked(descriptor: Descriptor, vectors: NDArray[Any], count: int, what: str) -> Vectors:
    spec = descriptor.spec
    if vectors.shape != (count, spec.dim):
        raise CbirError(
            f"descriptor {spec.name} returned shape {vectors.shape} for {count} {what}s; "
            f"expected {(count, spec.dim)}"
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(norms - 1) <= UNIT_TOLERANCE):  # also false for NaN and infinity
        worst = int(np.argmax(np.where(np.isfinite(norms), np.abs(norms - 1), np.inf)))
        raise CbirError(
            f"descriptor {spec.name} returned a vector of norm {norms[worst]:g} "
            f"for {what} {worst} of the batch; rows must be finite and of unit norm"
        )
    return vectors


def batches(rows: _Rows, size: int) -> Iterator[_Rows]:
    """Split `rows` into slices of `size`; the last one may be smaller."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]  # type: ignore[misc]
