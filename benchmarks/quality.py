"""Quality: all 10,000 test images as exact queries to the 50,000 training images."""

from __future__ import annotations

import time
from contextlib import closing

from benchmarks.setting import cifar10_index
from cbir.evaluation import evaluate
from cbir.images.sources import open_source
from cbir.ingest.indexing import index_images
from cbir.report.tables import evaluation_words
from cbir.report.terminal import show
from cbir.search.searcher import Searcher


def main() -> None:
    """Print the shipped model's figures, then those of its options."""
    place = cifar10_index()
    embedding = place.replace(".cbir", "-embedding.cbir")
    index_images(["cifar10:train"], embedding, descriptor="cifar10-cnn:embedding")
    for title, index, expand in (
        ("cifar10-cnn, as shipped", place, 0),
        ("cifar10-cnn with query expansion (20)", place, 20),
        ("cifar10-cnn:embedding", embedding, 0),
    ):
        print(f"\n{title}")
        with closing(Searcher.open(index)) as searcher:
            started = time.perf_counter()
            result = evaluate(searcher, open_source("cifar10:test"), expand=expand)
            seconds = time.perf_counter() - started
        show(evaluation_words(result))
        print(f"total, including archive reading and leave-one-out: {seconds:.1f} s")


if __name__ == "__main__":
    main()
