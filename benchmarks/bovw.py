"""Every Bag-of-Visual-Words recipe on CIFAR-10, end to end: fit, index, search, measure.

`train_bovw` fits each on the 50,000 training images (a tenth held out for choices), and CBIR_HOME
keeps the model for the next run. Then the training images are indexed, and all 10,000 test images
are searched for exactly, in the index and in leave-one-out. Slow, so it runs only if named.

    python -m benchmarks bovw
    python -m benchmarks bovw --recipes seed-histogram-hog seed-hog-sift seed-all
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.setting import heading, images_per_second, kept, row
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.models import load_descriptor
from cbir.evaluation import Evaluation, evaluate
from cbir.files import write_files
from cbir.images.decode import load_pixels
from cbir.images.sources import open_source
from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher
from cbir.training.bovw.fit import train_bovw
from cbir.training.bovw.recipes import RECIPES, Recipe

SHIPPED = ("cifar10-bovw", "cifar10-bovw:embedding")
ELSEWHERE = ("best", "classic", "words")
"""Recipes not fitted here: shipped, for photos, for inverted indexes."""
TIMED = 1000
COLUMNS = (
    "descriptor",
    "dimensions",
    "images/s/core",
    "nAP@100",
    "AP@100",
    "leave-one-out nAP@100",
    "P@10",
    "accuracy, training / test",
)

FORM = 2
"""Counts changes of what `train_bovw` makes of a recipe, so that kept models are fitted again."""


def main(arguments: Sequence[str] = ()) -> None:
    """Print the tables of the documentation, each row as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bovw")
    here = [name for name in RECIPES if name not in ELSEWHERE]
    parser.add_argument("--recipes", nargs="+", choices=here, help="only these, nothing shipped")
    chosen = parser.parse_args(arguments).recipes
    print(f"\n{heading(COLUMNS)}", flush=True)
    for name in () if chosen else SHIPPED:
        _measure(name, load_descriptor(name))
    for name in chosen or here:
        _measure(name, load_descriptor(str(_fitted(RECIPES[name]))))
    print(f"\nimages/s/core: decoded images a second of processor time, n={TIMED:,}")


def _fitted(recipe: Recipe) -> Path:
    """The folder of the recipe's model, fitted if it is missing."""
    folder = Path(kept("benchmarks", "bovw", f"{recipe.name}-{FORM}"))
    if not (folder / "model.json").exists():
        write_files(train_bovw(open_source("cifar10:train"), recipe.name, recipe), folder)
    return folder


def _measure(name: str, descriptor: Descriptor) -> None:
    place = kept("benchmarks", "bovw", "measured.cbir")
    shutil.rmtree(place, ignore_errors=True)
    try:
        index_images(["cifar10:train"], place, descriptor=descriptor)
        with closing(Searcher.open(place, descriptor)) as searcher:
            result = evaluate(searcher, open_source("cifar10:test"))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    items = list(open_source("cifar10:test").items())[:: 10_000 // TIMED][:TIMED]
    images = [load_pixels(item.read()) for item in items]
    speed = f"{images_per_second(descriptor, images):,.0f}"
    print(row([name, str(descriptor.spec.dim), speed, *_figures(result)]), flush=True)


def _figures(result: Evaluation) -> list[str]:
    measures, unseen = result.measures, result.unseen_index or {}
    accuracy = result.accuracy or {}
    parts = ("training_images", "queries")
    known = [value for part in parts if (value := accuracy.get(part)) is not None]
    return [
        f"{measures['nAP@100']:.3f}",
        f"{measures['AP@100']:.4f}",
        f"{unseen['nAP@100']:.3f}" if unseen else "-",
        f"{measures['P@10']:.3f}",
        " / ".join(f"{value:.3f}" for value in known) or "-",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
