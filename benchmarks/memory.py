"""Peak memory while indexing 5,000 and 50,000 image files, which should hardly differ (Linux)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.setting import PEAK, unpack
from cbir.images.sources import open_source

SIZES = (5_000, 50_000)
CODE = f"""
import json, sys
import cbir
report = cbir.index_images([sys.argv[1]], sys.argv[2], descriptor="cifar10-cnn")
{PEAK}
index = cbir.open_index(sys.argv[2])
print(json.dumps([report.added, peak, index.spec.dim]))
"""


def main() -> None:
    """Print the peaks of two fresh processes, each over a folder of files, and the limit."""
    peaks = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            _unpack(Path(folder) / "files", size)
            answer = subprocess.run(
                [sys.executable, "-c", CODE, f"{folder}/files", f"{folder}/i.cbir"],
                check=True,
                capture_output=True,
                text=True,
            )
        added, peak, dim = json.loads(answer.stdout)
        peaks.append(peak)
        print(f"{added:,} images: peak {peak / 1e6:,.0f} MB")
    vectors = SIZES[1] * dim * 4
    limit = 1.3 * peaks[0] + vectors
    print(f"ratio {peaks[1] / peaks[0]:.2f}; limit {limit / 1e6:,.0f} MB (1.3 x + the vectors)")


def _unpack(folder: Path, count: int) -> None:
    """Write `count` CIFAR-10 training images as files, classes in turn."""
    items = sorted(open_source("cifar10:train").items(), key=lambda item: item.key.split("/")[::-1])
    for item in items[:count]:
        unpack(item, folder / item.location)


if __name__ == "__main__":
    main()
