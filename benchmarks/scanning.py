"""A run over 20,000 files of which none has changed, compared with `find` on the same folder.

`find` lists the files with size and modification time, which is what a run compares. A run also
loads what the index knows, applies patterns, and refreshes the index.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.setting import duration
from cbir.ingest.indexing import index_images
from cbir.types import DescriptorSpec, RgbImage, Vectors

FILES = 20_000
IN_A_FOLDER = 100
RUNS = 9
PATTERNS = ("*.tmp.png", "drafts/", "/album-199/raw/**", "!keep.png")


class _Constant:
    """Describes every image by the same vector: this is about files."""

    spec = DescriptorSpec("constant", 2, "0" * 64)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        return np.tile(np.array([1, 0], dtype=np.float32), (len(images), 1))


def main() -> None:
    """Print medians of runs that alternate, and files a second."""
    with tempfile.TemporaryDirectory() as folder:
        photos, place = _write(Path(folder) / "photos"), Path(folder) / "photos.cbir"

        def run(*patterns: str) -> None:
            report = index_images([photos], place, descriptor=_Constant(), exclude=patterns)
            assert report.unchanged == FILES or report.added == FILES, report

        def find() -> None:
            listed = subprocess.run(
                ["find", str(photos), "-type", "f", "-printf", "%s %T@ %p\\n"],
                check=True,
                capture_output=True,
            ).stdout
            assert listed.count(b"\n") == FILES

        run()
        actions = {
            "find, size and time": find if shutil.which("find") else None,
            "cbir index": run,
            f"cbir index, {len(PATTERNS)} patterns": lambda: run(*PATTERNS),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
        for _ in range(RUNS):
            for name, action in actions.items():
                if action is not None:
                    before = _processor_time()
                    seconds = duration(action)
                    times[name].append((seconds, _processor_time() - before))
    print(f"{FILES:,} unchanged files in {FILES // IN_A_FOLDER} folders, medians of n={RUNS}")
    for name, taken in times.items():
        if taken:
            seconds, busy = map(statistics.median, zip(*taken, strict=True))
            rate, alone = FILES / seconds, FILES / busy
            print(f"{name:24} {seconds:.3f} s, {rate:,.0f} files/s; ", end="")
            print(f"of processor time {busy:.3f} s, {alone:,.0f} files/s")
    print("target for cbir index: 20,000 files/s")


def _processor_time() -> float:
    """Seconds of processor time, also of child processes; other programs do not add to it."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _write(photos: Path) -> Path:
    for number in range(FILES):
        folder = photos / f"album-{number // IN_A_FOLDER:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        red, green = divmod(number, 256)
        Image.new("RGB", (4, 4), (red, green, 7)).save(folder / f"{number:05d}.bmp")
    return photos


if __name__ == "__main__":
    main()
