"""What every benchmark shares: where it runs, the CIFAR-10 index, medians."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from cbir.descriptors.contract import Descriptor
from cbir.home import cbir_home
from cbir.ingest.indexing import index_images
from cbir.machine import processor, usable_cores
from cbir.types import RgbImage

BATCH = 64
PACKAGES = ("numpy", "pillow", "onnxruntime", "faiss-cpu", "flask", "waitress")


def print_setting() -> None:
    """Processor, cores, versions and form of CIFAR-10: they belong beside every figure."""
    from cbir.images.cifar10 import find_cifar10

    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"processor: {processor()}, {usable_cores()} cores used")
    print(f"Python {platform.python_version()}, cbir {version('cbir')}, {packages}")
    path = find_cifar10()
    print(f"data: {form_of_cifar10()}" + (f", {path.name}" if path else ""))


def cifar10_index() -> str:
    """An index of cifar10:train, made if it is not there; its place is kept between runs."""
    from cbir.descriptors.models import load_descriptor

    spec = load_descriptor("cifar10-cnn").spec
    place = cbir_home() / "benchmarks" / f"cifar10-{spec.fingerprint[:8]}.cbir"
    place.parent.mkdir(parents=True, exist_ok=True)
    index_images(["cifar10:train"], str(place))
    return str(place)


def test_files(count: int) -> list[bytes]:
    """The first `count` test images as files, classes mixed."""
    import numpy as np

    from cbir.images.sources import open_source

    items = list(open_source("cifar10:test").items())
    order = np.random.default_rng(0).permutation(len(items))[:count]
    return [data for number in order if isinstance(data := items[number].read(), bytes)]


def median_ms(action: Callable[[], object], n: int) -> float:
    """Median time of `action`, in milliseconds, over `n` calls after one that does not count."""
    action()
    times = []
    for _ in range(n):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def images_per_second(descriptor: Descriptor, images: Sequence[RgbImage]) -> float:
    """Decoded images described in a second of processor time, in batches, on one core."""
    descriptor.describe(images[:BATCH])
    started = time.process_time()  # all of it is on this thread
    for start in range(0, len(images), BATCH):
        descriptor.describe(images[start : start + BATCH])
    return len(images) / (time.process_time() - started)


def cbir_command() -> str:
    """The `cbir` command of this environment."""
    return str(Path(sys.executable).with_name("cbir"))


def form_of_cifar10() -> str:
    """What the pixels of CIFAR-10 are here: every figure says so."""
    from cbir.images.cifar10 import find_cifar10

    path = find_cifar10()
    if path is None:
        return "no CIFAR-10 (set CBIR_DATA)"
    jpeg = "python" not in path.name and "batches" not in path.name
    return f"CIFAR-10 ({'JPEG copy' if jpeg else 'original pixels'})"
