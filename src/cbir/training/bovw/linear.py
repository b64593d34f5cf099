"""Heads that are linear maps: ridge, LDA, logistic regression, linear SVM.

All are fitted on standardised rows (mean 0, deviation 1 per column). The standardisation is then
folded into weights and bias: logits = rows @ weights + bias on the original rows. Ridge and LDA
need only the column products, accumulated in batches, so memory holds one matrix of rows and two of
columns x columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.contract import batches
from cbir.errors import CbirError
from cbir.machine import limited_threads
from cbir.types import Floats
from cbir.wording import did_you_mean

BATCH = 2048
ITERATIONS = 1000
_NEVER = -1000.0

Labels = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """`weights` float32 (D, classes) and `bias` (classes,), for rows that are not standardised."""

    weights: Floats
    bias: Floats

    def logits(self, rows: Floats) -> Floats:
        """Class scores (n, classes) of `rows` (n, D)."""
        answers: Floats = rows @ self.weights + self.bias
        return answers


@dataclass(frozen=True)
class Standard:
    """The mean and deviation (D,) of each column; a constant column has deviation 1."""

    mean: Doubles
    deviation: Doubles

    def rows(self, rows: Floats) -> Floats:
        """Scale `rows` (n, D) to mean 0 and deviation 1."""
        standard = rows - self.mean.astype(np.float32)
        standard /= self.deviation.astype(np.float32)
        return standard

    def folded(self, weights: Doubles, bias: Doubles) -> Head:
        """The head for original rows, from weights (D, classes) and bias for standardised rows."""
        plain = weights / self.deviation[:, None]
        return Head(plain.astype(np.float32), (bias - self.mean @ plain).astype(np.float32))


def standard_of(rows: Floats) -> Standard:
    """The mean and deviation of the columns of `rows` (n, D), in float64, in batches."""
    total = np.zeros(rows.shape[1])
    for batch in batches(rows, BATCH):
        total += batch.sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    squares = np.zeros_like(mean)
    for batch in batches(rows, BATCH):
        squares += np.square(batch - mean).sum(axis=0)
    deviation = np.sqrt(squares / len(rows))
    # Rounding gives a constant column a tiny non-zero deviation.
    still = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-12)
    return Standard(mean, np.where(still, 1.0, deviation))


def fit_heads(
    kind: str, rows: Floats, labels: Labels, classes: int, strengths: Sequence[float], seed: int
) -> Iterator[tuple[float, Head]]:
    """Fit a head of `kind` for each of `strengths` on `rows` (n, D) with `labels` (n,).

    Classes missing from `labels` are never predicted. `KINDS` explains the strengths.
    """
    present = np.unique(labels)
    numbers = np.searchsorted(present, labels)
    standard = standard_of(rows)
    fit = KINDS[kind]
    for strength, weights, bias in fit(rows, numbers, standard, strengths, seed):
        head = standard.folded(weights, bias)
        yield strength, _spread(head, present, classes)


def require_kind(name: str) -> str:
    """Return `name` if it is a linear head, else raise `CbirError` with the reason."""
    if name in KINDS:
        return name
    known = f"heads: {', '.join(KINDS)}"
    if name in _NOT_LINEAR:
        raise CbirError(f"'{name}' cannot be a head: {_NOT_LINEAR[name]}", known)
    raise CbirError(f"unknown head '{name}'", did_you_mean(name, [*KINDS, *_NOT_LINEAR], known))


def _ridge(
    rows: Floats, labels: Labels, standard: Standard, strengths: Sequence[float], _seed: int
) -> Iterator[tuple[float, Doubles, Doubles]]:
    """Least squares on targets -1 and 1 with an L2 penalty (Hoerl & Kennard 1970).

    A strength is the penalty divided by the number of rows.
    """
    targets = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    products = _products(rows, standard)
    bias = targets.mean(axis=0)
    wanted = _columns_times(rows, standard, targets - bias)
    for strength in strengths:
        yield strength, _solved(products, strength * len(rows), wanted), bias


def _lda(
    rows: Floats, labels: Labels, standard: Standard, strengths: Sequence[float], _seed: int
) -> Iterator[tuple[float, Doubles, Doubles]]:
    """Linear discriminant analysis with a shrunk covariance (Fisher 1936; Friedman 1989).

    A strength is the share of the mean variance in the within-class covariance.
    """
    counts = np.bincount(labels).astype(np.float64)
    member = (labels[:, None] == np.arange(len(counts))).astype(np.float64)
    means = _columns_times(rows, standard, member / counts)
    within = _products(rows, standard)
    within -= (means * counts) @ means.T
    within /= len(rows)
    level = np.trace(within) / len(within)
    if not level > 0:
        raise CbirError(
            "lda needs images that differ within a class",
            "use larger images with more detail, or --head ridge",
        )
    for strength in strengths:
        # (1 - s) W + s level I, divided by 1 - s: the same solution up to that factor.
        weights = _solved(within, strength * level / (1 - strength), means) / (1 - strength)
        bias = np.log(counts / len(rows)) - 0.5 * np.sum(weights * means, axis=0)
        yield strength, weights, bias


def _logistic(
    rows: Floats, labels: Labels, standard: Standard, strengths: Sequence[float], seed: int
) -> Iterator[tuple[float, Doubles, Doubles]]:
    """Multinomial logistic regression by L-BFGS; a strength is 1 / (C x rows)."""
    from sklearn.linear_model import LogisticRegression

    ready = standard.rows(rows)
    model = LogisticRegression(max_iter=ITERATIONS, random_state=seed, warm_start=True)
    for strength in sorted(
        strengths, reverse=True
    ):  # warm start from the previous, more regularised one
        model.set_params(C=1 / (strength * len(rows)))
        yield strength, *_two_sided(model.fit(ready, labels))


def _svm(
    rows: Floats, labels: Labels, standard: Standard, strengths: Sequence[float], seed: int
) -> Iterator[tuple[float, Doubles, Doubles]]:
    """One-vs-rest linear SVMs with squared hinge loss; a strength is 1 / (C x rows)."""
    from sklearn.svm import LinearSVC

    ready = standard.rows(rows)
    for strength in strengths:
        model = LinearSVC(
            C=1 / (strength * len(rows)), dual="auto", max_iter=ITERATIONS, random_state=seed
        )
        yield strength, *_two_sided(model.fit(ready, labels))


_Fit = Callable[
    [Floats, Labels, Standard, Sequence[float], int], Iterator[tuple[float, Doubles, Doubles]]
]

KINDS: Mapping[str, _Fit] = {
    "ridge": _ridge,
    "lda": _lda,
    "logistic": _logistic,
    "svm": _svm,
}

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "ridge": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "lda": (1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "logistic": (1e-3, 1e-2, 1e-1),
    "svm": (1e-1, 1.0, 10.0),
}
"""The default strengths to try."""

_MEMORY = "it memorises its training labels, so an index of those images would leak them"
_NOT_LINEAR = {
    "knn": _MEMORY,
    "random-forest": _MEMORY,
    "naive-bayes": "it is not a linear map",
}


def _products(rows: Floats, standard: Standard) -> Doubles:
    """The products (D, D) of the standardised columns; only the lower triangle is valid.

    Multiplies each batch in float32 and accumulates in float64.
    """
    from scipy.linalg.blas import ssyrk

    total = np.zeros((rows.shape[1], rows.shape[1]), order="F")
    for batch in batches(rows, BATCH):
        # The transposed batch is already in column order, which saves BLAS a copy.
        total += ssyrk(1.0, standard.rows(batch).T, lower=1)
    return total


def _columns_times(rows: Floats, standard: Standard, targets: Doubles) -> Doubles:
    """Standardised columns times `targets` (n, m): (D, m)."""
    total = np.zeros((rows.shape[1], targets.shape[1]))
    for some, wanted in zip(batches(rows, BATCH), batches(targets, BATCH), strict=True):
        total += standard.rows(some).T @ wanted.astype(np.float32)
    return total


def _solved(products: Doubles, added: float, wanted: Doubles) -> Doubles:
    """(products + added I)^-1 wanted, by Cholesky; `products` from `_products`."""
    from scipy.linalg import cho_factor, cho_solve

    system = products.copy(order="F")
    system[np.diag_indices_from(system)] += added
    # OpenBLAS's multi-threaded Cholesky crashes from about 18,000 columns on.
    with limited_threads():
        factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    solution: Doubles = cho_solve(factor, wanted, check_finite=False)
    return solution


def _two_sided(model: Any) -> tuple[Doubles, Doubles]:
    """Weights (D, classes) and bias of a scikit-learn model (one column for two classes)."""
    weights, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if weights.shape[1] == 1:
        return np.hstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias


def _spread(head: Head, present: Labels, classes: int) -> Head:
    """Extend `head` from the `present` classes to all; the others are never predicted."""
    weights = np.repeat(head.weights.mean(axis=1, keepdims=True), classes, axis=1)
    bias = np.full(classes, head.bias.mean() + _NEVER, dtype=np.float32)
    weights[:, present], bias[present] = head.weights, head.bias
    return Head(weights, bias)
