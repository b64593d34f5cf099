"""Chooses the weights of a composed descriptor on labelled images, by leave-one-out among them.

These are training images: the choice must not see the queries of an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.composed import ComposedDescriptor, composed_name
from cbir.descriptors.models import load_descriptor
from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.ingest.describe import Described, Unreadable, describe_items
from cbir.measures.by_class import (
    class_measures,
    class_names,
    encode_labels,
    relevant_counts,
    require_class_measures,
)
from cbir.measures.names import depth
from cbir.measures.significance import mean_intervals
from cbir.training.choose import best_columns
from cbir.training.labelled import LABEL_EVERY_IMAGE, Say, sampled
from cbir.types import OnDone, OnStage, Vectors
from cbir.wording import counted

MEASURE = "nAP@10"
SHOWN = ("nAP@10", "P@10")
LIMIT = 2000
STEPS_OF_TWO, STEPS = 20, 10
"""Steps from weight 0 to 1: for two parts, and for more."""

_SCORES_AT_ONCE = 1 << 22
_NOISE = 1e-9


@dataclass(frozen=True, slots=True)
class WeightsTried:
    """One choice of weights: its name, the means of the measures, and the comparison.

    `difference` is the mean difference to the best single part in the chosen measure, `interval`
    its 95% bootstrap interval over the queries.
    """

    name: str
    weights: tuple[float, ...]
    measures: dict[str, float]
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PartWeights:
    """All weights tried for `parts`, the best of them, and the best single part."""

    parts: tuple[str, ...]
    measure: str
    images: int
    queries: int
    classes: int
    tried: list[WeightsTried]
    best: WeightsTried
    best_single: WeightsTried


def choose_part_weights(
    source: ImageSource,
    names: Sequence[str],
    *,
    measure: str = MEASURE,
    limit: int = LIMIT,
    seed: int = 0,
    say: Say = lambda _: None,
    on_stage: OnStage = lambda _s, _d, _t: None,
) -> PartWeights:
    """Try the weights of the descriptors `names` on at most `limit` random images of `source`.

    Each image is described once and is a query to all others; images with the same label are
    relevant. Weights go in steps of 0.05 for two descriptors, of 0.1 for more. The highest mean of
    `measure` is the best, with as few parts as possible. Raises `CbirError` for unknown
    descriptors and measures, for images without labels, and if no label has two images.
    """
    (wanted,) = require_class_measures([measure])
    measures = list(dict.fromkeys([wanted.name, *SHOWN]))
    composed = _composed(names)
    vectors, labels = _described(source, composed, limit, seed, say, on_stage)
    classes = class_names(labels)
    codes = encode_labels(labels, classes)
    relevant = relevant_counts(codes, codes, np.ones(len(codes), dtype=np.bool_))
    queries = np.flatnonzero(relevant)
    if len(classes) < 2 or not len(queries):
        raise CbirError(
            f"{counted(len(labels), 'image')} with {counted(len(classes), 'label')}: "
            "nothing to compare",
            "give at least two labels, and two images of one of them",
        )
    grid = list(_grid(len(names)))
    blocks = composed.blocks(vectors)
    on_compared = partial(on_stage, "comparing")
    values = _values(blocks, codes, relevant, queries, grid, measures, on_compared)
    tried = _tried(names, grid, values, wanted.name)
    return PartWeights(
        parts=tuple(names),
        measure=wanted.name,
        images=len(labels),
        queries=len(queries),
        classes=len(classes),
        tried=tried,
        best=_best(tried, wanted.name),
        best_single=_best([row for row in tried if max(row.weights) == 1], wanted.name),
    )


def _composed(names: Sequence[str]) -> ComposedDescriptor:
    if len(names) < 2:
        raise CbirError(f"{counted(len(names), 'descriptor')} to weigh", "name two or more")
    parts = [load_descriptor(name) for name in names]
    for part in parts:
        if isinstance(part, ComposedDescriptor):
            raise CbirError(f"{part.spec.name} has weights of its own", "name its parts one by one")
    return ComposedDescriptor(parts, [1 / len(parts)] * len(parts))


def _described(
    source: ImageSource,
    descriptor: ComposedDescriptor,
    limit: int,
    seed: int,
    say: Say,
    on_stage: OnStage,
) -> tuple[Vectors, list[str]]:
    """The vectors and labels of the sampled images that can be read."""
    items = list(sampled(source, limit, seed))
    for item in items:
        if item.label is None:
            raise CbirError(f"{item.location} has no label", LABEL_EVERY_IMAGE)
    vectors: list[Vectors] = []
    labels: list[str] = []
    done = 0
    on_stage("describing", 0, len(items))
    for outcomes in describe_items(items, descriptor):
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                say(f"skipped {outcome.item.location}: {outcome.reason}")
            elif isinstance(outcome, Described) and outcome.item.label is not None:
                vectors.append(outcome.vectors[0])
                labels.append(outcome.item.label)
        done += len(outcomes)
        on_stage("describing", done, len(items))
    if not vectors:
        raise CbirError(f"{source.uri} has no images that can be described")
    return np.stack(vectors), labels


def _grid(parts: int) -> Iterator[tuple[float, ...]]:
    """All weights of that many parts, in equal steps that add up to 1; the first falls."""
    steps = STEPS_OF_TWO if parts == 2 else STEPS

    def shared(left: int, places: int) -> Iterator[tuple[int, ...]]:
        if places == 1:
            yield (left,)
            return
        for first in range(left, -1, -1):
            yield from ((first, *rest) for rest in shared(left - first, places - 1))

    return (tuple(number / steps for number in numbers) for numbers in shared(steps, parts))


def _values(
    blocks: Sequence[Vectors],
    codes: NDArray[np.int32],
    relevant: NDArray[np.int64],
    queries: NDArray[np.intp],
    grid: Sequence[tuple[float, ...]],
    measures: Sequence[str],
    on_done: OnDone,
) -> dict[str, NDArray[np.float64]]:
    """Measure -> values (weights, queries), by leave-one-out among all images."""
    values = {name: np.zeros((len(grid), len(queries))) for name in measures}
    deepest = min(depth(measures) or len(codes), len(codes) - 1)
    at_once = max(1, _SCORES_AT_ONCE // len(codes))
    for start in range(0, len(queries), at_once):
        on_done(start, len(queries))
        places = slice(start, start + at_once)
        rows = queries[places]
        cosines = np.stack([block[rows] @ block.T for block in blocks])
        for number, weights in enumerate(grid):
            scores = np.tensordot(np.asarray(weights, np.float32), cosines, axes=1)
            scores[np.arange(len(rows)), rows] = -np.inf
            ranked = codes[best_columns(scores, deepest)]
            found = class_measures(ranked, codes[rows], relevant[rows], measures)
            for name, of_rows in found.items():
                values[name][number, places] = of_rows
    return values


def _tried(
    names: Sequence[str],
    grid: Sequence[tuple[float, ...]],
    values: dict[str, NDArray[np.float64]],
    measure: str,
) -> list[WeightsTried]:
    singles = [number for number, weights in enumerate(grid) if max(weights) == 1]
    best = max(singles, key=lambda number: values[measure][number].mean())
    differences = values[measure] - values[measure][best]
    intervals = mean_intervals({str(n): row for n, row in enumerate(differences)})
    return [
        WeightsTried(
            name=_name(names, weights),
            weights=weights,
            measures={name: float(of[number].mean()) for name, of in values.items()},
            difference=float(differences[number].mean()),
            interval=intervals[str(number)],
        )
        for number, weights in enumerate(grid)
    ]


def _name(names: Sequence[str], weights: Sequence[float]) -> str:
    used = [(name, weight) for name, weight in zip(names, weights, strict=True) if weight]
    return composed_name([name for name, _ in used], [weight for _, weight in used])


def _best(tried: Sequence[WeightsTried], measure: str) -> WeightsTried:
    highest = max(row.measures[measure] for row in tried)
    equal = [row for row in tried if row.measures[measure] >= highest - _NOISE]
    return min(equal, key=lambda row: sum(weight > 0 for weight in row.weights))
