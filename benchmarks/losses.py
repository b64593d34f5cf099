"""What each loss is good for: one small network, trained with every loss at equal cost and tuning.

For each loss, four trials train on the same images. The settings with the best nAP@100 on 5,000
held-out training images (half indexed, half queries) are used with other seeds. A seed chooses the
training images, the first weights and the batches, the same for every loss; losses that need
several images of a class in a batch draw their batches so. Cells show the mean over the seeds, the
difference from cross-entropy, and its 95% interval (paired t over the seeds). Vectors are the
embeddings without the posterior; all training images are indexed, and the test images are the
queries.

Two more tables show whether an embedding has collapsed to its classes. Unseen classes: trained on
seven classes; the training images of the other three are indexed, and their test images are the
queries. Own copies: indexed images are changed, and the share is counted whose original is the
first of all hits.

    python -m benchmarks losses --out FOLDER --jobs 2
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from benchmarks.perturbations import brightened, cropped, shifted
from benchmarks.retrieval import finds_original, read_split, usual
from benchmarks.runs import Result, Task, options, results, spent
from benchmarks.setting import form_of_cifar10, heading, row
from benchmarks.trained import QUALITY, Labelled, Trained, quality, sample, trained
from cbir.errors import CbirError
from cbir.training.choose import MEASURE, cosines, score
from cbir.training.network.losses import CROSS_ENTROPY, LOSSES
from cbir.training.network.settings import settings_for
from cbir.wording import counted

SEED = 0
HELD_OUT = 5000
COPIES = 2000
UNSEEN = ((0, 3, 6), (1, 4, 7), (2, 5, 8))
CHANGES = {
    "shifted by a pixel": partial(shifted, down=0, right=1, fill="edge"),
    "cropped by 2 pixels a side": partial(cropped, margin=2),
    "brightness +20%": partial(brightened, factor=1.2),
}
OF_UNSEEN = {"P@10": 1 / 3, "nAP@100": 0.123}
"""Measures of unseen classes, and their expectation in random order."""

RATES = (2.0, 1.0)
"""Peak learning rates, as a share of the network's default."""
OF_CROSS_ENTROPY = [
    {"rate": rate, "label_smoothing": share} for rate, share in product(RATES, (0.2, 0.0))
]
OF_METRIC_LOSSES = [
    {"rate": rate, "loss_weight": share} for rate, share in product(RATES, (0.3, 1.0))
]

SETTINGS = ("rate", "label_smoothing", "loss_weight")


def main(arguments: Sequence[str] = ()) -> None:
    """Run what is missing, first the trials, and print the tables."""
    parser = options("losses")
    parser.add_argument("--images", type=int, default=8000, help="training images of a run")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=float, default=0.25, help="of airbench94; 1 as shipped")
    parser.add_argument("--indexed", type=int, default=50_000, help="training images to search")
    parser.add_argument("--queries", type=int, default=10_000, help="test images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--losses", nargs="+", default=LOSSES, metavar="NAME")
    asked = parser.parse_args(arguments)
    budget = {"images": asked.images, "epochs": asked.epochs, "width": asked.width}
    searched = {"indexed": asked.indexed, "queries": asked.queries}
    seeds = range(1, asked.seeds + 1)
    trials = trial_tasks(dict.fromkeys((CROSS_ENTROPY, *asked.losses)), budget)
    tried = results(trials, asked.out, run, asked.jobs)
    best = winners(trials, tried)
    chosen = [{**task, **searched} for task in best.values()]
    final = [{**task, "seed": seed} for seed in seeds for task in chosen]
    unseen = [{**task, "unseen": classes} for classes in UNSEEN for task in chosen]
    found = results([*final, *unseen], asked.out, run, asked.jobs)
    print(f"{form_of_cifar10()}; {asked.indexed:,} indexed, {asked.queries:,} queries")
    print(
        f"airbench94 at width {asked.width:g}, {asked.images:,} training images, "
        f"{counted(asked.epochs, 'epoch')}; {spent([*tried, *found])}\n"
    )
    _print_trials(trials, tried)
    of_seeds = by_loss(final, found[: len(final)])
    of_splits = by_loss(unseen, found[len(final) :])
    print(f"\nmeans of {counted(asked.seeds, 'seed')}\n")
    _print_table(of_seeds, {name: name for name in QUALITY})
    print(f"\nunseen classes, {len(UNSEEN)} splits\n")
    chances = {name: f"{name} (chance {chance:.2f})" for name, chance in OF_UNSEEN.items()}
    _print_table(of_splits, chances)
    copies = min(COPIES, asked.indexed)
    print(f"\nown copies that find their original, n={copies:,} a seed\n")
    _print_table(of_seeds, {name: name for name in CHANGES})


def trial_tasks(losses: Iterable[str], budget: Task) -> list[Task]:
    """Four trials for each loss."""
    return [
        {"loss": loss, **choice, **budget, "seed": SEED, "held_out": HELD_OUT}
        for loss in losses
        for choice in (OF_CROSS_ENTROPY if loss == CROSS_ENTROPY else OF_METRIC_LOSSES)
    ]


