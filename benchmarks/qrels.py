"""Class relevance as a file: `cbir qrels` of 1,000 and of all 10,000 test images (Linux).

Peak memory should hardly differ, because the 50 million lines are streamed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import indent

from benchmarks.setting import PEAK, cifar10_index, unpack
from cbir.images.sources import open_source

CODE = f"""
from cbir.cli.main import main
try:
    main()
finally:
{indent(PEAK, "    ")}
    print(peak)
"""
PER_CLASS = (100, 1_000)
"""Test images per class; files in folders in both cases, so that only their number differs."""


def main() -> None:
    """Print lines, seconds, size and peak memory of both."""
    index = cifar10_index()
    with tempfile.TemporaryDirectory() as folder:
        for per_class in PER_CLASS:
            images = Path(folder) / str(per_class)
            _unpack(images, per_class)
            _measure(images, index, Path(folder) / "q.gz")


def _measure(source: Path, index: str, target: Path) -> None:
    arguments = ["qrels", str(source), "--in", index, "-o", str(target), "--label-from-folder"]
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], check=True, capture_output=True, text=True
    )
    took = time.perf_counter() - started
    print(
        f"{ended.stderr.strip()}: {took:.1f} s, file {target.stat().st_size / 1e6:,.1f} MB, "
        f"peak {int(ended.stdout) / 1e6:,.0f} MB"
    )


def _unpack(folder: Path, per_class: int) -> None:
    """Write the first `per_class` test images of each class as files."""
    for item in open_source("cifar10:test").items():
        if int(Path(item.key).stem) < per_class:
            unpack(item, folder / str(item.label) / Path(item.key).name)


if __name__ == "__main__":
    main()
