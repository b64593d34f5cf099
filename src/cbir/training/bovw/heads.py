"""Compares seven classifiers on a recipe's rows, by cross-validated grid search.

All use the same PCA-reduced, standardised rows. kNN and random forests memorise the labels of their
training images, so in an index of those images their posteriors would leak the labels. They are
compared by accuracy only and never become part of a vector.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.training.bovw.linear import KINDS
from cbir.training.bovw.recipes import Recipe
from cbir.training.bovw.rows import Encoder
from cbir.training.bovw.sample import fit_block
from cbir.training.labelled import Labelled, Say
from cbir.types import Floats

FOLDS = 5
FEWEST_TO_COMPARE = 40
"""kNN looks at up to 15 neighbours, and with two folds half of the images are its own."""
DIMS = 128

Labels = NDArray[np.int64]
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class HeadResult:
    """A classifier with its best parameters by cross-validation.

    `precision` and `recall` are means over the classes. `confusion` counts images: rows are true
    classes, columns predicted ones. `seconds` covers the whole grid search. `converged`: whether
    the solver converged with the best parameters. `may_be_head`: whether it can be a head.
    """

    name: str
    accuracy: float
    precision: float
    recall: float
    parameters: Mapping[str, Any]
    confusion: list[list[int]]
    seconds: float
    converged: bool
    may_be_head: bool

    def settings(self) -> str:
        """The parameters as text."""
        text = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
        return text if self.converged else f"{text} (not converged)"


@dataclass(frozen=True)
class _Candidate:
    make: Callable[..., Any]
    grid: Grid


def reduced_rows(
    recipe: Recipe, images: Labelled, seed: int, sample: int | None, say: Say
) -> Floats:
    """The recipe's rows for `images`, reduced by PCA to at most 128 dimensions: (n, dims).

    Vocabularies and PCA are fitted on all images, without labels.
    """
    from sklearn.decomposition import PCA

    arrays = [fit_block(plan, images.images, seed, sample, say) for plan in recipe.plans]
    blocks = [plan.block() for plan in recipe.plans]
    rows = Encoder(blocks, arrays, recipe.size).rows(images.images, say)
    dims = min(DIMS, len(rows) - 1, rows.shape[1])
    say(f"{len(rows):,} images, {rows.shape[1]:,} dimensions, reduced to {dims:,} by PCA")
    reduced: Floats = PCA(dims, svd_solver="full", random_state=seed).fit_transform(rows)
    return reduced


def compare_heads(
    rows: Floats, labels: Labels, *, seed: int = 0, say: Say = lambda _: None
) -> list[HeadResult]:
    """Compare all classifiers on `rows` (n, dims) with `labels` (n,), most accurate first.

    Uses stratified k-fold cross-validation (five folds, or fewer if a class has fewer images).
    Raises `CbirError` if a class has a single image, or there are fewer than 40 images.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        raise CbirError("a class has only one image", "cross-validation needs two per class")
    if len(labels) < FEWEST_TO_COMPARE:
        raise CbirError(
            f"{len(labels)} images are too few to compare classifiers",
            f"give at least {FEWEST_TO_COMPARE}",
        )
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    results = []
    for name, candidate in _candidates(seed).items():
        result = _searched(name, candidate, rows, labels, split)
        say(f"{name}: accuracy {result.accuracy:.4f}, {result.settings()}, {result.seconds:.0f} s")
        results.append(result)
    return sorted(results, key=lambda result: -result.accuracy)


def _searched(
    name: str, candidate: _Candidate, rows: Floats, labels: Labels, split: Any
) -> HeadResult:
    """The candidate with its most accurate parameters; the first in case of ties."""
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    started = time.monotonic()
    tried = []
    for values in product(*candidate.grid.values()):
        parameters = dict(zip(candidate.grid, values, strict=True))
        predicted, converged = _predicted(candidate.make(**parameters), rows, labels, split)
        tried.append((float(accuracy_score(labels, predicted)), parameters, predicted, converged))
    accuracy, parameters, predicted, converged = max(tried, key=lambda one: one[0])
    precision, recall, _, _ = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0.0
    )
    return HeadResult(
        name=name,
        accuracy=accuracy,
        precision=float(precision),
        recall=float(recall),
        parameters=parameters,
        confusion=confusion_matrix(labels, predicted).tolist(),
        seconds=round(time.monotonic() - started, 2),
        converged=converged,
        may_be_head=name in KINDS,
    )


def _predicted(model: Any, rows: Floats, labels: Labels, split: Any) -> tuple[Labels, bool]:
    """The out-of-fold prediction for each image, and whether the solver converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        predicted = cross_val_predict(
            make_pipeline(StandardScaler(), model), rows, labels, cv=split
        )
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return predicted, not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _candidates(seed: int) -> dict[str, _Candidate]:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC

    return {
        "naive-bayes": _Candidate(GaussianNB, {"var_smoothing": (1e-9, 1e-2, 1e-1)}),
        "logistic": _Candidate(
            partial(LogisticRegression, max_iter=500, random_state=seed),
            {"C": (1e-3, 1e-2, 1e-1, 1.0)},
        ),
        "knn": _Candidate(
            partial(KNeighborsClassifier, algorithm="brute"),
            {"n_neighbors": (1, 5, 15), "weights": ("uniform", "distance")},
        ),
        "svm": _Candidate(
            partial(LinearSVC, dual="auto", max_iter=2000, random_state=seed),
            {"C": (1e-4, 1e-3, 1e-2, 1e-1)},
        ),
        "random-forest": _Candidate(
            partial(RandomForestClassifier, n_estimators=200, n_jobs=-1, random_state=seed),
            {"max_features": ("sqrt", 0.2), "min_samples_leaf": (1, 4)},
        ),
        "lda": _Candidate(
            partial(LinearDiscriminantAnalysis, solver="lsqr"),
            {"shrinkage": (1e-3, 1e-2, 1e-1, 0.5)},
        ),
        "ridge": _Candidate(RidgeClassifier, {"alpha": (1.0, 10.0, 100.0, 1000.0)}),
    }
