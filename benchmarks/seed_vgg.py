"""VGG-16 as the system that this project follows used it: its embedding and a class, as a vector.

VGG-16 with batch norm is trained on some images of CIFAR-10 at 32x32 pixels, from random weights
unless others are given. Its last hidden layer (4,096 dimensions) is projected to 2,000 by PCA, and
a one-hot class is put beside it: the network's own prediction, for indexed images and queries
alike. That system put the true class into the vectors of indexed images. Rows that do the same are
marked and are no results: their index contains the answers.

    python -m benchmarks seed_vgg --out FOLDER
    python -m benchmarks seed_vgg --images 400 --epochs 1 --indexed 400 --queries 400

A checkpoint in the folder (1.6 GB, removed at the end) lets the same command resume.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval import leave_one_out, read_split, usual
from benchmarks.runs import Result, Task, options, results, spent
from benchmarks.setting import form_of_cifar10, heading, row
from benchmarks.trained import sample
from cbir.descriptors.fusion import fuse, principal_components, unit_rows
from cbir.training.labelled import HELD_OUT, accuracy
from cbir.training.network.loop import train
from cbir.training.network.prediction import predict
from cbir.training.network.settings import settings_for
from cbir.training.network.state import EpochResult
from cbir.types import Floats, Vectors
from cbir.wording import counted

BACKBONE, SIZE, DIMS, CLASSES = "torchvision:vgg16_bn", 32, 2000, 10
MEASURES = ("nAP@100", "AP@100", "P@10")
LEAK = "LEAKS LABELS"

Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Described:
    """Images after the network: PCA `embeddings` (n, dims), `predicted` and `true` classes (n,)."""

    embeddings: Floats
    predicted: Classes
    true: Classes


def main(arguments: Sequence[str] = ()) -> None:
    """Train or resume, and print the table."""
    parser = options("seed_vgg")
    parser.add_argument("--images", type=int, default=5000, help="images to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--weights", default="", help="'pretrained', or a file; else random")
    parser.add_argument("--indexed", type=int, default=50_000, help="training images to search")
    parser.add_argument("--queries", type=int, default=10_000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    task = vars(parser.parse_args(arguments))
    out, jobs = task.pop("out"), task.pop("jobs")
    checkpoint = out / "checkpoint.safetensors"
    found = results([task], out, partial(run, checkpoint=checkpoint), jobs)
    checkpoint.unlink(missing_ok=True)
    [result] = found
    print(
        f"{form_of_cifar10()}; {task['indexed']:,} indexed, {task['queries']:,} queries\n"
        f"{spent(found)}, without the epochs before an interruption\n\n"
        f"{BACKBONE} at {SIZE}x{SIZE} pixels from {task['weights'] or 'random weights'}: "
        f"{counted(task['epochs'], 'epoch')} over {result['trained_on']:,} images, "
        f"seed {task['seed']}\n"
        f"accuracy: training {result['training_accuracy']:.3f}, "
        f"test {result['test_accuracy']:.3f}\n"
        f"embedding: {result['embedding']:,} dimensions, PCA to {result['dims']:,}, "
        f"median length {result['length']:.1f} (of a class as it is: 1)\n"
    )
    ways = ("usual", "leave-one-out")
    print(heading(["vectors", *(f"{name}, {way}" for way in ways for name in MEASURES)]))
    for name, figures in result["rows"].items():
        cells = [f"{figure:.4f}" for figure in figures]
        print(row([name, *cells, *["-"] * (len(ways) * len(MEASURES) - len(cells))]))
    print(
        "\nThe system that this project follows published figures of vectors with true classes in "
        f"the index: they compare with the rows {LEAK} only, and are not quoted here."
    )


def run(task: Task, checkpoint: Path) -> Result:
    """Train as `task` says, resuming from `checkpoint`, and measure all forms of vectors."""
    pixels, labels = sample(read_split("train"), task["images"], task["seed"])
    held = round(len(pixels) * HELD_OUT)
    chosen = {name: task[name] for name in ("epochs", "weights", "seed")}
    settings = settings_for(len(pixels) - held, backbone=BACKBONE, size=SIZE, embedding=0, **chosen)
    network, _ = train(
        pixels[held:],
        labels[held:],
        (pixels[:held], labels[:held]),
        settings,
        CLASSES,
        checkpoint,
        _show,
    )
    learnt, scores = predict(network, pixels[held:], fast=True)
    components = principal_components(learnt, DIMS)
    projection = components.projection(DIMS)

    def described(split: str, count: int) -> tuple[Described, Floats]:
        images, true = sample(read_split(split), count, task["seed"])
        embeddings, logits = predict(network, images, fast=True)
        centred: Floats = embeddings - components.mean
        projected: Floats = centred @ projection
        return Described(projected, logits.argmax(axis=1), true), logits

    indexed, _ = described("train", task["indexed"])
    queries, answers = described("test", task["queries"])
    return {
        "trained_on": len(learnt),
        "training_accuracy": accuracy(scores, labels[held:]),
        "test_accuracy": accuracy(answers, queries.true),
        "embedding": network.dim,
        "dims": projection.shape[1],
        "length": float(np.median(np.linalg.norm(queries.embeddings, axis=1))),
        "rows": rows(indexed, queries),
    }


def rows(indexed: Described, queries: Described) -> dict[str, list[float]]:
    """The name of each form of vectors -> `MEASURES`, usual and then leave-one-out.

    Forms that leak labels have the usual ones only.
    """
    found = {}
    for name, of_indexed, of_queries in forms(indexed, queries):
        asked = of_queries, queries.true
        values = [usual((of_indexed, indexed.true), asked, MEASURES)]
        if LEAK not in name:
            values.append(leave_one_out(asked, MEASURES))
        found[name] = [float(one[measure].mean()) for one in values for measure in MEASURES]
    return found


def forms(indexed: Described, queries: Described) -> Iterator[tuple[str, Vectors, Vectors]]:
    """Each form of vectors: its name, those of `indexed`, and those of `queries`."""
    yield "embedding", unit_rows(indexed.embeddings), unit_rows(queries.embeddings)
    for share, weight in ((None, "as it is"), (0.5, "half of the cosine")):
        asked = with_class(queries.embeddings, queries.predicted, share)
        for name, classes in (
            ("predicted class", indexed.predicted),
            (f"{LEAK}: true class in the index", indexed.true),
        ):
            yield f"{name}, {weight}", with_class(indexed.embeddings, classes, share), asked


def with_class(embeddings: Floats, classes: Classes, share: float | None) -> Vectors:
    """Unit rows (n, dim + `CLASSES`) of `embeddings` (n, dim) beside one-hot `classes` (n,).

    `share` is that of the class in the cosine; None joins both as they are, the class with length
    1, as the system that this project follows does.
    """
    one_hot = np.eye(CLASSES, dtype=np.float32)[classes]
    if share is None:
        return unit_rows(np.hstack([embeddings, one_hot]))
    return fuse([unit_rows(embeddings), one_hot], [1 - share, share])


def _show(result: EpochResult) -> None:
    _say(
        f"epoch {result.epoch}: loss {result.loss:.3f}, held-out accuracy "
        f"{result.held_out_accuracy:.3f}, {result.seconds:.0f} s"
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
