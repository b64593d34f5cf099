"""Copy detection: does a search find edited images, and reject images without a copy?

Half of the photos are indexed. The queries are edited photos, an equal number from each half: those
from the indexed half have a copy in the index, the others have none. Every query contributes its
first hit to one list, ordered by confidence. Micro-average precision is the mean, over all queries
with a copy, of the list's precision at their copy (0 if it is missing); recall at 90% precision is
the share of copies in the longest prefix of the list with that precision. Both as in Douze et al.,
"The 2021 Image Similarity Dataset and Challenge" (2021). In ties, wrong hits come first. Confidence
is the score; after verification, the number of inliers, then the score.

    python -m benchmarks copies
    python -m benchmarks.copies --photos FOLDER --descriptor module:attribute --queries 40
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.edits import EDITS
from benchmarks.setting import PHOTOS, photos_archive, row
from cbir.images.decode import load_pixels
from cbir.images.sources import open_source
from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher
from cbir.types import Hit, RgbImage

SEED = 0
PRECISION = 0.9

WAYS = {
    "score": (False, False),
    "verified": (True, False),
    "any orientation": (False, True),
    "both": (True, True),
}
"""Ways to search: `verify` and `any_orientation`."""


@dataclass(frozen=True, slots=True)
class Query:
    """An edited photo, and the id of the indexed photo it was made from, if there is one."""

    pixels: RgbImage
    copied: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The first hit of a query: its confidence, whether it is right, and whether a copy exists."""

    confidence: tuple[float, float]
    right: bool
    has_copy: bool


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table of micro-average precision and recall for every edit and way to search."""
    asked = _options(arguments)
    with half_indexed(asked.photos, asked.descriptor) as (searcher, indexed, others):
        spec, count = searcher.index.spec.short, asked.queries
        print(f"{spec}; {len(indexed)} photos indexed; per edit {count} queries with a copy")
        print(f"and {count} without; the first hit of each counts\n")
        _print_table(_measure(searcher, indexed, others, asked))


@contextmanager
def half_indexed(
    source: str | None, descriptor: str | None
) -> Iterator[tuple[Searcher, dict[str, Image.Image], list[Image.Image]]]:
    """Index a random half of the photos of `source` (None: the archive in CBIR_DATA), losslessly.

    Yields a searcher, the indexed photos by id, and the other photos.
    """
    items = open_source(source or photos_archive()).items()
    photos = [Image.fromarray(load_pixels(item.read())) for item in items]
    Random(SEED).shuffle(photos)
    half = len(photos) // 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        for number, photo in enumerate(photos[:half]):
            photo.save(folder / f"{number:04}.png", compress_level=1)
        indexed = {f"photos/{number:04}.png": photo for number, photo in enumerate(photos[:half])}
        place = f"{folder}.cbir"
        index_images([folder], place, descriptor=descriptor)
        with closing(Searcher.open(place, descriptor)) as searcher:
            yield searcher, indexed, photos[half:]


def micro_average_precision(answers: Sequence[Answer]) -> float:
    """Mean precision of the list at its right hits, over all queries with a copy."""
    right = _right_in_order(answers)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / sum(answer.has_copy for answer in answers))


def recall_at_precision(answers: Sequence[Answer], least: float = PRECISION) -> float:
    """The share of copies in the longest prefix of the list with a precision of `least`."""
    found = np.cumsum(_right_in_order(answers))
    good = found / np.arange(1, len(found) + 1) >= least
    best = found[good].max() if good.any() else 0
    return float(best / sum(answer.has_copy for answer in answers))


def _right_in_order(answers: Sequence[Answer]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    ordered = sorted(answers, key=lambda one: (-one.confidence[0], -one.confidence[1], one.right))
    return np.array([one.right for one in ordered], dtype=np.bool_)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies")
    parser.add_argument("--photos", help=f"a source; default: {PHOTOS} in CBIR_DATA")
    parser.add_argument("--descriptor", help="a name or module:attribute")
    parser.add_argument("--queries", type=int, default=20, help="queries with a copy, per edit")
    parser.add_argument("--ways", default=",".join(WAYS), help="ways to search, of: %(default)s")
    return parser.parse_args(arguments)


def _measure(
    searcher: Searcher,
    indexed: Mapping[str, Image.Image],
    others: Sequence[Image.Image],
    asked: argparse.Namespace,
) -> dict[str, dict[str, list[Answer]]]:
    """Way to search -> edit -> answers."""
    found: dict[str, dict[str, list[Answer]]] = {way: {} for way in asked.ways.split(",")}
    for edit in EDITS:
        queries = _queries(edit, indexed, others, asked.queries)
        for way, answers in found.items():
            started = time.perf_counter()
            verify, turn = WAYS[way]
            hits = [
                searcher.search(query.pixels, k=1, verify=verify, any_orientation=turn)[0]
                for query in queries
            ]
            answers[edit] = [_answer(*pair) for pair in zip(queries, hits, strict=True)]
            each = (time.perf_counter() - started) / len(queries)
            print(f"{edit}, {way}: {each:.2f} s a query", file=sys.stderr, flush=True)
    return found


def _queries(
    edit: str, indexed: Mapping[str, Image.Image], others: Sequence[Image.Image], count: int
) -> list[Query]:
    """Edited photos, with and without a copy in the index; the rest of a collage has none."""
    draw = Random(f"{SEED} {edit}")
    originals: list[tuple[str | None, Image.Image]] = [
        *draw.sample(sorted(indexed.items()), count),
        *((None, photo) for photo in draw.sample(list(others), count)),
    ]
    return [
        Query(np.asarray(EDITS[edit](photo, draw, others)), record_id)
        for record_id, photo in originals
    ]


def _answer(query: Query, first: Hit) -> Answer:
    confidence = (float(first.inliers or 0), first.score)
    return Answer(confidence, first.id == query.copied, query.copied is not None)


def _print_table(found: Mapping[str, Mapping[str, Sequence[Answer]]]) -> None:
    print("| edit | " + " | ".join(f"{way}: µAP | R@P90" for way in found) + " |")
    print("|---" * (1 + 2 * len(found)) + "|")
    for name, edits in (*((edit, (edit,)) for edit in EDITS), ("all", tuple(EDITS))):
        cells = [name]
        for answers in found.values():
            some = [one for edit in edits for one in answers[edit]]
            cells += [f"{micro_average_precision(some):.3f}", f"{recall_at_precision(some):.3f}"]
        print(row(cells))


if __name__ == "__main__":
    main(sys.argv[1:])
