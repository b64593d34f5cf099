"""Indexing 50,000 images end to end, compared with a bare loop of decoder and network.

The bare loop has every file in memory, decodes and infers on all cores with the same session
options and batch size, and keeps only the vectors. Indexing reads the archive, hashes, decodes,
describes, and writes a durable index with thumbnails and a vector cache.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cbir.descriptors.contract import batches
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.images.sources import open_source
from cbir.ingest.describe import BATCH
from cbir.ingest.indexing import index_images
from cbir.machine import usable_cores

RUNS = 3


def main() -> None:
    """Print both times, measured alternately, and their ratio."""
    descriptor = load_descriptor("cifar10-cnn")
    assert isinstance(descriptor, OnnxDescriptor)
    files = [
        d for item in open_source("cifar10:train").items() if isinstance(d := item.read(), bytes)
    ]
    bare, ours = [], []
    for _ in range(RUNS):
        started = time.perf_counter()
        _bare_loop(files, descriptor)
        bare.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            report = index_images(["cifar10:train"], str(Path(folder) / "i.cbir"))
            ours.append(time.perf_counter() - started)
    bare_s, ours_s = statistics.median(bare), statistics.median(ours)
    print(f"{report.added:,} images, medians of n={RUNS}")
    print(f"bare loop   {bare_s:.1f} s, {len(files) / bare_s:,.0f} images/s")
    print(f"cbir index  {ours_s:.1f} s, {report.added / ours_s:,.0f} images/s")
    print(f"ratio       {ours_s / bare_s:.2f} (target 1.5)")


def _bare_loop(files: list[bytes], descriptor: OnnxDescriptor) -> None:
    def work(batch: list[bytes]) -> int:
        pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in batch]
        return len(descriptor.network.outputs(np.stack(pixels))[0])

    with ThreadPoolExecutor(usable_cores()) as pool:
        assert sum(pool.map(work, batches(files, BATCH))) == len(files)


if __name__ == "__main__":
    main()
