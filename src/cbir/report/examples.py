"""Queries worth a look, as pictures with their hits."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.errors import ImageError
from cbir.evaluation import Queries
from cbir.images.decode import decode
from cbir.index.base import Matches
from cbir.report.content import Block, Example, Examples, Shown, ShownHit
from cbir.report.rankings import SEED, Floats, Ranked

HITS = 10
WORST, BEST, AT_RANDOM = 8, 5, 6
MOST_OF_A_CLASS = 2
FEW_QUERIES = 12
"""So many queries are all shown."""

_SIDE = 128
_SMALL_SIDE = 96
_JPEG_QUALITY = 82


def example_blocks(
    queries: Queries,
    matches: Sequence[Matches],
    ranked: Ranked,
    values: Floats,
    measure: str,
    thumbnail: Callable[[str], bytes | None],
) -> list[Block]:
    """The worst, some random and the best queries by `values` (q,) of `measure`.

    `thumbnail` is the encoded picture of a hit's id, None where it has none.
    """
    if len(values) <= FEW_QUERIES:
        everyone = np.argsort(values, kind="stable")
        groups = [("queries", "All queries", "The worst first.", everyone.tolist())]
    else:
        groups = [
            (
                "worst",
                "The worst queries",
                f"The lowest {measure}, the most confident mistakes first; "
                f"at most {MOST_OF_A_CLASS} of a class.",
                worst_queries(values, ranked, WORST),
            ),
            (
                "random",
                "Queries at random",
                f"Drawn with seed {SEED}: what to expect.",
                random_queries(len(values), AT_RANDOM),
            ),
            (
                "best",
                "The best queries",
                f"The highest {measure}, the highest scores first; one of a class.",
                best_queries(values, ranked, BEST),
            ),
        ]
    return [
        Examples(
            name,
            title,
            caption,
            [
                example(
                    queries, matches, ranked, q, _figure(ranked, q, values[q], measure), thumbnail
                )
                for q in chosen
            ],
        )
        for name, title, caption, chosen in groups
    ]


def _figure(ranked: Ranked, query: int, value: float, measure: str) -> str:
    right, all_of_them = ranked.found[query].sum(), ranked.retrieved[query].sum()
    return f"{measure} {value:.3f}, {right} of {all_of_them} right"


def worst_queries(values: Floats, ranked: Ranked, count: int) -> list[int]:
    """`count` queries of the lowest value, among equal ones those of the highest first score."""
    return of_different_classes(
        np.lexsort((-_first_scores(ranked), values)), ranked.asked, count, MOST_OF_A_CLASS
    )


def best_queries(values: Floats, ranked: Ranked, count: int) -> list[int]:
    """`count` queries of the highest value, one of a class, among equal ones by first score."""
    return of_different_classes(
        np.lexsort((-_first_scores(ranked), -values)), ranked.asked, count, 1
    )


def random_queries(queries: int, count: int) -> list[int]:
    """`count` of the queries, drawn with a fixed seed, in order."""
    return sorted(np.random.default_rng(SEED).permutation(queries)[:count].tolist())


def shown(record_id: str, label: str | None, thumbnail: bytes | None) -> Shown:
    """An image for a row of pictures; a large thumbnail is made smaller, a damaged one left out."""
    try:
        pixels = decode(thumbnail or b"")
    except ImageError:  # it is shown that there is none
        return Shown(record_id, label, None, small=False)
    side = max(pixels.shape[:2])
    if thumbnail and side <= _SIDE:
        return Shown(record_id, label, thumbnail, small=side <= _SMALL_SIDE)
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=_JPEG_QUALITY)
    return Shown(record_id, label, target.getvalue(), small=False)


def example(
    queries: Queries,
    matches: Sequence[Matches],
    ranked: Ranked,
    number: int,
    figure: str,
    thumbnail: Callable[[str], bytes | None],
) -> Example:
    """The query of this number with its first hits; `figure` says how good they are."""
    found = matches[number]
    right = ranked.found[number, :HITS]
    hits = [
        ShownHit(
            shown(record_id, _label(ranked, number, rank), thumbnail(record_id)),
            rank + 1,
            float(score),
            bool(right[rank]),
        )
        for rank, (record_id, score) in enumerate(
            zip(found.ids[:HITS], found.scores[:HITS], strict=True)
        )
    ]
    picture = queries.thumbnails[number] if queries.thumbnails else None
    query = shown(queries.ids[number], queries.labels[number], picture)
    return Example(query, figure, hits)


def _label(ranked: Ranked, query: int, rank: int) -> str | None:
    code = int(ranked.labels[query, rank])
    return ranked.classes[code] if code >= 0 else None


def _first_scores(ranked: Ranked) -> NDArray[np.float32]:
    if not ranked.scores.shape[1]:
        return np.zeros(len(ranked.asked), dtype=np.float32)
    return np.nan_to_num(ranked.scores[:, 0], nan=-2.0)


def of_different_classes(
    order: Iterable[np.intp], asked: NDArray[np.int32], count: int, each: int
) -> list[int]:
    """The first `count` of `order`, at most `each` of a class, more only where too few are left."""
    taken: dict[int, int] = {}
    chosen: list[int] = []
    for query in order:
        code = int(asked[query])
        if taken.get(code, 0) < each:
            taken[code] = taken.get(code, 0) + 1
            chosen.append(int(query))
        if len(chosen) == count:
            break
    return chosen
