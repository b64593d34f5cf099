"""Computes the unit rows of many images on all cores, with all blocks in one matrix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cbir.descriptors.arrays import Arrays
from cbir.descriptors.blocks import Block, head_rows, raw_dim, raw_features
from cbir.descriptors.resize import Size, at_size
from cbir.machine import limited_threads, usable_cores
from cbir.training.labelled import Prepare, Say
from cbir.types import Floats, RgbImage

BATCH = 64
SECONDS_OF_SILENCE = 15.0


@dataclass(frozen=True)
class Encoder:
    """Blocks with fitted words and filters, for prepared images of `size`."""

    blocks: Sequence[Block]
    arrays: Sequence[Arrays]
    size: Size

    @property
    def columns(self) -> list[slice]:
        """The column range of each block."""
        widths = [
            raw_dim(block, arrays, self.size)
            for block, arrays in zip(self.blocks, self.arrays, strict=True)
        ]
        ends = np.cumsum(widths).tolist()
        return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]

    def rows(self, images: Sequence[RgbImage], say: Say = lambda _: None) -> Floats:
        """The head input (n, D) for `images`: the blocks' rows with power and unit norm."""
        columns = self.columns
        matrix = np.empty((len(images), columns[-1].stop), dtype=np.float32)

        def fill(start: int) -> int:
            some = slice(start, min(start + BATCH, len(images)))
            for block, arrays, own in zip(self.blocks, self.arrays, columns, strict=True):
                matrix[some, own] = head_rows(block, raw_features(block, arrays, images[some]))
            return some.stop

        said = time.monotonic()
        with limited_threads(), ThreadPoolExecutor(usable_cores()) as pool:
            for done in pool.map(fill, range(0, len(images), BATCH)):
                if time.monotonic() - said > SECONDS_OF_SILENCE:
                    said = time.monotonic()
                    say(f"{done:,} of {len(images):,} images described")
        return matrix


def preparing(size: Size) -> Prepare:
    """The function that prepares an image for a model of this `size`, like its descriptor."""
    return lambda image: at_size(image, size)
