"""What may go into an index: checks of records, vectors and metadata, before anything is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cbir.errors import CbirError, QueryError
from cbir.index.base import Entry
from cbir.types import WHOLE, DescriptorSpec, MetadataValue, Vectors

NORM_TOLERANCE = 1e-4
"""Rows whose norm is further from 1 are refused; see `descriptors.base.UNIT_TOLERANCE`."""

_ROUNDING = 1e-6


def checked_entries(entries: Sequence[Entry], dim: int) -> list[Entry]:
    """`entries` fit to be kept, the last one of each id; raises `CbirError` for one that is not.

    Rows whose norm is only nearly one are scaled, so that a score is the cosine.
    """
    last = {entry.record.id: entry for entry in entries}
    return [_checked(entry, dim) for entry in last.values()]


def checked_metadata(record_id: str, metadata: Mapping[str, MetadataValue]) -> None:
    """Raise `CbirError` unless every value is text or a finite number."""
    for name, value in metadata.items():
        if not isinstance(value, str | int | float) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise CbirError(
                f"record '{record_id}': metadata {name}={value!r} cannot be kept",
                "metadata is text or finite numbers",
            )


def unit_rows(vectors: Vectors, spec: DescriptorSpec) -> Vectors:
    """Queries as float32 (q, dim) of unit norm; raises `QueryError` where that cannot be."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != spec.dim:
        raise QueryError(
            f"queries of shape {rows.shape} do not fit an index of {spec.short} ({spec.dim}-d)",
            "describe the queries with the index's own descriptor",
        )
    norms = _norms(rows)
    if not np.all(np.isfinite(norms) & (norms > 0)):
        raise QueryError("a query has a vector that is not finite or all zero")
    return rows if _all_unit(norms) else _scaled(rows, norms)


def _checked(entry: Entry, dim: int) -> Entry:
    record_id = entry.record.id
    vectors = np.asarray(entry.vectors)
    if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
        raise CbirError(
            f"record '{record_id}' has vectors of shape {vectors.shape}; expected (parts, {dim})"
        )
    if len(entry.boxes) != len(vectors) or tuple(entry.boxes[0]) != WHOLE:
        raise CbirError(
            f"record '{record_id}' has {len(entry.boxes)} boxes for {len(vectors)} vectors",
            "give one a vector, the whole image first",
        )
    norms = _norms(vectors)
    if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):  # also false for NaN
        raise CbirError(f"record '{record_id}' has a vector that is not finite and of unit norm")
    if entry.record.metadata:
        checked_metadata(record_id, entry.record.metadata)
    if vectors.dtype == np.float32 and _all_unit(norms):
        return entry
    return replace(entry, vectors=_scaled(vectors, norms))


def _norms(rows: Vectors) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    squares: np.ndarray[tuple[int], np.dtype[np.float64]] = np.einsum(
        "ij,ij->i", rows, rows, dtype=np.float64
    )
    return np.sqrt(squares)


def _all_unit(norms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    return bool(np.all(np.abs(norms - 1) <= _ROUNDING))


def _scaled(rows: Vectors, norms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Vectors:
    return (rows.astype(np.float64) / norms[:, None]).astype(np.float32)
