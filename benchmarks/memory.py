"""Peak memory while indexing 5,000 and 50,000 image files: it should hardly differ (Linux)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cbir.images.sources import open_source

SIZES = (5_000, 50_000)
CODE = """
import json, re, sys
import cbir
report = cbir.index_images([sys.argv[1]], sys.argv[2], descriptor="cifar10-cnn")
# Not ru_maxrss: that begins with the peak of the process that started this one.
status = open("/proc/self/status").read()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024
index = cbir.open_index(sys.argv[2])
print(json.dumps({"added": report.added, "peak": peak, "dim": index.spec.dim}))
"""


def main() -> None:
    """Print both peaks, each of a fresh process over a folder of files, and the limit."""
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
        result = json.loads(answer.stdout)
        peaks.append(result["peak"])
        print(f"{result['added']:,} images: peak {result['peak'] / 1e6:,.0f} MB")
    vectors = SIZES[1] * result["dim"] * 4
    limit = 1.3 * peaks[0] + vectors
    print(f"ratio {peaks[1] / peaks[0]:.2f}; limit {limit / 1e6:,.0f} MB (1.3 x + the vectors)")


def _unpack(folder: Path, count: int) -> None:
    """`count` CIFAR-10 training images as files, classes in turn."""
    items = sorted(open_source("cifar10:train").items(), key=lambda item: item.key.split("/")[::-1])
    for item in items[:count]:
        data = item.read()
        target = folder / item.location
        target.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(data, bytes), "needs CIFAR-10 as files (the JPEG copy)"
        target.write_bytes(data)


if __name__ == "__main__":
    main()
