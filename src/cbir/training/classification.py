"""Predicted classes of labelled images: the confusion matrix, and precision and recall by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.cards import ModelCard
from cbir.errors import CbirError
from cbir.types import Floats

CLASSIFICATION = "classification"
"""Its key in the `training` of a model card."""


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 (0..1) of a class; `support` is the number of its images."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Classification:
    """The confusion matrix and the classification report of a set of images.

    `confusion`: true label -> predicted label -> number of images, without zeros. `by_class`: label
    -> scores. Both are in the order of the classes, without those that have no image.
    """

    confusion: Mapping[str, Mapping[str, int]]
    by_class: Mapping[str, ClassScores]

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(scores.support for scores in self.by_class.values())

    @property
    def mean_f1(self) -> float:
        """The mean F1 of the classes (macro F1)."""
        return float(np.mean([scores.f1 for scores in self.by_class.values()]))

    def counts(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """The confusion matrix, int64 (classes, classes): rows are true, columns predicted."""
        rows = [self.confusion.get(label, {}) for label in classes]
        return np.array([[row.get(label, 0) for label in classes] for row in rows], np.int64)

    def best_first(self) -> list[str]:
        """The classes with images, highest F1 first."""
        return sorted(self.by_class, key=lambda label: -self.by_class[label].f1)

    def most_confused(self, most: int) -> list[tuple[str, str, float]]:
        """The `most` frequent confusions: true label, predicted label, share of the true class."""
        wrong = [
            (label, predicted, count / self.by_class[label].support)
            for label, row in self.confusion.items()
            for predicted, count in row.items()
            if predicted != label
        ]
        return sorted(wrong, key=lambda pair: -pair[2])[:most]

    def to_json(self) -> dict[str, Any]:
        """The value of `CLASSIFICATION` in a card."""
        return asdict(self)


def classification(
    logits: Floats, labels: NDArray[np.int64], classes: Sequence[str]
) -> Classification:
    """The classification of images with `logits` (n, classes) and true class numbers (n,)."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = logits.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    present = np.unique(labels).tolist()
    scores = precision_recall_fscore_support(labels, predicted, labels=present, zero_division=0.0)
    return Classification(
        {
            classes[number]: {c: int(n) for c, n in zip(classes, counts[number], strict=True) if n}
            for number in present
        },
        {classes[n]: _scores(*of_class) for n, *of_class in zip(present, *scores, strict=True)},
    )


def classification_of(card: ModelCard) -> Classification | None:
    """The classification in `card`, None if it has none; raises `CbirError` if it is damaged."""
    stored = card.training.get(CLASSIFICATION)
    if stored is None:
        return None
    try:
        found = Classification(
            {
                label: {predicted: int(count) for predicted, count in row.items()}
                for label, row in stored["confusion"].items()
            },
            {
                label: _scores(one["precision"], one["recall"], one["f1"], one["support"])
                for label, one in stored["by_class"].items()
            },
        )
        sums = {label: sum(row.values()) for label, row in found.confusion.items()}
        if sums != {label: scores.support for label, scores in found.by_class.items()}:
            raise ValueError("its sums differ")
        named = set(found.confusion).union(*found.confusion.values())
        if not found.images or not named <= set(card.classes):
            raise ValueError("its labels are not the model's classes")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CbirError(
            f"the card of {card.name} has a damaged '{CLASSIFICATION}': {error}",
            "restore the model's files",
        ) from error
    return found


def _scores(precision: float, recall: float, f1: float, support: int) -> ClassScores:
    def share(value: float) -> float:
        return round(float(value), 5)

    return ClassScores(share(precision), share(recall), share(f1), int(support))
