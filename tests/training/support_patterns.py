"""Pictures whose class is a pattern: stripes, columns or checks, in any colours, with noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cbir.types import RgbImage

PATTERNS = ("checks", "columns", "stripes")


def pattern(kind: str, seed: int, size: int = 32) -> RgbImage:
    """A picture of `size` x `size` with that pattern, somewhere, in two random colours."""
    random = np.random.default_rng([PATTERNS.index(kind), seed])
    down, across = np.mgrid[:size, :size] + random.integers(0, 8, 2)[:, None, None]
    rows, columns = down // 4 % 2, across // 4 % 2
    mask = {"checks": rows ^ columns, "columns": columns, "stripes": rows}[kind]
    colours = random.integers(0, 256, (2, 3))
    noise = random.integers(-30, 31, (size, size, 3))
    return np.clip(colours[mask] + noise, 0, 255).astype(np.uint8)


def write_patterns(folder: Path, each: int, size: int = 32, first: int = 0) -> Path:
    """`folder`/PATTERN/NNN.png, `each` pictures of each pattern, from seed `first` on."""
    for kind in PATTERNS:
        (folder / kind).mkdir(parents=True)
        for number in range(first, first + each):
            image = Image.fromarray(pattern(kind, number, size))
            image.save(folder / kind / f"{number:03d}.png")
    return folder


def write_unsorted(folder: Path, each: int, first: int = 0) -> tuple[Path, dict[str, str]]:
    """`folder`/NNN-N.png, not sorted by pattern, and the pattern of each file."""
    folder.mkdir(parents=True)
    labels = {}
    for number in range(first, first + each):
        for place, kind in enumerate(PATTERNS):
            name = f"{number:03d}-{place}.png"
            Image.fromarray(pattern(kind, number)).save(folder / name)
            labels[name] = kind
    return folder, labels


def write_labels(path: Path, labels: Mapping[str, str]) -> Path:
    """A CSV file of paths and labels."""
    rows = [f"{name},{label}" for name, label in labels.items()]
    path.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    return path
