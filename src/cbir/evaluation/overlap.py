"""What queries and index have in common, or lack: it changes what figures mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cbir.evaluation.queries import Queries
from cbir.index.base import Index, Matches

_SAME = 0.9999
"""Only a first hit of at least this score is looked at: the same file has the same vector."""


@dataclass(frozen=True)
class Overlap:
    """Counts of queries, and of indexed images.

    `indexed`: queries that are indexed, each left out of its own answer. `same_file`: queries whose
    first hit is the same file under another id, an easy answer. `alone`: queries of whose label
    there is no other query, so that nothing is relevant to them on the unseen index.
    `unlabelled`: indexed images without a label, which are never right.
    """

    indexed: int
    same_file: int
    alone: int
    unlabelled: int


def overlap_of(index: Index, queries: Queries, matches: Sequence[Matches]) -> Overlap:
    """The overlap of `index` and `queries`, whose answers are `matches`."""
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
