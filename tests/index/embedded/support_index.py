"""What the tests of the embedded index share: making indexes, and the answer NumPy gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cbir.index.base import Entry, Index
from cbir.index.open import create_index
from cbir.testing import sample_entries
from cbir.types import Box, DescriptorSpec, Vectors

SPEC = DescriptorSpec("made-up", 8, "5" * 64, {"decoder": "none"}, "nothing", "MIT")
OTHER_SPEC = DescriptorSpec("other", 16, "6" * 64)
MODEL = {"model.onnx": b"weights", "model.json": b"{}"}

NOBODY = 65534


def new_index(folder: Path, entries: Sequence[Entry] = (), spec: DescriptorSpec = SPEC) -> Index:
    """A new index at `folder`, open for writing."""
    index = create_index(str(folder), spec, MODEL)
    if entries:
        index.add(list(entries))
    return index


def made_index(folder: Path, entries: Sequence[Entry] | None = None) -> Path:
    """A finished index at `folder`: refreshed and closed."""
    index = new_index(folder, sample_entries(50) if entries is None else entries)
    index.refresh()
    index.close()
    return folder


Found: TypeAlias = tuple[str, np.float32, Box | None]
"""The id of a hit, its score, and the region that matched."""


def expected(entries: Iterable[Entry], query: Vectors, k: int) -> list[Found]:
    """The k best by brute force: products in float64, rounded; ties by part, then by id bytes."""
    found: list[tuple[np.float32, bytes, Box | None]] = []
    for entry in entries:
        products = (entry.vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        scores = np.clip(products, -1, 1).astype(np.float32)
        best = int(np.argmax(scores))
        box = entry.boxes[best] if best else None
        found.append((-scores[best], entry.record.id.encode(), box))
    found.sort(key=lambda item: item[:2])
    return [(name.decode(), -score, box) for score, name, box in found[:k]]


def answers(index: Index, queries: Vectors, k: int, **options: object) -> list[list[Found]]:
    """What `search` answers, in the form of `expected`."""
    return [
        list(zip(matches.ids, matches.scores, matches.boxes, strict=True))
        for matches in index.search(queries, k, **options)  # type: ignore[arg-type]
    ]


def python(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own; its output comes back."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
        **options,  # type: ignore[call-overload]
    )
    return done
