"""A visual vocabulary: assigns local descriptors to words and encodes images by their words.

Sivic & Zisserman 2003 (words, tf-idf), Philbin et al. 2008 (soft assignment), Lazebnik, Schmid &
Ponce 2006 (spatial pyramid), Jégou et al. 2010 with Arandjelovic & Zisserman 2013 (VLAD).

All functions take the descriptors of ONE image: a matrix product over several images rounds
differently, so a descriptor between two words could change its word with the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.arrays import Arrays
from cbir.errors import CbirError
from cbir.types import Floats


@dataclass(frozen=True)
class Assignment:
    """The r words of each of n descriptors: indices `words` (n, r); `weights` (n, r) sum to 1."""

    words: NDArray[np.intp]
    weights: Floats


@dataclass(frozen=True)
class Vocabulary:
    """`words` float32 (k, dim); `idf` float32 (k,), non-negative, or None.

    Raises `CbirError` if shapes are wrong or values not finite.
    """

    words: Floats
    idf: Floats | None = None

    def __post_init__(self) -> None:
        if self.words.ndim != 2 or 0 in self.words.shape:
            raise CbirError(
                f"words of shape {self.words.shape} are not a matrix (words, dimensions)"
            )
        if not np.isfinite(self.words).all():
            raise CbirError("the words contain non-finite values")
        if self.idf is None:
            return
        if self.idf.shape != (self.size,):
            raise CbirError(f"idf of shape {self.idf.shape} does not fit {self.size} words")
        if not (np.isfinite(self.idf).all() and (self.idf >= 0).all()):
            raise CbirError("the idf contains negative or non-finite values")

    @property
    def size(self) -> int:
        """The number of words."""
        return len(self.words)

    @property
    def dim(self) -> int:
        """The number of dimensions of a word."""
        return int(self.words.shape[1])

    def hard(self, descriptors: Floats) -> Assignment:
        """The nearest word (Euclidean; ties: lower index) of each of `descriptors` (n, dim)."""
        nearest = np.argmin(self._distances(descriptors), axis=1)[:, None]
        return Assignment(nearest, np.ones(nearest.shape, dtype=np.float32))

    def soft(self, descriptors: Floats, nearest: int, sigma: float) -> Assignment:
        """The `nearest` words of each of (n, dim), weighted exp(-distance^2 / (2 sigma^2)).

        `sigma` is in descriptor units (Philbin et al. 2008).
        """
        distances = self._distances(descriptors)
        rows = np.arange(len(distances))
        words = np.empty((len(distances), min(nearest, self.size)), dtype=np.intp)
        near = np.empty(words.shape, dtype=np.float64)
        for place in range(words.shape[1]):  # faster than a partition for a few words
            words[:, place] = distances.argmin(axis=1)
            near[:, place] = distances[rows, words[:, place]]
            distances[rows, words[:, place]] = np.inf
        # Subtract the minimum: only differences matter, and the nearest weight must not underflow.
        near -= near.min(axis=1, keepdims=True)
        weights = np.exp(near / (-2 * sigma**2))
        weights /= weights.sum(axis=1, keepdims=True)
        return Assignment(words, weights.astype(np.float32))

    def histogram(
        self,
        found: Assignment,
        points: Floats,
        shape: tuple[int, ...],
        grids: Sequence[int] = (1,),
    ) -> Floats:
        """Word frequencies over a spatial pyramid, ((sum of g*g for g in `grids`) * k,).

        `points` (n, 2 or more): x, y in an image of `shape` (height, width, ...). Grid g counts
        the words in each of g x g cells, row by row. Level weights follow Lazebnik et al. 2006
        (higher for finer levels, 1 in total): the row sums to 1, or to 0 without descriptors.
        """
        top = len(grids) - 1
        levels = []
        for level, grid in enumerate(grids):
            weight = 2.0 ** (-top if level == 0 else level - top - 1)
            cells = cells_of(points, shape, grid)
            bins = (cells[:, None] * self.size + found.words).ravel()
            counts = np.bincount(bins, found.weights.ravel(), grid * grid * self.size)
            levels.append(counts * (weight / max(1, len(cells))))
        return np.concatenate(levels).astype(np.float32)

    def weighted(self, histogram: Floats) -> Floats:
        """A histogram (cells * k,) times idf, cell by cell; unchanged without idf.

        With its square root (block power 0.5), the cosine is an idf-weighted Hellinger kernel.
        """
        if self.idf is None:
            return histogram
        cells: Floats = histogram.reshape(-1, self.size) * self.idf
        return cells.ravel()

    def vlad(self, descriptors: Floats) -> Floats:
        """VLAD of `descriptors` (n, dim): the summed residuals of each word, (k * dim,).

        Each word's sum has unit norm (intra-normalisation), so that bursts of one word do not
        dominate (Arandjelovic & Zisserman 2013), or is zero without descriptors.
        """
        sums = np.zeros(self.words.shape, dtype=np.float64)
        words = self.hard(descriptors).words[:, 0]
        order = np.argsort(words, kind="stable")
        present, starts = np.unique(words[order], return_index=True)
        # float64 sums are exact, so cancelling residuals leave no rounding error to amplify.
        differences = descriptors.astype(np.float64) - self.words[words]
        sums[present] = np.add.reduceat(differences[order], starts) if len(starts) else 0
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        np.divide(sums, norms, out=sums, where=norms > 0)
        return sums.ravel().astype(np.float32)

    @cached_property
    def _half_squares(self) -> Floats:
        squares = np.square(self.words, dtype=np.float64).sum(axis=1)
        return np.asarray(squares / 2, dtype=np.float32)

    def _distances(self, descriptors: Floats) -> Floats:
        """Squared distances (n, k) minus each descriptor's squared norm, which keeps the order."""
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dim:
            raise CbirError(
                f"descriptors of {descriptors.shape[-1]} dimensions do not fit words of {self.dim}"
            )
        distances: Floats = descriptors @ self.words.T
        np.subtract(self._half_squares, distances, out=distances)
        distances *= 2
        return distances


def cells_of(points: Floats, shape: tuple[int, ...], grid: int) -> NDArray[np.intp]:
    """The cell (n,) of each point (x, y, ...), of `grid` x `grid` in an image (h, w, ...)."""
    height, width = shape[:2]
    places = points[:, :2] * (grid / np.array([width, height], dtype=np.float32))
    columns, rows = np.clip(places.astype(np.intp), 0, grid - 1).T
    return np.asarray(rows * grid + columns)


def inverse_document_frequency(histograms: Floats) -> Floats:
    """ln(n / number of images with the word), (k,), from histograms (n, k) of n images.

    A word in every image gets 0; a word in no image counts as if it were in one.
    """
    images = np.maximum(np.count_nonzero(histograms, axis=0), 1)
    return np.asarray(np.log(max(1, len(histograms)) / images), dtype=np.float32)


def vocabulary_of(arrays: Arrays, what: str) -> Vocabulary:
    """The vocabulary of `words` and optional `idf` of `arrays`, as float32; `what` owns them."""
    if "words" not in arrays:
        raise CbirError(f"{what} lacks 'words'")
    idf = arrays.get("idf")
    return Vocabulary(
        arrays["words"].astype(np.float32, copy=False),
        None if idf is None else idf.astype(np.float32, copy=False),
    )
