"""Near-duplicates: which edits of an indexed photo are recognised, and how often other photos are.

Half of the photos are indexed. `cbir evaluate --without-near-duplicates` should leave out queries
that are edits of this half, and keep edits of the other half. Then counts the test images of
CIFAR-10 that are left out, and measures how long that takes.

    python -m benchmarks near_duplicates
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.copies import SEED, half_indexed
from benchmarks.edits import EDITS as STRONGER
from benchmarks.setting import cifar10_index, heading, row
from cbir.evaluation import Queries, describe_queries
from cbir.evaluation.near_duplicates import THRESHOLD, near_duplicates
from cbir.images.sources import open_source
from cbir.images.thumbnails import thumbnail
from cbir.index.base import Index
from cbir.search.searcher import Searcher

Edit = Callable[[Image.Image], Image.Image]


def main() -> None:
    """Print a row per edit, then the count for CIFAR-10."""
    with half_indexed(None, "cifar10-cnn") as (searcher, indexed, others):
        print(f"{len(indexed)} photos indexed, {len(others)} others; threshold {THRESHOLD}\n")
        print(heading(["edit", "of the indexed photos", "of the others"]))
        for name, edit in EDITS.items():
            some = (list(indexed.values()), others)
            shares = [f"{_share(searcher.index, edit, photos):.3f}" for photos in some]
            print(row([name, *shares]), flush=True)
    _cifar10()


def _share(index: Index, edit: Edit, photos: Sequence[Image.Image]) -> float:
    """The share of edited photos recognised as near-duplicates of an indexed photo."""
    names = [f"query {number}" for number in range(len(photos))]
    vectors = np.zeros((len(photos), 1), dtype=np.float32)
    pictures = [thumbnail(None, np.asarray(edit(photo))) for photo in photos]
    asked = Queries(names, [None] * len(photos), vectors, pictures)
    return float(near_duplicates(index, asked).mean())


def _cifar10() -> None:
    with closing(Searcher.open(cifar10_index())) as searcher:
        queries = describe_queries(searcher, open_source("cifar10:test"))
        started = time.perf_counter()
        found = near_duplicates(searcher.index, queries)
        seconds = time.perf_counter() - started
        count = searcher.index.count()
    print(f"\ncifar10:test in cifar10:train: {found.sum()} of {len(found):,}, in {seconds:.1f} s")
    print(f"(n=1, {count:,} images indexed)")


def _keep(share: float) -> Edit:
    """The middle of an image, `share` of its width and of its height."""

    def kept(picture: Image.Image) -> Image.Image:
        left, top = (round(length * (1 - share) / 2) for length in picture.size)
        return picture.crop((left, top, picture.width - left, picture.height - top))

    return kept


def _narrow(share: float) -> Edit:
    """An image without `share` of its width on the left."""

    def narrowed(picture: Image.Image) -> Image.Image:
        return picture.crop((round(picture.width * share), 0, *picture.size))

    return narrowed


def _frame(share: float, colour: str) -> Edit:
    def framed(picture: Image.Image) -> Image.Image:
        return ImageOps.expand(picture, round(max(picture.size) * share), colour)

    return framed


def _turn(degrees: float) -> Edit:
    def turned(picture: Image.Image) -> Image.Image:
        return picture.rotate(degrees, Image.Resampling.BICUBIC)

    return turned


def _stronger(name: str) -> Edit:
    def edited(picture: Image.Image) -> Image.Image:
        return STRONGER[name](picture, Random(SEED), ())

    return edited


def _faded(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(1.2)).enhance(0.6)


def _grey(picture: Image.Image) -> Image.Image:
    return ImageOps.grayscale(picture).convert("RGB")


EDITS: Mapping[str, Edit] = {
    "none": lambda picture: picture,
    "JPEG quality 30": _stronger("JPEG quality 30"),
    "half size": _stronger("half size"),
    "mirrored": ImageOps.mirror,
    "brighter, less contrast": _faded,
    "without colour": _grey,
    "negative": ImageOps.invert,
    "middle, 90 % of each side": _keep(0.9),
    "middle, 85 % of each side": _keep(0.85),
    "middle, 80 % of each side": _keep(0.8),
    "middle, 70 % of each side": _keep(0.7),
    "left tenth cut off": _narrow(0.1),
    "left fifth cut off": _narrow(0.2),
    "white frame, 2 % of the longer side": _frame(0.02, "white"),
    "white frame, 5 %": _frame(0.05, "white"),
    "black frame, 5 %": _frame(0.05, "black"),
    "rotated by 2 degrees": _turn(2),
    "rotated by 5 degrees": _turn(5),
}


if __name__ == "__main__":
    main()
