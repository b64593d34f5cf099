"""Writes docs/leaderboard.md: every shipped descriptor on CIFAR-10 and photos, all protocols.

    python -m benchmarks leaderboard
    python -m benchmarks.leaderboard --only classic --data photos --output FILE

CBIR_HOME keeps the indexes between runs. Slow, so it runs only if named.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.setting import (
    form_of_cifar10,
    heading,
    images_per_second,
    kept,
    median_ms,
    photos_archive,
    row,
    software,
)
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.models import load_descriptor
from cbir.evaluation import Evaluation, evaluate
from cbir.evaluation.near_duplicates import near_duplicates
from cbir.images.decode import load_pixels
from cbir.images.items import ImageSource, SourceItem
from cbir.images.sources import open_source
from cbir.ingest.indexing import index_images
from cbir.machine import processor
from cbir.search.searcher import Searcher
from cbir.types import RgbImage

Found = NDArray[np.bool_]

DESCRIPTORS = (
    "cifar10-cnn",
    "cifar10-cnn:embedding",
    "cifar10-cnn-large",
    "cifar10-cnn-large:embedding",
    "cifar10-ensemble",
    "cifar10-bovw",
    "cifar10-bovw:embedding",
    "classic",
)
FOR_PHOTOS = (
    "efficientnet-lite0-int8",
    "efficientnet-lite2-int8",
    "efficientnet-lite2-int8+classic:0.25",
)
"""Descriptors of packaged weights, measured on photos alone."""

BITS = 64
DESCRIBED = 1000
"""Images, spread over the queries, for measuring the speed of describing."""
ASKED = 100
TARGET = Path(__file__).parent.parent / "docs" / "leaderboard.md"


@dataclass(frozen=True)
class DataSet:
    """Images to index, query images, the cut-off of nAP, and the kind of pixels."""

    name: str
    title: str
    indexed: ImageSource
    queries: ImageSource
    cutoff: int
    pixels: str

    @property
    def nap(self) -> str:
        return f"nAP@{self.cutoff}"


@dataclass
class Part:
    """The items of `whole` whose key begins with `scope`."""

    whole: ImageSource
    scope: str
    descriptor: str | None = None
    ignored: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.name, self.uri = self.whole.name, self.whole.uri

    @property
    def count(self) -> int | None:
        return None

    def items(self) -> Iterator[SourceItem]:
        return (item for item in self.whole.items() if item.key.startswith(self.scope))

    def open(self, location: str) -> bytes | RgbImage:
        return self.whole.open(location)


def data_sets(names: Sequence[str]) -> Iterator[DataSet]:
    """The data sets called `names`; raises `CbirError` if the photos are missing."""
    if "cifar10" in names:
        yield DataSet(
            "cifar10",
            "CIFAR-10: 10,000 test images as queries, 50,000 training images indexed",
            open_source("cifar10:train"),
            open_source("cifar10:test"),
            100,
            form_of_cifar10(),
        )
    if "photos" in names:
        whole = open_source(photos_archive(), label_from_folder=True)
        yield DataSet(
            "photos",
            "Photos: 200 test photos of 20 Caltech-101 classes as queries, 600 indexed",
            Part(whole, "train/"),
            Part(whole, "test/"),
            10,
            "original files",
        )


QUALITY = (
    "descriptor",
    "{nap}, usual",
    "{nap}, leave-one-out",
    "P@10, usual",
    "P@10, leave-one-out",
    "AP, usual",
    "AP, leave-one-out",
    "64-bit AP, usual",
    "64-bit AP, leave-one-out",
    "{nap}, no near-duplicates",
    "accuracy, training / test",
    "fitted on",
    "input",
    "pixels",
)
COST = (
    "descriptor",
    "dimensions",
    "bytes per vector",
    "bytes on disk per image",
    "images/s per core",
    "ms per query",
)


def main(
    descriptors: Sequence[str] = (*DESCRIPTORS, *FOR_PHOTOS),
    data: Sequence[str] = ("cifar10", "photos"),
    target: Path = TARGET,
) -> None:
    """Measure and write the page; print each row as soon as it is measured."""
    sections = []
    for data_set in data_sets(data):
        quality, cost = [], []
        alike: Found | None = None  # depends only on the pictures: the same for all descriptors
        for name in descriptors:
            if name in FOR_PHOTOS and data_set.name != "photos":
                continue
            better, dearer, alike = _measured(data_set, name, alike)
            print(f"{row(better)}\n{row(dearer)}", flush=True)
            quality.append(better)
            cost.append(dearer)
        sections.append(_section(data_set, quality, cost, alike))
    target.write_text("\n".join([_head(), *sections]), encoding="utf-8")
    print(f"written: {target}")


def _measured(
    data_set: DataSet, name: str, alike: Found | None
) -> tuple[list[str], list[str], Found]:
    """The rows of one descriptor, and which queries have a near-duplicate (`alike`, if known)."""
    descriptor = load_descriptor(name)
    place = _place(data_set, descriptor)
    index_images([data_set.indexed], place, descriptor=descriptor)
    with closing(Searcher.open(place)) as searcher:
        result = evaluate(searcher, data_set.queries, [data_set.nap, "P@10", "AP"], bits=BITS)
        if alike is None:
            alike = near_duplicates(searcher.index, result.queries)
        unlike = float(result.per_query[data_set.nap][~alike].mean())
        quality = _quality(data_set, name, descriptor, result, unlike)
        return quality, _cost(data_set, name, searcher), alike


def _place(data_set: DataSet, descriptor: Descriptor) -> str:
    name = f"{data_set.name}-{descriptor.spec.fingerprint[:8]}.cbir"
    return kept("benchmarks", "leaderboard", name)


def _input(descriptor: Descriptor) -> str:
    """The size of the pictures that the descriptor, or each of its parts, looks at."""
    told = descriptor.spec.preprocessing
    sizes = [str(told[name]).partition(", Pillow")[0] for name in told if name.endswith("resize")]
    return " and ".join(sizes)


def _quality(
    data_set: DataSet, name: str, descriptor: Descriptor, result: Evaluation, unlike: float
) -> list[str]:
    assert result.unseen_index is not None and result.hamming is not None
    coded = result.hamming.means
    usual, unseen = result.measures, result.unseen_index
    figures = [usual[data_set.nap], unseen[data_set.nap], usual["P@10"], unseen["P@10"]]
    figures += [usual["AP"], unseen["AP"], coded["usual"]["AP"], coded["unseen"]["AP"], unlike]
    accuracy = result.accuracy or {}
    known = [accuracy.get(part) for part in ("training_images", "queries")]
    same = "; they are indexed" if result.training_images_indexed else ""
    return [
        name,
        *(f"{figure:.3f}" for figure in figures),
        " / ".join(f"{share:.3f}" for share in known if share is not None) or "-",
        f"{result.trained_on}{same}",
        _input(descriptor),
        data_set.pixels,
    ]


def _cost(data_set: DataSet, name: str, searcher: Searcher) -> list[str]:
    items = list(data_set.queries.items())
    images = [load_pixels(item.read()) for item in items[:: -(-len(items) // DESCRIBED)]]
    files = iter(item.read() for item in items[:: -(-len(items) // ASKED)])
    asked = list(islice(files, ASKED))
    next_query = iter([asked[0], *asked])
    milliseconds = median_ms(lambda: searcher.search(next(next_query), k=10), len(asked))
    facts = searcher.index.info()
    return [
        name,
        f"{facts['dim']:,}",
        f"{4 * facts['dim']:,}",
        f"{facts['bytes'] / facts['count']:,.0f}",
        f"{images_per_second(searcher.descriptor, images):,.0f}",
        f"{milliseconds:.1f}",
    ]


def _head() -> str:
    return f"""# Leaderboard

