"""Synthetic records and vectors, identical on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cbir.index.base import Entry
from cbir.types import WHOLE, Box, ImageRecord, MetadataValue, Vectors

LEFT_HALF: Box = (0.0, 0.0, 0.5, 1.0)
RIGHT_HALF: Box = (0.5, 0.0, 1.0, 1.0)


def sample_entries(
    count: int,
    *,
    seed: int = 0,
    parts: int = 1,
    prefix: str = "a",
    metadata: Mapping[str, MetadataValue] | None = None,
) -> list[Entry]:
    """`count` synthetic entries with random 8-dimensional unit vectors, reproducible by seed."""
    draw = np.random.default_rng(seed)
    boxes = [WHOLE, LEFT_HALF, RIGHT_HALF][:parts]
    return [
        make_entry(
            f"{prefix}/{number:04d}",
            unit(draw.normal(size=(parts, 8))),
            boxes=boxes,
            label=("cat", "dog", None)[number % 3],
            metadata=metadata or {},
        )
        for number in range(count)
    ]


def make_entry(
    record_id: str,
    vectors: Vectors,
    *,
    boxes: Sequence[Box] = (WHOLE,),
    label: str | None = None,
    metadata: Mapping[str, MetadataValue] | None = None,
    width: int = 640,
    thumbnail: bytes = b"",
) -> Entry:
    """An entry with the given id and vectors; all other fields are synthetic."""
    source, _, location = record_id.partition("/")
    record = ImageRecord(
        *(record_id, source, location, label, "0" * 64, width, 480, 1000, 17, metadata or {}),
        stamp=f"7-{len(record_id)}",
        decoder=1,
        phash=record_id.encode()[-8:],
    )
    return Entry(record, vectors, boxes, thumbnail or b"picture of " + record_id.encode())


def unit(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Vectors:
    """`rows` scaled to unit norm, float32."""
    scaled = np.asarray(rows, dtype=np.float64)
    rows32: Vectors = (scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)).astype(np.float32)
    return rows32
