"""Ways to join an embedding and a posterior: what each finds of known and of unseen classes.

For each of three splits, a network trains on seven classes of CIFAR-10. Temperature and weight of
the posterior are chosen by nAP@100 on held-out images of these classes, whose figures are a little
too high for it. Images of the three other classes show what the choice costs there. All images are
training images of CIFAR-10; half of each set is the index, half the queries.

    python -m benchmarks fusion --out FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from benchmarks.losses import UNSEEN
from benchmarks.retrieval import read_split, usual
from benchmarks.runs import Result, Task, options, results, spent
from benchmarks.setting import form_of_cifar10, heading, row
from benchmarks.trained import Labelled, network_outputs, sample, trained
from cbir.descriptors.fusion import (
    BHATTACHARYYA,
    EXPECTED_LIKELIHOOD,
    Posterior,
    principal_components,
    projected,
)
from cbir.training.choose import TEMPERATURES, WEIGHTS, cosines, score
from cbir.training.network.settings import settings_for
from cbir.types import Floats, Vectors

SIDE, SEED, HELD_OUT, SEARCHED, FITTED = 32, 0, 4000, 4000, 8000
RECIPE: Mapping[str, Any] = {
    "backbone": "airbench94", "width": 0.5, "mirror": True, "ema": 0.99,
    "jpeg": 0.5, "brightness": 0.2, "shift": 3, "cutout": 8,
}  # fmt: skip
MEASURES = ("nAP@100", "P@10")
WAYS = {
    "embedding": (None, 0.0),
    "square roots of the posterior, embedding": (BHATTACHARYYA, 0.0),
    "posterior, embedding": (EXPECTED_LIKELIHOOD, 0.0),
    "posterior, whitened embedding": (EXPECTED_LIKELIHOOD, 1.0),
}
"""How posteriors enter (None: not at all), and the degree of whitening."""


def main(arguments: Sequence[str] = ()) -> None:
    """Train what is missing, and print the means over the splits."""
    parser = options("fusion")
    parser.add_argument("--images", type=int, default=25_000, help="training images of a run")
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args(arguments)
    budget = {"images": asked.images, "epochs": asked.epochs, **RECIPE}
    tasks = [{**budget, "unseen": classes, "seed": SEED} for classes in UNSEEN]
    found = results(tasks, asked.out, run, asked.jobs)
    print(f"{form_of_cifar10()}, {len(UNSEEN)} splits, {spent(found)}\n")
    kinds = ("known", "unseen")
    print(heading(["vectors", *(f"{kind}: {name}" for kind in kinds for name in MEASURES)]))
    for way in WAYS:
        values = [[each[way][f"{k} {name}"] for each in found] for k in kinds for name in MEASURES]
        print(row([way, *(f"{np.mean(some):.3f}" for some in values)]))


def run(task: Task) -> Result:
    """Train a network, choose on held-out images, and measure each of `WAYS`."""
    every = read_split("train")
    inside = np.isin(every[1], task["unseen"])
    names, labels = np.unique(every[1][~inside], return_inverse=True)
    some = sample((every[0][~inside], labels), task["images"] + HELD_OUT, task["seed"])
    count = task["images"]
    known = some[0][count:], some[1][count:]
    unseen = sample((every[0][inside], every[1][inside]), SEARCHED, task["seed"])
    recipe = {name: value for name, value in task.items() if name not in ("images", "unseen")}
    settings = settings_for(count, **recipe)
    network = trained((some[0][:count], some[1][:count]), len(names), settings).network
    fitted, of_known, of_unseen = (
        network_outputs(network, images, SIDE) for images in (some[0][:FITTED], known[0], unseen[0])
    )
    components = principal_components(fitted[0], fitted[0].shape[1])
    result: Result = {}
    for way, (power, whitening) in WAYS.items():
        dims = len(components.variances)
        projection = components.projection(dims, whitening) if whitening else None

        def unit(embeddings: Floats, projection: Floats | None = projection) -> Vectors:
            return projected(embeddings, components.mean, projection)

        posterior = chosen(power, unit(of_known[0]), of_known[1], known[1])
        result[way] = {"posterior": str(posterior)}
        for kind, (embeddings, logits), images in (
            ("known", of_known, known),
            ("unseen", of_unseen, unseen),
        ):
            vectors = unit(embeddings)
            fused = vectors if posterior is None else posterior.fused(vectors, logits)
            result[way] |= {f"{kind} {k}": v for k, v in measured(fused, images).items()}
    return result


def chosen(
    power: float | None, vectors: Vectors, logits: Floats, labels: np.ndarray
) -> Posterior | None:
    """The posterior of this power with the best nAP@100; None without a power."""
    if power is None:
        return None
    tried = (Posterior(t, weight, power) for t, weight in product(TEMPERATURES, WEIGHTS))
    return max(tried, key=lambda one: score(cosines(one.fused(vectors, logits)), labels))


def measured(vectors: Vectors, images: Labelled) -> dict[str, float]:
    """The means of `MEASURES` with the first half as the index, the second as queries."""
    half, labels = len(vectors) // 2, images[1]
    values = usual((vectors[:half], labels[:half]), (vectors[half:], labels[half:]), MEASURES)
    return {name: float(each.mean()) for name, each in values.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
