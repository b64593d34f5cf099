"""Example queries, as pictures with their hits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from PIL import Image

from cbir.errors import ImageError
from cbir.evaluation.rankings import Hits
from cbir.images.decode import decode
from cbir.report.case import Case
from cbir.report.content import Block, Example, Examples, Shown, ShownHit
from cbir.report.pictures import file_bytes
from cbir.report.statistics import SEED, Floats, Scores

HITS = 10
WORST, BEST, AT_RANDOM = 8, 5, 6
MOST_OF_A_CLASS = 2
FEW_QUERIES = 12
"""Up to this many queries, all are shown."""

_SIDE = 128
_SMALL_SIDE = 96
_JPEG_QUALITY = 82


def example_blocks(case: Case) -> list[Block]:
    """The worst, some random and the best queries of `case`, by its measure."""
    values, hits, measure = case.values, case.hits, case.measure
    if len(values) <= FEW_QUERIES:
        everyone = np.argsort(values, kind="stable")
        groups = [("queries", "All queries", "Worst first.", everyone.tolist())]
    else:
        groups = [
            (
                "worst",
                "The worst queries",
                f"The lowest {measure}, the most confident mistakes first; "
                f"at most {MOST_OF_A_CLASS} per class.",
                lowest_queries(values, hits, WORST, MOST_OF_A_CLASS),
            ),
            (
                "random",
                "Random queries",
                f"Drawn with seed {SEED}: typical results.",
                random_queries(len(values), AT_RANDOM),
            ),
            (
                "best",
                "The best queries",
                f"The highest {measure}, the highest scores first; one per class.",
                lowest_queries(np.negative(values), hits, BEST, 1),
            ),
        ]
    return [
        Examples(name, title, caption, [example(case, q, _figure(case, q)) for q in chosen])
        for name, title, caption, chosen in groups
    ]


def _figure(case: Case, query: int) -> str:
    right, there = case.hits.found[query].sum(), case.hits.retrieved[query].sum()
    return f"{case.measure} {case.values[query]:.3f}, {right} of {there} right"


def lowest_queries(values: Floats, hits: Hits, count: int, each: int) -> list[int]:
    """`count` queries of the lowest value, ties by the highest first score; `each` per class."""
    first: Scores = hits.scores[:, 0] if hits.scores.shape[1] else np.zeros(len(values), np.float32)
    order = np.lexsort((-np.nan_to_num(first, nan=-2.0), values))
    return of_different_classes(order, hits.asked.tolist(), count, each)


def random_queries(queries: int, count: int) -> list[int]:
    """`count` of the queries, drawn with a fixed seed, in order."""
    return sorted(np.random.default_rng(SEED).permutation(queries)[:count].tolist())


def shown(record_id: str, label: str | None, thumbnail: bytes | None) -> Shown:
    """An image for a row of pictures; large thumbnails shrink, damaged ones are left out."""
    try:
        pixels = decode(thumbnail or b"")
    except ImageError:  # the report shows a placeholder
        return Shown(record_id, label, None, small=False)
    side = max(pixels.shape[:2])
    if thumbnail and side <= _SIDE:
        return Shown(record_id, label, thumbnail, small=side <= _SMALL_SIDE)
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    encoded = file_bytes(picture, "JPEG", quality=_JPEG_QUALITY)
    return Shown(record_id, label, encoded, small=False)


def example(case: Case, number: int, figure: str) -> Example:
    """The query with this number and its first hits; `figure` says how good they are."""
    queries, found = case.evaluation.queries, case.matches[number]
    right = case.hits.found[number]
    hits = [
        ShownHit(
            shown(record_id, case.labels[record_id], case.thumbnail(record_id)),
            rank + 1,
            float(score),
            bool(right[rank]),
        )
        for rank, (record_id, score) in enumerate(
            zip(found.ids[:HITS], found.scores[:HITS], strict=True)
        )
    ]
    picture = queries.thumbnails[number] if queries.thumbnails else None
    return Example(shown(queries.ids[number], queries.labels[number], picture), figure, hits)


def of_different_classes(
    order: Iterable[np.intp], classes: Sequence[Hashable], count: int, each: int
) -> list[int]:
    """The first `count` of `order`, at most `each` of a class; `classes` (q,)."""
    taken: Counter[Hashable] = Counter()
    chosen: list[int] = []
    for query in map(int, order):
        if taken[classes[query]] < each:
            taken[classes[query]] += 1
            chosen.append(query)
        if len(chosen) == count:
            break
    return chosen
