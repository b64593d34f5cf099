"""Exact search in arrays of vectors, for benchmarks that make their own vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cbir.evaluation.rankings import Trial, trial_measures
from cbir.images.sources import open_source
from cbir.index.exact import Space, nearest
from cbir.training.labelled import read_labelled
from cbir.types import Vectors

Labels = NDArray[np.integer]
PerQuery = dict[str, NDArray[np.float64]]
"""Measure -> its value for each query (q,)."""


@cache
def read_split(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images (n, 32, 32, 3) of the CIFAR-10 split "train" or "test", and class numbers (n,)."""
    read = read_labelled(open_source(f"cifar10:{split}"), lambda image: image)
    return read.stacked(), read.labels


def usual(
    indexed: tuple[Vectors, Labels], queries: tuple[Vectors, Labels], names: Sequence[str]
) -> PerQuery:
    """The measures `names` of `queries` to `indexed`, each given as vectors and class numbers."""
    return _measured(indexed, queries, np.full(len(queries[0]), -1), names)


def leave_one_out(images: tuple[Vectors, Labels], names: Sequence[str]) -> PerQuery:
    """The measures `names` of each of `images`, vectors and class numbers, as a query to the rest.

    Needs at least two images.
    """
    return _measured(images, images, np.arange(len(images[0])), names)


def finds_original(
    indexed: Vectors, copies: Vectors, originals: NDArray[np.integer]
) -> NDArray[np.float64]:
    """1 for each of `copies` (q, dim) whose first hit is the row of its original, else 0: (q,)."""
    space = Space(indexed, np.arange(len(indexed) + 1))
    first = nearest(space, copies, 1).records[:, 0]
    return np.asarray(first == originals, dtype=np.float64)


def _measured(
    indexed: tuple[Vectors, Labels],
    queries: tuple[Vectors, Labels],
    itself: NDArray[np.int64],
    names: Sequence[str],
) -> PerQuery:
    matrix, codes = indexed
    order = np.arange(len(matrix))
    ids = [str(number) for number in order]
    asked = queries[1].astype(np.int32)
    trial = Trial(ids, matrix, codes.astype(np.int32), queries[0], asked, itself, order)
    return trial_measures(trial, names)
