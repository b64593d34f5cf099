"""Runs that count what they describe, and what an index holds afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

import cbir
from cbir.types import AddReport, ImageRecord, RgbImage, Vectors
from tests.descriptors.support_photos import MeanColour


class Counting(MeanColour):
    """Counts the images that it describes, without the two that try it before each run."""

    def __init__(self) -> None:
        self.described = -2

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        self.described += len(images)
        return super().describe(images)


class Told(MeanColour):
    """Adds a byte to the file DESCRIBED for each image, but the plain ones that try it."""

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        with Path(os.environ["DESCRIBED"]).open("ab", buffering=0) as file:
            file.write(b"." * sum(bool(np.ptp(image)) for image in images))
        return super().describe(images)


def described(
    source: Path | Sequence[Path], into: Path, **options: object
) -> tuple[int, AddReport]:
    """How many images a run described, and its report."""
    counting = Counting()
    sources = [source] if isinstance(source, Path) else source
    report = cbir.index_images(sources, into, descriptor=counting, **options)  # type: ignore[arg-type]
    return max(0, counting.described), report


def records(place: Path) -> dict[str, ImageRecord]:
    """Id -> record of everything in an index, which must be sound."""
    with closing(cbir.open_index(place)) as index:
        assert index.verify() == []
        return {entry.record.id: entry.record for entry in index.entries()}


def held(place: Path) -> dict[str, tuple[object, ...]]:
    """Id -> content, place, file state, vectors and thumbnail of everything in an index."""
    with closing(cbir.open_index(place)) as index:
        return {
            entry.record.id: (
                *(entry.record.content_hash, entry.record.source, entry.record.location),
                *(entry.record.stamp, entry.record.missing),
                *(entry.vectors.tobytes(), entry.thumbnail),
            )
            for entry in index.entries()
        }


def check_equal_to_fresh(place: Path, sources: Sequence[Path], fresh: Path) -> None:
    """The index holds what a fresh one over the same sources holds: ids, content, vectors."""
    cbir.index_images(sources, fresh, descriptor=MeanColour())
    assert held(place) == held(fresh)
