"""Which images make up the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def shuffled(count: int, size: int, random: torch.Generator) -> Tensor:
    """All of `count` rows in random order, int64 (batches, size), without an incomplete batch."""
    order = torch.randperm(count, generator=random)
    size = min(size, count)
    steps = count // size
    return order[: steps * size].view(steps, size)


def class_balanced(targets: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Batches with all classes equally frequent, int64 (batches, size): class-balanced sampling.

    targets: class numbers (n,). An epoch has as many batches as with `shuffled`: it repeats the
    images of small classes (all of them once before any comes again), and has only a random part of
    large ones. The classes take turns in random order, so that their numbers of images differ by at
    most two in a batch, and by at most one in an epoch.
    """
    rows = shuffled(len(targets), size, random)
    classes, numbers = targets.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    turns = torch.rand(-(-rows.numel() // len(classes)), len(classes), generator=random)
    order = turns.argsort(1).flatten()[: rows.numel()]
    chosen = torch.empty_like(order)
    for one in range(len(classes)):
        own, places = torch.nonzero(numbers == one)[:, 0], torch.nonzero(order == one)[:, 0]
        rounds = range(-(-len(places) // len(own)))
        again = [own[torch.randperm(len(own), generator=random)] for _ in rounds]
        chosen[places] = torch.cat([*again, own[:0]])[: len(places)]
    return chosen.view(rows.shape)


def balanced(targets: Tensor, size: int, per_class: int, random: torch.Generator) -> Tensor:
    """Batches of P classes with K images each, int64 (batches, P * K): P x K sampling.

    targets: class numbers (n,). `size` is the most images of a batch; K is `per_class`, or more if
    there are too few classes to fill a batch. Each class is equally frequent, whatever its number
    of images; its images come in random order, all of them once before any comes again. A class of
    fewer than K images appears in a batch with repeated images, which augmentation tells apart.
    As many batches as n images fill. (Hermans et al. 2017, arXiv:1703.07737)
    """
    present = targets.unique()  # type: ignore[no-untyped-call]
    streams = [_endless(torch.nonzero(targets == one)[:, 0], random) for one in present]
    size = max(4, min(size, len(targets)))
    classes = min(len(streams), max(2, size // per_class))
    images = size // classes
    batches = []
    for _ in range(max(1, len(targets) // (classes * images))):
        drawn = torch.randperm(len(streams), generator=random)[:classes].tolist()
        batches.append(torch.stack([next(streams[one]) for one in drawn for _ in range(images)]))
    return torch.stack(batches)


def _endless(rows: Tensor, random: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from rows[torch.randperm(len(rows), generator=random)]
