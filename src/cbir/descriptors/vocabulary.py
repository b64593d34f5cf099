"""A visual vocabulary: which words local descriptors are, and what an image is in words.

Sivic & Zisserman 2003 (words, tf-idf), Philbin et al. 2008 (soft assignment), Lazebnik, Schmid &
Ponce 2006 (spatial pyramid), Jégou et al. 2010 with Arandjelovic & Zisserman 2013 (VLAD).

All functions take the descriptors of ONE image: a matrix product over several images at once
rounds differently, and a descriptor between two words would change its word with its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.arrays import Arrays, fingerprint, npz_bytes, read_npz
from cbir.descriptors.fusion import Floats
from cbir.errors import CbirError

WORDS_FILE = "vocabulary.npz"
FACTS_FILE = "vocabulary.json"


@dataclass(frozen=True)
class Assignment:
    """Words of n descriptors: `words` (n, r) numbers and `weights` (n, r), each row sums to 1."""

    words: NDArray[np.intp]
    weights: Floats


@dataclass(frozen=True)
class Vocabulary:
    """`words` float32 (k, dim), one a row; `idf` float32 (k,), not negative, or None.

    Raises `CbirError` where they are not of these shapes, or not finite.
    """

    words: Floats
    idf: Floats | None = None

    def __post_init__(self) -> None:
        if self.words.ndim != 2 or 0 in self.words.shape:
            raise CbirError(f"a vocabulary's words are rows of numbers, not {self.words.shape}")
        if not np.isfinite(self.words).all():
            raise CbirError("a vocabulary's words hold numbers that are not finite")
        if self.idf is None:
            return
        if self.idf.shape != (self.size,):
            raise CbirError(f"idf of shape {self.idf.shape} does not fit {self.size} words")
        if not (np.isfinite(self.idf).all() and (self.idf >= 0).all()):
            raise CbirError("a vocabulary's idf holds numbers that are negative or not finite")

    @property
    def size(self) -> int:
        """How many words."""
        return len(self.words)

    @property
    def dim(self) -> int:
        """How many numbers a word is."""
        return int(self.words.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 (hex) of words and idf."""
        return fingerprint(self.arrays())

    def arrays(self) -> dict[str, NDArray[np.floating[Any]]]:
        """The arrays by the names that they have in files."""
        return {"words": self.words} | ({} if self.idf is None else {"idf": self.idf})

    def hard(self, descriptors: Floats) -> Assignment:
        """The nearest word (Euclidean; the lower number of two) of `descriptors` (n, dim)."""
        nearest = np.argmin(self._distances(descriptors), axis=1)[:, None]
        return Assignment(nearest, np.ones(nearest.shape, dtype=np.float32))

    def soft(self, descriptors: Floats, nearest: int, sigma: float) -> Assignment:
        """The `nearest` words of each of (n, dim), weighted exp(-distance^2 / (2 sigma^2)).

        `sigma` is in the descriptors' own unit (Philbin et al. 2008).
        """
        distances = self._distances(descriptors)
        rows = np.arange(len(distances))
        words = np.empty((len(distances), min(nearest, self.size)), dtype=np.intp)
        near = np.empty(words.shape, dtype=np.float64)
        for place in range(words.shape[1]):  # for a few words faster than a partition
            words[:, place] = distances.argmin(axis=1)
            near[:, place] = distances[rows, words[:, place]]
            distances[rows, words[:, place]] = np.inf
        # Only differences count, and the nearest word's weight must not vanish.
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
        """Words by share, over a spatial pyramid: (sum of g*g for g in `grids`) * k numbers.

        `points` (n, 2 or more): x, y in an image of `shape` (height, width, ...). Grid g counts
        the words of g x g cells apart, row by row of cells. Levels are weighted as by Lazebnik et
        al. 2006 (finer ones more, 1 in all), so the whole sums to 1, or to 0 without descriptors.
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
        """Histograms (cells * k,) times idf, cell by cell; as they are where there is no idf.

        Their square root (a block's power of 0.5) makes the cosine a Hellinger kernel weighted by
        idf.
        """
        if self.idf is None:
            return histogram
        cells: Floats = histogram.reshape(-1, self.size) * self.idf
        return cells.ravel()

    def vlad(self, descriptors: Floats) -> Floats:
        """Sums of what (n, dim) differ from their words by, each of unit norm: (k * dim,).

        Intra-normalisation: one word's burst does not outweigh the others (Arandjelovic &
        Zisserman 2013). A word without descriptors is zero.
        """
        sums = np.zeros(self.words.shape, dtype=np.float64)
        words = self.hard(descriptors).words[:, 0]
        order = np.argsort(words, kind="stable")
        present, starts = np.unique(words[order], return_index=True)
        # In float64 these sums are exact, so differences that cancel leave no rounding to scale up.
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
        """Squared distances (n, k) less each descriptor's own square, which changes no order."""
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dim:
            raise CbirError(
                f"descriptors of {descriptors.shape[-1]} numbers do not fit a vocabulary whose "
                f"words are of {self.dim}"
            )
        distances: Floats = descriptors @ self.words.T
        np.subtract(self._half_squares, distances, out=distances)
        distances *= 2
        return distances


