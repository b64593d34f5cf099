"""Overlaps of index, queries and model that change how to read the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbir.descriptors.cards import Model
from cbir.evaluation.queries import Queries
from cbir.index.base import Index, Matches
from cbir.search.searcher import Searcher
from cbir.types import Vectors

_SAME = 0.9999
"""First hits below this score are not checked: the same file has the same vector."""


@dataclass(frozen=True)
class Overlap:
    """Counts of queries and indexed images that need a caveat.

    `indexed`: queries that are indexed, each left out of its own results. `same_file`: queries
    whose first hit is the same file under another id, an easy match. `alone`: queries whose label
    no other query has, so nothing is relevant to them in leave-one-out. `unlabelled`: indexed
    images without a label, which are never relevant.
    """

    indexed: int
    same_file: int
    alone: int
    unlabelled: int


def overlap_of(index: Index, queries: Queries, matches: Sequence[Matches]) -> Overlap:
    """The overlap of `index` and `queries`, whose results are `matches`."""
    labels = index.labels()
    of_label = Counter(queries.labels)
    suspects = [
        (found.ids[0], content_hash)
        for found, content_hash in zip(matches, queries.hashes, strict=True)
        if found.ids and found.scores[0] >= _SAME and found.ids[0] in labels
    ]
    records = index.records([first for first, _ in suspects]) if suspects else []
    same = zip(records, (content_hash for _, content_hash in suspects), strict=True)
    return Overlap(
        indexed=sum(query in labels for query in queries.ids),
        same_file=sum(record.content_hash == content_hash for record, content_hash in same),
        alone=sum(of_label[label] == 1 for label in queries.labels),
        unlabelled=sum(label is None for label in labels.values()),
    )


def accuracies(searcher: Searcher, queries: Queries) -> dict[str, float | None]:
    """The accuracy of the model's own classifier, over images of its classes.

    "training_images": the images indexed from the source that the model was trained on; "queries".
    None if no image has one of its classes.
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
