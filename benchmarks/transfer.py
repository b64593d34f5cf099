"""A small set of photos: a small network from scratch, or EfficientNet-Lite0 after ImageNet.

600 photos of 20 classes of Caltech-101 train each network; (a) the 200 test photos are queries to
them, (b) the test photos are searched among each other, each left out. Vectors are the embeddings
without the posterior. The mean of three seeds, and their range.

    python -m benchmarks transfer --out FOLDER --jobs 2
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.photos import Photos, answers, read_photos
from benchmarks.runs import Result, Task, options, results, spent
from benchmarks.setting import heading, photos_archive, row
from benchmarks.trained import at_size, trained
from cbir.training.labelled import accuracy
from cbir.training.network.settings import settings_for

SEEDS = 3
MEASURE = "nAP@10"
LITE0 = {"backbone": "efficientnet-lite0", "weights": "pretrained"}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "airbench94, from scratch": {
        "backbone": "airbench94",
        "size": 64,
        "crop": 0.35,
        "epochs": 60,
    },
    "EfficientNet-Lite0, frozen": {**LITE0, "freeze": 1.0, "epochs": 30},
    "EfficientNet-Lite0, fine-tuned": {**LITE0, "layer_decay": 0.75, "crop": 0.35, "epochs": 20},
}
FIGURES = (f"(a) {MEASURE}", f"(b) {MEASURE}", "training accuracy", "test accuracy")


def main(arguments: Sequence[str] = ()) -> None:
    """Run what is missing, and print the table."""
    parser = options("transfer")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY")
    parser.add_argument("--epochs", type=int, help="instead of those of each way")
    asked = parser.parse_args(arguments)
    epochs = {} if asked.epochs is None else {"epochs": asked.epochs}
    tasks = [{**WAYS[way], **epochs, "seed": seed} for way in asked.ways for seed in range(SEEDS)]
    found = results(tasks, asked.out, run, asked.jobs)
    print(f"photos of Caltech-101; {spent(found)}\n")
    print(heading(["network", "input", "epochs", "minutes a seed", *FIGURES]))
    for number, way in enumerate(asked.ways):
        of_way = found[number * SEEDS : (number + 1) * SEEDS]
        minutes = np.mean([result["seconds"] for result in of_way]) / 60
        cost = [str(of_way[0]["size"]), str(tasks[number * SEEDS]["epochs"]), f"{minutes:.1f}"]
        print(row([way, *cost, *(_cell([result[name] for result in of_way]) for name in FIGURES)]))


def run(task: Task) -> Result:
    """Train one network as `task` says, and measure it."""
    photos = _photos()
    test, training = np.flatnonzero(photos.test), np.flatnonzero(~photos.test)
    settings = settings_for(len(training), **task)
    pixels, labels = at_size(photos.images, settings.size), photos.labels.astype(np.int64)
    images = pixels[training], labels[training]
    model = trained(images, len(photos.classes), settings)
    vectors, logits = model.outputs(pixels)
    figures = (
        *(
            float(answers(vectors, photos.labels, test, rows)[MEASURE].mean())
            for rows in (training, test)
        ),
        *(accuracy(logits[rows], labels[rows]) for rows in (training, test)),
    )
    return {"size": settings.size, **dict(zip(FIGURES, figures, strict=True))}


@cache
def _photos() -> Photos:
    return read_photos(photos_archive())


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main(sys.argv[1:])
