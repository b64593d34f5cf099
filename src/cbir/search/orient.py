"""Search in any orientation: rotates and mirrors the query, and keeps each record's best score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbir.index.base import Matches
from cbir.search.asking import Asking, Views
from cbir.types import RgbImage

ORIENTATIONS = (
    *("as it is", "turned 90", "turned 180", "turned 270"),
    *("mirrored", "mirrored, turned 90", "mirrored, turned 180", "mirrored, turned 270"),
)
"""The transformation of the query: mirrored left to right, then rotated counter-clockwise."""


def orient(views: Views, asking: Asking) -> Views:
    """Add the vectors of the query's seven other orientations."""
    if not asking.options.any_orientation:
        return views
    others = asking.describe(in_every_orientation(asking.pixels)[1:])
    return Views(np.concatenate([views.vectors, others]), best_orientations)


def in_every_orientation(image: RgbImage) -> list[RgbImage]:
    """The eight orientations of an RGB picture (height, width, 3), in order of `ORIENTATIONS`."""
    return [
        np.ascontiguousarray(np.rot90(seen, quarter))
        for seen in (image, image[:, ::-1])
        for quarter in range(4)
    ]


def best_orientations(answers: Sequence[Matches], k: int) -> tuple[Matches, list[str]]:
    """The k best records over a query's eight orientations, and which one found each.

    `answers`: the k best for each of `ORIENTATIONS`. A record's score is its best over them; the
    first orientation wins ties. Order: score descending, then id ascending in byte order. This is
    exact at the cut-off: a record among the k best overall is among the k best of its best
    orientation.
    """
    found = sorted(
        (-score, record_id.encode(), which, place)
        for which, answer in enumerate(answers)
        for place, (record_id, score) in enumerate(
            zip(answer.ids, answer.scores.tolist(), strict=True)
        )
    )
    best: dict[bytes, tuple[int, int]] = {}
    for _, record_id, which, place in found:
        best.setdefault(record_id, (which, place))
    chosen = list(best.values())[:k]
    scores = [answers[which].scores[place] for which, place in chosen]
    return (
        Matches(
            [answers[which].ids[place] for which, place in chosen],
            np.array(scores, dtype=np.float32),
            [answers[which].boxes[place] for which, place in chosen],
        ),
        [ORIENTATIONS[which] for which, _ in chosen],
    )
