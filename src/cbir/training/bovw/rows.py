"""Unit rows of many images, all blocks side by side in one matrix, on all cores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cbir.descriptors.arrays import Arrays
from cbir.descriptors.blocks import Block, Size, head_rows, raw_dim, raw_features
from cbir.descriptors.fusion import Floats
from cbir.descriptors.resize import fitted, resized
from cbir.machine import usable_cores
from cbir.training.labelled import Prepare, Say
from cbir.types import RgbImage

BATCH = 64
SECONDS_OF_SILENCE = 15.0


@dataclass(frozen=True)
class Encoder:
    """Blocks whose words and filters are fitted, for prepared images of `size`."""

    blocks: Sequence[Block]
    arrays: Sequence[Arrays]
    size: Size

    @property
    def columns(self) -> list[slice]:
        """Where each block's numbers stand in a row."""
        widths = [
            raw_dim(block, arrays, self.size)
            for block, arrays in zip(self.blocks, self.arrays, strict=True)
        ]
        ends = np.cumsum(widths).tolist()
        return [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]

    def rows(self, images: Sequence[RgbImage], say: Say = lambda _: None) -> Floats:
        """What a head reads of `images`: (n, D), the blocks' raw rows to power and unit norm."""
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


@contextmanager
def limited_threads() -> Iterator[None]:
    """Keep linear algebra on one thread a caller, for pools that use all cores themselves."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def preparing(size: Size) -> Prepare:
    """What brings a picture to a model's `size`: what its descriptor does."""
    if isinstance(size, int):
        return lambda image: fitted(image, size)
    return lambda image: resized(image, *size)


def mirrored(images: Sequence[RgbImage]) -> list[RgbImage]:
    """The images with left and right exchanged."""
    return [np.ascontiguousarray(image[:, ::-1]) for image in images]