def cells_of(points: Floats, shape: tuple[int, ...], grid: int) -> NDArray[np.intp]:
    """The cell (n,) of each point (x, y, ...) in `grid` x `grid` cells of an image (h, w, ...)."""
    height, width = shape[:2]
    places = points[:, :2] * (grid / np.array([width, height], dtype=np.float32))
    columns, rows = np.clip(places.astype(np.intp), 0, grid - 1).T
    return np.asarray(rows * grid + columns)


def inverse_document_frequency(histograms: Floats) -> Floats:
    """ln(n / how many of n images have the word), (k,), from histograms (n, k).

    A word of every image says nothing (0); one of no image counts as of one.
    """
    images = np.maximum(np.count_nonzero(histograms, axis=0), 1)
    return np.asarray(np.log(max(1, len(histograms)) / images), dtype=np.float32)


def vocabulary_files(vocabulary: Vocabulary, fitted: Mapping[str, Any]) -> dict[str, bytes]:
    """The vocabulary's files by name, NPZ and JSON; `fitted` says what it was fitted on and how."""
    facts = {
        "words": vocabulary.size,
        "dim": vocabulary.dim,
        "fingerprint": vocabulary.fingerprint,
        "fitted": dict(fitted),
    }
    return {
        WORDS_FILE: npz_bytes(vocabulary.arrays()),
        FACTS_FILE: json.dumps(facts, indent=1).encode(),
    }


def read_vocabulary(files: Mapping[str, bytes]) -> Vocabulary:
    """The vocabulary in `files`; raises `CbirError` where they are damaged or do not agree."""
    missing = {WORDS_FILE, FACTS_FILE} - set(files)
    if missing:
        raise CbirError(f"the vocabulary lacks {', '.join(sorted(missing))}")
    vocabulary = vocabulary_of(read_npz(files[WORDS_FILE], WORDS_FILE), WORDS_FILE)
    try:
        said = json.loads(files[FACTS_FILE])["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise CbirError(f"{FACTS_FILE} is not a vocabulary's: {error}") from error
    if said != vocabulary.fingerprint:
        raise CbirError(f"{WORDS_FILE} is not the vocabulary that {FACTS_FILE} speaks of")
    return vocabulary


def vocabulary_of(arrays: Arrays, what: str) -> Vocabulary:
    """The vocabulary of `words` and, if it is there, `idf` among `arrays`, as float32."""
    if "words" not in arrays:
        raise CbirError(f"{what} lacks 'words'")
    idf = arrays.get("idf")
    return Vocabulary(
        arrays["words"].astype(np.float32, copy=False),
        None if idf is None else idf.astype(np.float32, copy=False),
    )
