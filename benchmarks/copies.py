"""Copies: are edited pictures found again, and pictures without a copy told apart from them?

Half of the photos are indexed. Edited photos of that half are the queries with a copy; as many of
the other half, edited in the same ways, have none. Every query contributes its first hit to one
list, ordered by confidence. Micro-average precision is the mean, over all queries with a copy, of
the list's precision where their copy stands in it (0 where it does not); recall at 90% precision
is how many of them stand in the longest list that is right nine times in ten. Both as in Douze et
al., "The 2021 Image Similarity Dataset and Challenge" (2021). Of equal confidences the wrong ones
come first. Confidence is the score; after verification the number of inliers, then the score.

    python -m benchmarks copies
    python -m benchmarks.copies --photos FOLDER --descriptor module:attribute --queries 40
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.edits import EDITS
from cbir.errors import CbirError
from cbir.images.decode import load_pixels
from cbir.images.sources import open_source
from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher
from cbir.types import Hit, RgbImage

PHOTOS = "caltech20-photos.tar"
SEED = 0
PRECISION = 0.9

WAYS = {
    "score": (False, False),
    "verified": (True, False),
    "any orientation": (False, True),
    "both": (True, True),
}
"""How to search: `verify` and `any_orientation`."""


@dataclass(frozen=True, slots=True)
class Query:
    """An edited photo, and the id of the indexed photo that it is a copy of, if there is one."""

    pixels: RgbImage
    copied: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's first hit: how sure, whether it is right, and whether there was a copy to find."""

    confidence: tuple[float, float]
    right: bool
    has_copy: bool


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table of micro-average precision and recall for every edit and way to search."""
    asked = _options(arguments)
    photos = read_photos(asked.photos)
    Random(SEED).shuffle(photos)
    indexed, others = photos[: len(photos) // 2], photos[len(photos) // 2 :]
    with tempfile.TemporaryDirectory() as folder:
        ids = write_photos(indexed, Path(folder) / "photos")
        place = str(Path(folder) / "photos.cbir")
        index_images([Path(folder) / "photos"], place, descriptor=asked.descriptor)
        with closing(Searcher.open(place, asked.descriptor)) as searcher:
            print(
                f"{searcher.index.spec.short}; {len(ids)} photos indexed; per edit {asked.queries}"
            )
            print(
                f"queries with a copy and {asked.queries} without, the first hit of each counts\n"
            )
            _print_table(_measure(searcher, dict(zip(ids, indexed, strict=True)), others, asked))


def read_photos(source: str | None = None) -> list[Image.Image]:
    """Every photo of a source, or of the archive in CBIR_DATA."""
    if source is None:
        place = Path(os.environ.get("CBIR_DATA", ".")) / PHOTOS
        if not place.exists():
            raise CbirError(f"no {PHOTOS}", "set CBIR_DATA to its folder, or name --photos")
        source = str(place)
    return [Image.fromarray(load_pixels(item.read())) for item in open_source(source).items()]


def write_photos(photos: Sequence[Image.Image], folder: Path) -> list[str]:
    """The photos as files without further loss; their ids in the index."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        photo.save(folder / f"{number:04}.png", compress_level=1)
    return [f"{folder.name}/{number:04}.png" for number in range(len(photos))]


def micro_average_precision(answers: Sequence[Answer]) -> float:
    """Mean precision of the list at its right answers, over all queries that have a copy."""
    right = _right_in_order(answers)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / sum(answer.has_copy for answer in answers))


def recall_at_precision(answers: Sequence[Answer], least: float = PRECISION) -> float:
    """The share of copies in the longest beginning of the list that is right in `least` of it."""
    found = np.cumsum(_right_in_order(answers))
    good = found / np.arange(1, len(found) + 1) >= least
    best = found[good].max() if good.any() else 0
    return float(best / sum(answer.has_copy for answer in answers))


def _right_in_order(answers: Sequence[Answer]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    ordered = sorted(answers, key=lambda one: (-one.confidence[0], -one.confidence[1], one.right))
    return np.array([one.right for one in ordered], dtype=np.bool_)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies")
    parser.add_argument("--photos", help=f"a source; without it {PHOTOS} in CBIR_DATA")
    parser.add_argument("--descriptor", help="a name or module:attribute; else the default")
    parser.add_argument("--queries", type=int, default=20, help="with a copy, for each edit")
    parser.add_argument("--ways", default=",".join(WAYS), help="how to search, of: %(default)s")
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
    """Edited photos, with and without a copy in the index; no photo of a collage is indexed."""
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
    for edit in EDITS:
        _print_row(edit, [answers[edit] for answers in found.values()])
    _print_row(
        "all", [[one for edit in EDITS for one in answers[edit]] for answers in found.values()]
    )


def _print_row(name: str, columns: Sequence[Sequence[Answer]]) -> None:
    cells = [
        f"{micro_average_precision(answers):.3f} | {recall_at_precision(answers):.3f}"
        for answers in columns
    ]
    print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
