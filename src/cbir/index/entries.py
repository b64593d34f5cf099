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
    kept = list({entry.record.id: entry for entry in entries}.values())
    for entry in kept:
        _check_form(entry, dim)
    if not kept:
        return []
    # All rows at once: one by one, the checks would take longer than writing the records.
    rows = np.concatenate([entry.vectors for entry in kept])
    norms = _norms(rows)
    if rows.dtype == np.float32 and _all_unit(norms):
        return kept
    ends = np.cumsum([len(entry.vectors) for entry in kept])[:-1]
    return [_fitted(*pair) for pair in zip(kept, np.split(norms, ends), strict=True)]


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


def _check_form(entry: Entry, dim: int) -> None:
    record_id, shape = entry.record.id, np.shape(entry.vectors)
    if len(shape) != 2 or shape[1] != dim or not shape[0]:
        raise CbirError(
            f"record '{record_id}' has vectors of shape {shape}; expected (parts, {dim})"
        )
    if len(entry.boxes) != shape[0] or tuple(entry.boxes[0]) != WHOLE:
        raise CbirError(
            f"record '{record_id}' has {len(entry.boxes)} boxes for {shape[0]} vectors",
            "give one a vector, the whole image first",
        )
    if entry.record.metadata:
        checked_metadata(record_id, entry.record.metadata)


def _fitted(entry: Entry, norms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Entry:
    """`entry` with unit rows of float32; raises `CbirError` where they are far from it."""
    if not np.all(np.abs(norms - 1) <= NORM_TOLERANCE):  # also false for NaN
        raise CbirError(
            f"record '{entry.record.id}' has a vector that is not finite and of unit norm"
        )
    vectors = np.asarray(entry.vectors)
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
