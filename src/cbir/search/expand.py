"""Query expansion: averages the query with its first hits before a second search.

Average query expansion: Chum et al., "Total Recall", ICCV 2007; the weights: Radenovic et al.,
"Fine-tuning CNN Image Retrieval", TPAMI 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.fusion import unit_rows
from cbir.index.base import Index, Matches
from cbir.search.asking import Asking, Views, first_search
from cbir.search.query import SearchOptions
from cbir.types import Vectors

ALPHA = 3.0


def expand(views: Views, asking: Asking) -> Views:
    """Average each view's vector with its own first `options.expand` hits."""
    exclude = [asking.exclude] * len(views.vectors)
    vectors = expanded(asking.index, views.vectors, asking.options, exclude)
    return replace(views, vectors=vectors)


def expanded(
    index: Index, vectors: Vectors, options: SearchOptions, exclude: Sequence[str | None]
) -> Vectors:
    """Each of `vectors` (q, dim) averaged with the matched parts of its first hits.

    `exclude` (q): the id that is left out of each query's hits. Without expansion in `options`,
    `vectors` unchanged.
    """
    if not options.expand:
        return vectors
    first = first_search(index, vectors, options.expand, options, exclude)
    return np.stack([_expanded(index, v, found) for v, found in zip(vectors, first, strict=True)])


def expanded_query(
    query: NDArray[np.float32], neighbours: Vectors, scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The query vector (dim,) averaged with its nearest neighbours (m, dim), unit norm.

    The weight of a neighbour is its score to the power of ALPHA, 0 for a negative score; that of
    the query is 1.
    """
    weights = np.clip(scores, 0, None).astype(np.float32) ** ALPHA
    mixed = query + weights @ neighbours
    expanded: NDArray[np.float32] = unit_rows(mixed[None].astype(np.float32))[0]
    return expanded


def _expanded(index: Index, vector: NDArray[np.float32], found: Matches) -> NDArray[np.float32]:
    neighbours = [index.vectors(record_id) for record_id in found.ids]
    if not neighbours:
        return vector
    matched = np.stack([parts[np.argmax(parts @ vector)] for parts in neighbours])
    return expanded_query(vector, matched, found.scores)
