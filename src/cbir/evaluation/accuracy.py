"""Accuracy of a descriptor's own classifier on the indexed images and on the queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbir.descriptors.cards import Model
from cbir.evaluation.queries import Queries
from cbir.search.searcher import Searcher
from cbir.types import Vectors


def accuracies(searcher: Searcher, queries: Queries) -> dict[str, float | None]:
    """Share of images whose label the model's own classifier finds, of those with a known class.

    "training_images": those indexed from the source that it was trained on; "queries". None where
    there are none of its classes.
    """
    descriptor = searcher.descriptor
    if not isinstance(descriptor, Model):
        return {"training_images": None, "queries": None}
    labels = searcher.index.labels()
    ids, matrix = searcher.index.matrix()
    prefix = descriptor.card.training_prefix
    trained = [row for row, record_id in enumerate(ids) if record_id.startswith(prefix)]
    return {
        "training_images": _accuracy(
            descriptor, matrix[trained], [labels[ids[row]] for row in trained]
        ),
        "queries": _accuracy(descriptor, queries.vectors, queries.labels),
    }


def _accuracy(descriptor: Model, vectors: Vectors, labels: Sequence[str | None]) -> float | None:
    predicted = descriptor.predicted(vectors)
    classes = descriptor.card.classes
    known = np.array([label in classes for label in labels], dtype=np.bool_)
    if predicted is None or not known.any():
        return None
    right = np.array([classes[p] == label for p, label in zip(predicted, labels, strict=True)])
    return float(right[known].mean())