Written by `python -m benchmarks leaderboard` on {time.strftime("%d %B %Y")}: {processor()},
{software()}.

An indexed image is relevant if it has the query's class. Search is exact.
[evaluation.md](evaluation.md) defines the measures and protocols.

- *usual*: the test images are the queries, the training images are indexed.
- *leave-one-out*: the test images are searched among each other, each left out of its own results.
- *fitted on*: the training data of a descriptor, and whether the usual protocol searches these
  images. If so, its figures there are partly memorisation; those of leave-one-out are not.
- *AP* reads the whole ranking.
- *{BITS}-bit*: vectors as binary codes of {BITS} bits (ITQ, fitted on the indexed vectors without
  labels), ranked by Hamming distance over everything, with ties in a seeded order.
- *no near-duplicates*: the usual protocol without queries that have a near-duplicate in the index.
- *bytes on disk per image* includes its thumbnail and a share of the model.
- *images/s per core*: per second of processor time, images decoded beforehand (n={DESCRIBED:,}, or
  all).
- *ms per query*: one file is decoded, described and searched for, and its ten hits are read
  (median, n={ASKED}).
"""


def _section(
    data_set: DataSet,
    quality: Sequence[list[str]],
    cost: Sequence[list[str]],
    alike: Found | None,
) -> str:
    columns = [column.format(nap=data_set.nap) for column in QUALITY]
    lines = [
        f"## {data_set.title}",
        "",
        f"{0 if alike is None else alike.sum()} queries have a near-duplicate.",
        "",
    ]
    lines += [heading(columns), *map(row, quality), "", heading(COST), *map(row, cost), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    everything = (*DESCRIPTORS, *FOR_PHOTOS)
    options.add_argument("--only", nargs="+", default=everything, help="descriptors")
    options.add_argument("--data", nargs="+", default=("cifar10", "photos"))
    options.add_argument("--output", type=Path, default=TARGET)
    chosen = options.parse_args()
    main(chosen.only, chosen.data, chosen.output)
