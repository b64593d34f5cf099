"""Assertions with descriptive messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cbir.types import Vectors

E = TypeVar("E", bound=Exception)

SAME_VECTOR = 1e-4
"""The largest Euclidean distance between vectors of one image across batch sizes."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise `AssertionError(otherwise)` unless `holds`."""
    if not holds:
        raise AssertionError(otherwise)


def expect_near(one: Vectors, other: Vectors, what: str) -> None:
    """Expect two vectors, or matrices of vectors, to be equal up to rounding."""
    expect(one.shape == other.shape, f"{what}: shapes {one.shape} and {other.shape}")
    gap = float(np.max(np.linalg.norm(one - other, axis=-1), initial=0.0))
    expect(gap <= SAME_VECTOR, f"{what}: vectors are {gap:g} apart")


def expect_raises(kind: type[E], call: Callable[[], object], what: str) -> E:
    """Expect `call` to raise an error of `kind` and return it."""
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what} must raise {kind.__name__}: {error!r}") from error
    raise AssertionError(f"{what} must raise {kind.__name__}")
