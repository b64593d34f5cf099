"""Class relevance as a file: `cbir qrels` of 1,000 and of all 10,000 test images (Linux).

Peak memory should hardly differ: 50 million lines are streamed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.setting import cifar10_index
from cbir.images.sources import open_source

CODE = """
import json, re, sys
from cbir.cli.main import main
try:
    main()
finally:
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    status = open("/proc/self/status").read()
    print(json.dumps(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024))
"""
PER_CLASS = (100, 1_000)
"""Test images of each class: both times as files in folders, so that only their number differs."""


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
    seconds = time.perf_counter() - started
    print(
        f"{ended.stderr.strip()}: {seconds:.1f} s, file {target.stat().st_size / 1e6:,.1f} MB, "
        f"peak {json.loads(ended.stdout) / 1e6:,.0f} MB"
    )


def _unpack(folder: Path, per_class: int) -> None:
    """The first `per_class` test images of each class as files."""
    for item in open_source("cifar10:test").items():
        if int(Path(item.key).stem) < per_class:
            data = item.read()
            target = folder / str(item.label) / Path(item.key).name
            target.parent.mkdir(parents=True, exist_ok=True)
            assert isinstance(data, bytes), "needs CIFAR-10 as files (the JPEG copy)"
            target.write_bytes(data)


if __name__ == "__main__":
    main()
