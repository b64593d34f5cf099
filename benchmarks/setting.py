"""Shared code of the benchmarks: environment, data, timing, tables."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cbir.descriptors.contract import Descriptor, batches
from cbir.errors import CbirError
from cbir.home import cbir_home
from cbir.images.items import SourceItem
from cbir.index.base import Entry
from cbir.index.open import create_index
from cbir.ingest.indexing import index_images
from cbir.machine import processor, usable_cores
from cbir.types import DescriptorSpec, RgbImage

BATCH = 64
CHUNK = 1000
PACKAGES = ("numpy", "pillow", "onnxruntime", "faiss-cpu", "flask", "waitress")
PHOTOS = "caltech20-photos.tar"
PEAK = """
import re
# Not ru_maxrss: it begins with the peak of the process that started this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
"""
"""Code that sets `peak` to the peak memory of its process, in bytes (Linux)."""


def print_setting() -> None:
    """Print processor, cores, versions and the form of CIFAR-10, which qualify every figure."""
    from cbir.images.cifar10 import find_cifar10

    print(f"processor: {processor()}, {usable_cores()} cores used")
    print(software())
    path = find_cifar10()
    print(f"data: {form_of_cifar10()}" + (f", {path.name}" if path else ""))


def software() -> str:
    """The versions of Python, cbir and the libraries that do the work."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, cbir {version('cbir')}, {packages}"


def form_of_cifar10() -> str:
    """The form of the CIFAR-10 pixels in use, which every figure states."""
    from cbir.images.cifar10 import find_cifar10

    path = find_cifar10()
    if path is None:
        return "no CIFAR-10 (set CBIR_DATA)"
    jpeg = "python" not in path.name and "batches" not in path.name
    return f"CIFAR-10 ({'JPEG copy' if jpeg else 'original pixels'})"


def cifar10_index() -> str:
    """An index of cifar10:train, created if missing and kept between runs; returns its place."""
    from cbir.descriptors.models import load_descriptor

    spec = load_descriptor("cifar10-cnn").spec
    place = kept("benchmarks", f"cifar10-{spec.fingerprint[:8]}.cbir")
    index_images(["cifar10:train"], place)
    return place


def kept(*parts: str) -> str:
    """A path below CBIR_HOME for files that later runs reuse; creates its folder."""
    place = cbir_home().joinpath(*parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    return str(place)


def test_files(count: int) -> list[bytes]:
    """The first `count` test images of CIFAR-10 as files, classes mixed."""
    from cbir.images.sources import open_source

    items = list(open_source("cifar10:test").items())
    order = np.random.default_rng(0).permutation(len(items))[:count]
    return [data for number in order if isinstance(data := items[number].read(), bytes)]


def unpack(item: SourceItem, target: Path) -> None:
    """Write the file of `item` to `target`."""
    data = item.read()
    target.parent.mkdir(parents=True, exist_ok=True)
    assert isinstance(data, bytes), "needs CIFAR-10 as files (the JPEG copy)"
    target.write_bytes(data)


def find_photos() -> Path | None:
    """The archive of photos in the folder named by `CBIR_DATA`, or beside the file named by it."""
    data = os.environ.get("CBIR_DATA")
    if not data:
        return None
    places = (Path(data) / PHOTOS, Path(data).parent / PHOTOS)
    return next((place for place in places if place.is_file()), None)


def photos_archive() -> str:
    """The path of the archive of photos; raises `CbirError` if it is not found."""
    archive = find_photos()
    if archive is None:
        raise CbirError(f"no {PHOTOS}", "set CBIR_DATA to the folder that contains it")
    return str(archive)


def duration(action: Callable[[], object]) -> float:
    """The time of one call of `action`, in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median_ms(action: Callable[[], object], n: int) -> float:
    """Median time of `action`, in milliseconds, over `n` calls after one warm-up call."""
    action()
    return statistics.median(duration(action) for _ in range(n)) * 1000


def images_per_second(descriptor: Descriptor, images: Sequence[RgbImage]) -> float:
    """Decoded images described per second of processor time, in batches, on one core."""
    descriptor.describe(images[:BATCH])
    started = time.process_time()  # all of it is on this thread
    for some in batches(images, BATCH):
        descriptor.describe(some)
    return len(images) / (time.process_time() - started)


def load_seconds(place: str, spec: DescriptorSpec, entries: Sequence[Entry]) -> float:
    """The time to load `entries` into a new index at `place`, in seconds."""

    def load() -> None:
        with closing(create_index(place, spec)) as index:
            for some in batches(entries, CHUNK):
                index.add(some)
            index.refresh()

    return duration(load)


def cbir_command() -> str:
    """The `cbir` command of this environment."""
    return str(Path(sys.executable).with_name("cbir"))


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def heading(cells: Sequence[str]) -> str:
    """The first two lines of a Markdown table."""
    return f"{row(cells)}\n{row(['---'] * len(cells))}"
