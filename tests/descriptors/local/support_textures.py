"""Pictures with enough to recognise: blobs of many sizes that no other seed has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cbir.types import RgbImage


def texture(seed: int, width: int = 240, height: int = 180) -> RgbImage:
    """Noise of several grains, each as strong as the others."""
    draw = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for grain in (4, 8, 16, 32):
        small = draw.uniform(-1, 1, (height // grain + 2, width // grain + 2, 3))
        layers = [
            np.asarray(
                Image.fromarray(small[..., c].astype(np.float32)).resize(
                    (width, height), Image.Resampling.BICUBIC
                )
            )
            for c in range(3)
        ]
        total += np.stack(layers, axis=-1)
    return np.clip(127 + 50 * total, 0, 255).astype(np.uint8)


def write_textures(folder: Path, count: int, first: int = 0) -> Path:
    """`folder`/N.png, `count` pictures of which none is like another."""
    folder.mkdir(parents=True)
    for seed in range(first, first + count):
        Image.fromarray(texture(seed)).save(folder / f"{seed}.png")
    return folder
