"""Second looks at a ranking: query expansion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.fusion import unit_rows
from cbir.types import Vectors

ALPHA = 3.0


def expanded_query(
    query: NDArray[np.float32], neighbours: Vectors, scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The query vector (dim,) averaged with its nearest neighbours (m, dim), unit norm.

    Each neighbour weighs its score to the power of ALPHA, the query itself 1; neighbours of
    negative score weigh nothing. Average query expansion: Chum et al., "Total Recall", ICCV 2007;
    the weights: Radenovic et al., "Fine-tuning CNN Image Retrieval", TPAMI 2019.
    """
    weights = np.clip(scores, 0, None).astype(np.float32) ** ALPHA
    mixed = query + weights @ neighbours
    expanded: NDArray[np.float32] = unit_rows(mixed[None].astype(np.float32))[0]
    return expanded
