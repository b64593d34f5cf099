"""What each backbone reaches at a small budget: CIFAR-10, training images indexed, test queries.

All start from random weights, except `efficientnet-lite0` (ImageNet). The budget of a row stands in
it: training images, epochs and input size. Vectors are embeddings without the posterior. images/s:
per second of processor time on one core, of the exported model in the precision that is kept.

    python -m benchmarks backbones --out FOLDER --jobs 2
    python -m benchmarks backbones --backbones lenet timm:resnet18 --images 2000 --epochs 2
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.retrieval import read_split
from benchmarks.runs import Result, Task, options, results, spent
from benchmarks.setting import form_of_cifar10, heading, row
from benchmarks.trained import QUALITY, Trained, at_size, quality, sample, trained
from cbir.descriptors.contract import batches
from cbir.descriptors.onnx import NETWORK_FILE
from cbir.descriptors.runtime import Network
from cbir.training.network.export import export_float, quantise
from cbir.training.network.parity import choose_export
from cbir.training.network.prediction import predict
from cbir.training.network.settings import settings_for

SEED = 0
BATCH = 64
SOME = 1000
"""Images to calibrate int8 with, to compare exports by, and to measure speed with."""

CHOSEN: Mapping[str, Mapping[str, Any]] = {
    "mlp": {},
    "lenet": {},
    "alexnet": {},
    "airbench94": {},
    "airbench96": {"epochs": 5},
    "timm:vgg16": {"size": 32, "epochs": 5},
    "torchvision:googlenet": {"epochs": 5},
    "timm:resnet50": {"epochs": 5},
    "efficientnet-lite0": {"epochs": 3},
}
"""The backbones of the table, and what differs from the usual budget and their own settings."""
USUAL = {"images": 10_000, "epochs": 10}


def main(arguments: Sequence[str] = ()) -> None:
    """Run what is missing, and print the table."""
    parser = options("backbones")
    parser.add_argument("--backbones", nargs="+", default=list(CHOSEN), metavar="NAME")
    parser.add_argument("--images", type=int, help="training images of a run")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--indexed", type=int, default=50_000, help="training images to search")
    parser.add_argument("--queries", type=int, default=10_000, help="test images")
    asked = parser.parse_args(arguments)
    given = {"images": asked.images, "epochs": asked.epochs}
    budget = {name: value for name, value in given.items() if value is not None}
    tasks = [
        {
            "backbone": name,
            **USUAL,
            **CHOSEN.get(name, {}),
            **budget,
            "indexed": asked.indexed,
            "queries": asked.queries,
        }
        for name in asked.backbones
    ]
    found = results(tasks, asked.out, run, asked.jobs)
    print(f"{form_of_cifar10()}; {asked.indexed:,} indexed, {asked.queries:,} queries, one seed")
    print(f"{spent(found)}\n")
    columns = ["images x epochs", "input", "parameters", *QUALITY, "images/s", "minutes"]
    print(heading(["backbone", *columns]))
    for task, result in zip(tasks, found, strict=True):
        print(
            row(
                [
                    task["backbone"],
                    f"{task['images']:,} x {task['epochs']}",
                    str(result["size"]),
                    f"{result['parameters']:,}",
                    *(f"{result[name]:.3f}" for name in QUALITY),
                    f"{result['images/s']:,.0f} ({result['precision']})",
                    f"{result['seconds'] / 60:.1f}",
                ]
            )
        )


def run(task: Task) -> Result:
    """Train one network as `task` says, and measure it."""
    others = ("images", "indexed", "queries")
    chosen = {name: value for name, value in task.items() if name not in others}
    images = sample(read_split("train"), task["images"], SEED)
    settings = settings_for(task["images"], **chosen)
    model = trained(images, 10, settings)
    indexed = sample(read_split("train"), task["indexed"], SEED)
    test = sample(read_split("test"), task["queries"], SEED)
    return {
        "size": settings.size,
        "parameters": sum(each.numel() for each in model.network.parameters()),
        **quality(model, (model.vectors(indexed[0]), indexed[1]), test),
        **_exported(model),
    }


def _exported(model: Trained) -> Result:
    """The precision that is kept, and its speed on one core."""
    images, labels = sample(read_split("train"), 2 * SOME, SEED + 1)
    pixels = at_size(images, model.size)
    network = model.network.to("cpu")
    exact = export_float(network, model.size)
    models = {"float32": exact, "int8": quantise(exact, pixels[:SOME])}
    compared = pixels[SOME:]
    precision, _ = choose_export(predict(network, compared), models, compared, labels[SOME:])
    exported = Network(models[precision], NETWORK_FILE)
    exported.outputs(pixels[:BATCH])
    started = time.process_time()
    for some in batches(pixels, BATCH):
        exported.outputs(some)
    return {"precision": precision, "images/s": len(pixels) / (time.process_time() - started)}


if __name__ == "__main__":
    main(sys.argv[1:])
