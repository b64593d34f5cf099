"""Visual words as terms of an inverted index, compared with the same words as dense vectors.

The words are those of the recipe `words` (dense RootSIFT, square roots of tf-idf), fitted to the
indexed images. The same vectors go into the embedded engine and, on a server started for this
purpose, into Elasticsearch indexes of types `flat` and `words`; all three get the same queries. See
`python -m benchmarks.words --help` for options.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from benchmarks.setting import load_seconds, print_setting
from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.contract import Descriptor, describe
from cbir.evaluation import describe_queries, evaluate
from cbir.images.decode import load_pixels
from cbir.images.items import SourceItem
from cbir.images.sources import open_source
from cbir.index.base import Entry, Index, Matches
from cbir.index.open import open_index
from cbir.search.searcher import Searcher
from cbir.testing import make_entry
from cbir.training.bovw.fit import train_bovw
from cbir.training.bovw.recipes import Words, recipe_called
from cbir.types import Vectors
from tools.elasticsearch_server import start_server

QUERIES = 500
DEPTH = 100
DENSE_LIMIT = 4096  # the most dimensions of a dense_vector in Elasticsearch


def main(count: int = 10_000, words: int = 4_000) -> None:
    """Print every figure for `count` training images and a vocabulary of `words`."""
    source = open_source("cifar10:train")
    items = list(source.items())
    order = np.random.default_rng(0).permutation(len(items))[:count]
    chosen = [items[number] for number in sorted(order.tolist())]
    descriptor = _descriptor(count, words)
    images = [load_pixels(item.read()) for item in chosen]
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
        for name in places.keys() - {"embedded"}:  # a new server is slow at first
            warm = f"{server.index_url(f'warm-{name}')}?type={name}"
            load_seconds(warm, descriptor.spec, entries)
        for name, place in places.items():
            seconds = load_seconds(place, descriptor.spec, entries)
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


def _descriptor(count: int, words: int) -> Descriptor:
    """The recipe `words` with a vocabulary of `words`, fitted to `count` training images."""
    recipe = recipe_called("words")
    (plan,) = recipe.plans
    own = replace(recipe, plans=(replace(plan, words=Words(words)),))
    return BovwDescriptor(train_bovw(open_source("cifar10:train"), "words", own, limit=count))


def _entries(items: Sequence[SourceItem], vectors: Vectors) -> Iterator[Entry]:
    for item, vector in zip(items, vectors, strict=True):
        yield make_entry(f"cifar10/{item.key}", vector[None], label=item.label)


def _searches(index: Index, queries: Vectors, right: Sequence[Matches]) -> None:
    """Search one query at a time; print the times, and the overlap with the exact answers."""
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
        print(f"; {same} of {len(queries)} answers equal the exact ones")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000, help="training images")
    options.add_argument("--words", type=int, default=4_000, help="size of the vocabulary")
    print_setting()
    main(**vars(options.parse_args()))
