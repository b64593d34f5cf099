"""How much small changes of the pictures cost: CIFAR-10, 50,000 training images indexed.

Two experiments. The queries are changed: the difference in nAP@100 from the queries as they are,
and its 95% interval (paired bootstrap). Indexed images are changed and searched for: the share
whose original is the first of all 50,000 hits. The changes start at the decoded pixels: of the
JPEG copy, these have been at quality 75 before.

    python -m benchmarks changed_queries
    python -m benchmarks changed_queries --model cifar10-cnn ./my-model --queries 2000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.perturbations import Pixels, brightened, cropped, mirrored, reencoded, shifted
from benchmarks.photos import difference
from benchmarks.retrieval import finds_original, read_split, usual
from benchmarks.setting import heading, row
from cbir.descriptors.contract import Descriptor, batches, describe
from cbir.descriptors.models import load_descriptor
from cbir.machine import usable_cores
from cbir.measures.significance import mean_intervals
from cbir.types import Vectors

SEED = 0
BATCH = 64
MEASURE = "nAP@100"
AS_THEY_ARE = "as they are"

Change = Callable[[Pixels], Pixels]

OF_QUERIES: Mapping[str, Change] = {
    "JPEG quality 90": partial(reencoded, quality=90),
    "JPEG quality 50": partial(reencoded, quality=50),
    "2 pixels down and right, edge repeated": partial(shifted, down=2, right=2, fill="edge"),
    "2 pixels down and right, black": partial(shifted, down=2, right=2, fill="constant"),
    "2 pixels up and left, edge repeated": partial(shifted, down=-2, right=-2, fill="edge"),
    "brightness +20%": partial(brightened, factor=1.2),
    "brightness -20%": partial(brightened, factor=0.8),
}
OF_COPIES: Mapping[str, Change] = {
    "brightness +5%": partial(brightened, factor=1.05),
    "brightness +20%": partial(brightened, factor=1.2),
    "a pixel to the right, edge repeated": partial(shifted, down=0, right=1, fill="edge"),
    "cropped by 2 pixels a side": partial(cropped, margin=2),
    "mirrored": mirrored,
}


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table of each experiment, with a column for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks changed_queries")
    parser.add_argument("--model", nargs="+", default=["cifar10-cnn"], help="names or folders")
    parser.add_argument("--queries", type=int, default=2000, help="test images")
    parser.add_argument("--copies", type=int, default=1000, help="indexed images to change")
    asked = parser.parse_args(arguments)
    indexed, test = read_split("train"), read_split("test")
    queries = _sample(len(test[0]), asked.queries)
    originals = _sample(len(indexed[0]), asked.copies)
    of_queries: dict[str, list[str]] = {name: [] for name in (AS_THEY_ARE, *OF_QUERIES)}
    of_copies: dict[str, list[str]] = {name: [] for name in OF_COPIES}
    for name in asked.model:
        descriptor = load_descriptor(name)
        vectors = described(descriptor, indexed[0])
        before: NDArray[np.float64] | None = None
        for change, values in of_changed_queries(
            descriptor, (vectors, indexed[1]), (test[0][queries], test[1][queries])
        ):
            figure = f"{values.mean():.4f}" if before is None else _signed(values, before)
            of_queries[change].append(figure)
            before = values if before is None else before
        for change, values in of_changed_copies(descriptor, vectors, indexed[0], originals):
            ((low, high),) = mean_intervals({change: values}).values()
            of_copies[change].append(f"{values.mean():.3f} ({low:.3f} to {high:.3f})")
    print(f"{MEASURE}, n={len(queries)} test images; below, what changed queries differ by\n")
    _print(of_queries, "queries", asked.model)
    print(f"\nshare of changed indexed images that find their original, n={len(originals)}\n")
    _print(of_copies, "change", asked.model)


def of_changed_queries(
    descriptor: Descriptor,
    indexed: tuple[Vectors, NDArray[np.int64]],
    queries: tuple[Pixels, NDArray[np.int64]],
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The values of `MEASURE` for the queries as they are, then for each change of them."""
    images, labels = queries
    changes: Mapping[str, Change] = {AS_THEY_ARE: lambda pixels: pixels, **OF_QUERIES}
    for name, change in changes.items():
        vectors = described(descriptor, change(images))
        yield name, usual(indexed, (vectors, labels), [MEASURE])[MEASURE]


def of_changed_copies(
    descriptor: Descriptor, vectors: Vectors, images: Pixels, originals: NDArray[np.intp]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Whether each changed image finds its original, 1 or 0, for each change."""
    for name, change in OF_COPIES.items():
        copies = described(descriptor, change(images[originals]))
        yield name, finds_original(vectors, copies, originals)


def described(descriptor: Descriptor, images: Pixels) -> Vectors:
    """The vectors of `images`, on all cores."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        parts = pool.map(lambda some: describe(descriptor, list(some)), batches(images, BATCH))
        return np.concatenate(list(parts))


def _sample(count: int, size: int) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(SEED).permutation(count)[:size])


def _signed(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> str:
    more, low, high = difference(ours, theirs)
    return f"{more:+.4f} ({low:+.4f} to {high:+.4f})"


def _print(rows: Mapping[str, Sequence[str]], what: str, models: Sequence[str]) -> None:
    print(heading([what, *models]))
    for name, cells in rows.items():
        print(row([name, *cells]))


if __name__ == "__main__":
    main(sys.argv[1:])
