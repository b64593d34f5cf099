"""Compares vocabulary sizes by mini-batch k-means and the Davies-Bouldin index.

Davies & Bouldin 1979: the mean over words of the largest ratio between the summed spreads of two
words and their distance; lower is better. Measured on held-out descriptors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.vocabulary import Vocabulary
from cbir.errors import CbirError
from cbir.training.bovw.recipes import Plan, Recipe
from cbir.training.bovw.sample import fit_words, sample_local
from cbir.training.labelled import Say
from cbir.types import Floats, RgbImage

HELD_OUT = 0.2
AT_ONCE = 10_000


@dataclass(frozen=True)
class SweepRow:
    """A vocabulary size, its index, its words without held-out descriptors, and the seconds."""

    words: int
    davies_bouldin: float
    unused_words: int
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """The sizes tried, the block's feature, and the numbers of local descriptors used."""

    feature: str
    rows: tuple[SweepRow, ...]
    fitted_on: int
    measured_on: int
    seed: int

    @property
    def best(self) -> SweepRow:
        """The vocabulary size with the lowest index."""
        return min(self.rows, key=lambda row: row.davies_bouldin)

    def to_json(self) -> dict[str, Any]:
        """The content of the JSON file and `--json`."""
        return {**asdict(self), "best": self.best.words, "lower_is_better": True}


def words_plan(recipe: Recipe) -> Plan:
    """The recipe's first block of visual words; raises `CbirError` if it has none."""
    for plan in recipe.plans:
        if plan.words is not None:
            return plan
    raise CbirError(
        f"recipe '{recipe.name}' has no vocabulary to sweep", "try --recipe seed or dense"
    )


def sweep(
    plan: Plan,
    images: Sequence[RgbImage],
    sizes: Sequence[int],
    *,
    seed: int = 0,
    sample: int | None = None,
    say: Say = lambda _: None,
) -> Sweep:
    """Fit a vocabulary of each of `sizes` to the local descriptors of prepared `images`.

    Takes at most `sample` descriptors (None: the plan's limit); a fifth is held out.
    """
    assert plan.words is not None
    found = sample_local(plan.block(), images, sample or plan.words.sample, seed)
    held, used = np.split(found, [round(len(found) * HELD_OUT)])
    if len(held) <= max(sizes):
        raise CbirError(
            f"{len(held):,} held-out local descriptors are too few for {max(sizes):,} words",
            "give more images, or smaller --sizes",
        )
    rows = []
    for size in sizes:
        started = time.monotonic()
        words = fit_words(used, size, seed)
        index, unused = davies_bouldin(held, words)
        rows.append(SweepRow(size, round(index, 5), unused, round(time.monotonic() - started, 2)))
        say(f"{size:,} words: Davies-Bouldin index {index:.4f}, {rows[-1].seconds:.1f} s")
    return Sweep(plan.feature, tuple(rows), len(used), len(held), seed)


def davies_bouldin(descriptors: Floats, words: Floats) -> tuple[float, int]:
    """The index of `descriptors` (n, dim) by nearest word, and the number of unused words."""
    from sklearn.metrics import davies_bouldin_score

    vocabulary = Vocabulary(words)
    parts = np.array_split(descriptors, -(-len(descriptors) // AT_ONCE))
    labels: NDArray[np.intp] = np.concatenate([vocabulary.hard(p).words[:, 0] for p in parts])
    used = len(np.unique(labels))
    if used < 2:
        raise CbirError("all local descriptors have the same word", "give more or different images")
    return float(davies_bouldin_score(descriptors, labels)), len(words) - used