def winners(trials: Sequence[Task], tried: Sequence[Result]) -> dict[str, Task]:
    """The task of each loss with the best held-out measure, without the held-out images.

    Raises `CbirError` for a loss whose trials all failed.
    """
    best: dict[str, tuple[float, Task]] = {}
    for task, result in zip(trials, tried, strict=True):
        value = result.get(MEASURE, -math.inf)
        if value > best.get(task["loss"], (-math.inf,))[0]:
            best[task["loss"]] = value, task
    for task, result in zip(trials, tried, strict=True):
        if task["loss"] not in best:
            raise CbirError(f"every trial of {task['loss']} failed: {result['failed']}")
    return {
        loss: {name: value for name, value in task.items() if name != "held_out"}
        for loss, (_, task) in best.items()
    }


def by_loss(tasks: Sequence[Task], found: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each loss, in the same order for every loss."""
    grouped: dict[str, list[Result]] = {}
    for task, result in zip(tasks, found, strict=True):
        grouped.setdefault(task["loss"], []).append(result)
    return grouped


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The mean of `ours` - `theirs` and its 95% interval by Student's t; NaN ends for a pair."""
    from scipy.stats import t

    differences = np.subtract(ours, theirs)
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return mean, math.nan, math.nan
    reach = float(t.ppf(0.975, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    return mean, mean - reach, mean + reach


def run(task: Task) -> Result:
    """Train one network as `task` says, and measure it."""
    if "held_out" in task:
        try:
            return _trial(task)
        except CbirError as error:  # such as a loss that diverges at this rate
            return {"failed": error.message}
    return _with_unseen(task) if "unseen" in task else _final(task)


def _trial(task: Task) -> Result:
    images = sample(read_split("train"), task["images"] + task["held_out"], task["seed"])
    count = task["images"]
    model = _trained((images[0][:count], images[1][:count]), 10, task)
    vectors = model.vectors(images[0][count:])
    return {MEASURE: score(cosines(vectors), images[1][count:])}


def _final(task: Task) -> Result:
    indexed, test = _searched(task)
    model = _trained(sample(read_split("train"), task["images"], task["seed"]), 10, task)
    vectors = model.vectors(indexed[0])
    originals = np.random.default_rng(SEED).permutation(len(vectors))[:COPIES]
    copies = {
        name: finds_original(vectors, model.vectors(change(indexed[0][originals])), originals)
        for name, change in CHANGES.items()
    }
    figures = quality(model, (vectors, indexed[1]), test)
    return {**figures, **{name: float(values.mean()) for name, values in copies.items()}}


def _with_unseen(task: Task) -> Result:
    seen = _of_classes(read_split("train"), task["unseen"], False)
    classes, labels = np.unique(seen[1], return_inverse=True)
    images = sample((seen[0], labels), task["images"], task["seed"])
    model = _trained(images, len(classes), task)
    indexed, test = (_of_classes(some, task["unseen"], True) for some in _searched(task))
    values = usual(
        (model.vectors(indexed[0]), indexed[1]),
        (model.vectors(test[0]), test[1]),
        list(OF_UNSEEN),
    )
    return {name: float(each.mean()) for name, each in values.items()}


def _searched(task: Task) -> tuple[Labelled, Labelled]:
    """The images to index, and the queries."""
    return (
        sample(read_split("train"), task["indexed"], SEED),
        sample(read_split("test"), task["queries"], SEED),
    )


def _of_classes(images: Labelled, classes: Sequence[int], inside: bool) -> Labelled:
    rows = np.isin(images[1], classes) == inside
    return images[0][rows], images[1][rows]


def _trained(images: Labelled, classes: int, task: Task) -> Trained:
    others = ("images", "indexed", "queries", "rate", "held_out", "unseen")
    chosen = {name: value for name, value in task.items() if name not in others}
    settings = settings_for(len(images[0]), **chosen)
    return trained(images, classes, replace(settings, peak_rate=task["rate"] * settings.peak_rate))


def _print_trials(trials: Sequence[Task], tried: Sequence[Result]) -> None:
    print(heading(["loss", "rate", "label smoothing", "weight", f"held-out {MEASURE}"]))
    for task, result in zip(trials, tried, strict=True):
        chosen = [f"{task[name]:g}" if name in task else "-" for name in SETTINGS]
        value = f"{result[MEASURE]:.4f}" if MEASURE in result else f"failed: {result['failed']}"
        print(row([task["loss"], *chosen, value]))


def _print_table(found: Mapping[str, Sequence[Result]], columns: Mapping[str, str]) -> None:
    """`columns`: the names of measures, and how to head them."""
    print(heading(["loss", *columns.values()]))
    for loss, of_loss in found.items():
        cells = []
        for name in columns:
            ours, theirs = (
                [each[name] for each in some] for some in (of_loss, found[CROSS_ENTROPY])
            )
            more, low, high = paired(ours, theirs)
            above = f": {more:+.3f} ({low:+.3f} to {high:+.3f})" if loss != CROSS_ENTROPY else ""
            cells.append(f"{np.mean(ours):.3f}{above}")
        print(row([loss, *cells]))


if __name__ == "__main__":
    main(sys.argv[1:])
