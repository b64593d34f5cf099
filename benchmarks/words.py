"""Visual words as terms of an inverted index beside the same words as dense vectors.

The words are patches of training images, drawn with a fixed seed, and a picture is the histogram of
its patches' nearest words: real visual words, of the simplest kind. The same vectors go into
the embedded engine and, on a server of this benchmark's own, into Elasticsearch indexes of type
`flat` and `words`; all three are asked the same. `python -m benchmarks.words --help` has options.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.setting import print_setting
from cbir.descriptors.base import describe
from cbir.experiment import describe_queries, evaluate
from cbir.images.decode import decode
from cbir.images.items import SourceItem
from cbir.images.sources import open_source
from cbir.index.base import Entry, Index, Matches
from cbir.index.open import create_index, open_index
from cbir.search import Searcher
from cbir.testing import make_entry
from cbir.types import DescriptorSpec, RgbImage, Vectors
from tools.elasticsearch_server import start_server

SIDE, STEP, SIZE = 6, 2, 32
QUERIES = 500
DEPTH = 100
CHUNK = 1000
DENSE_LIMIT = 4096  # what Elasticsearch allows a dense_vector to have


class PatchWords:
    """Histograms of patches, each counted as the nearest of `words`: square roots, unit norm.

    `words`: unit rows (k, 108), patches less their mean. An image of one colour has patches without
    a direction; they count as word 0.
    """

    def __init__(self, words: NDArray[np.float32]) -> None:
        self._words = words

    @cached_property
    def spec(self) -> DescriptorSpec:
        digest = hashlib.sha256(self._words.tobytes()).hexdigest()
        return DescriptorSpec(f"patch-words-{len(self._words)}", len(self._words), digest)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """Unit histograms (n, k) of images of 32 x 32 pixels."""
        rows = np.zeros((len(images), len(self._words)), dtype=np.float32)
        for row, image in zip(rows, images, strict=True):
            nearest = np.argmax(patches(image) @ self._words.T, axis=1)
            row += np.sqrt(np.bincount(nearest, minlength=len(row)))
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def patches(image: RgbImage) -> NDArray[np.float32]:
    """The patches of an image, less their mean, in unit rows (patches, 108) or zero."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE), axis=(0, 1))
    rows = windows[::STEP, ::STEP].reshape(-1, SIDE * SIDE * 3).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1), 1e-6)[:, None]
    return scaled


def main(count: int = 10_000, words: int = 1_000) -> None:
    """Print every figure for `count` training images and a vocabulary of `words`."""
    source = open_source("cifar10:train")
    items = list(source.items())
    order = np.random.default_rng(0).permutation(len(items))[:count]
    chosen = [items[number] for number in sorted(order.tolist())]
    images = [_pixels(item) for item in chosen]
    descriptor = PatchWords(_drawn_words(images, words))
    entries = list(_entries(chosen, describe(descriptor, images)))
    sizes = [np.count_nonzero(entry.vectors) for entry in entries]
    print(f"{len(entries):,} images, {words:,} words, {np.mean(sizes):.0f} of them in an image")
    with tempfile.TemporaryDirectory() as folder, start_server(heap="1g") as server:
        dense = {"flat": f"{server.index_url('dense')}?type=flat"} if words <= DENSE_LIMIT else {}
        places = {
            "embedded": f"{folder}/words.cbir",
            **dense,
            "words": f"{server.index_url('terms')}?type=words",
        }
        queries, right = None, None
        for name in [name for name in places if name != "embedded"]:  # a new server is slow
            _load(f"{server.index_url(f'warm-{name}')}?type={name}", descriptor.spec, entries)
        for name, place in places.items():
            seconds = _load(place, descriptor.spec, entries)
            with closing(Searcher(open_index(place), descriptor)) as searcher:
                if queries is None or right is None:
                    test = open_source("cifar10:test")
                    queries = describe_queries(searcher, test, sample=QUERIES).vectors
                    right = searcher.index.search(queries, DEPTH, exact=True)
                print(f"\n{name}")
                print(f"  load                  {len(entries) / seconds:,.0f} records/s")
                print(f"  on disk               {searcher.index.info()['bytes'] / 1e6:.1f} MB")
                _searches(searcher.index, queries, right)
                found = evaluate(searcher, open_source("cifar10:test"), sample=QUERIES)
                print(f"  nAP@100               {found.measures['nAP@100']:.4f}, n={QUERIES}")


def _pixels(item: SourceItem) -> RgbImage:
    data = item.read()
    return decode(data) if isinstance(data, bytes) else data


def _drawn_words(images: Sequence[RgbImage], count: int) -> NDArray[np.float32]:
    """Patches of the images, one each of as many as it takes."""
    draw = np.random.default_rng(1)
    rows = []
    for number in draw.choice(len(images), count, replace=count > len(images)):
        found = patches(images[number])
        rows.append(found[draw.integers(len(found))])
    return np.stack(rows)


def _entries(items: Sequence[SourceItem], vectors: Vectors) -> Iterator[Entry]:
    for item, vector in zip(items, vectors, strict=True):
        yield make_entry(f"cifar10/{item.key}", vector[None], label=item.label)


def _load(place: str, spec: DescriptorSpec, entries: Sequence[Entry]) -> float:
    """Seconds for a new index at `place`."""
    started = time.perf_counter()
    with closing(create_index(place, spec)) as index:
        for start in range(0, len(entries), CHUNK):
            index.add(entries[start : start + CHUNK])
        index.refresh()
    return time.perf_counter() - started


def _searches(index: Index, queries: Vectors, right: Sequence[Matches]) -> None:
    """One query at a time; how long it takes, and how many are those of the exact answer."""
    for k in (10, DEPTH):
        times, found, same = [], 0, 0
        for query, best in zip(queries, right, strict=True):
            started = time.perf_counter()
            (matches,) = index.search(query[None], k)
            times.append(time.perf_counter() - started)
            found += len(set(matches.ids) & set(best.ids[:k]))
            same += matches.ids == best.ids[:k]
        median, late = np.percentile(times, [50, 99]) * 1000
        print(f"  search, k={k:<3}         median {median:.2f} ms, p99 {late:.2f} ms", end="")
        print(f", n={len(queries)}")
        print(f"  recall@{k:<3}            {found / (k * len(queries)):.4f}", end="")
        print(f"; {same} of {len(queries)} answers the same in every place")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000, help="training images")
    options.add_argument("--words", type=int, default=1_000, help="size of the vocabulary")
    print_setting()
    main(**vars(options.parse_args()))
