"""Validation of entries and queries, shared by all engines."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError, QueryError
from cbir.index.base import Entry
from cbir.types import UNIT_TOLERANCE, WHOLE, DescriptorSpec, MetadataValue, Vectors

_ROUNDING = 1e-6


def checked_entries(entries: Sequence[Entry], dim: int) -> list[Entry]:
    """The last entry of each id; raises `CbirError` for an invalid entry.

    Scales vectors whose norm is within `UNIT_TOLERANCE` of 1, so that scores are cosines.
    """
    kept = list({entry.record.id: entry for entry in entries}.values())
    for entry in kept:
        _check_form(entry, dim)
    if not kept:
        return []
    # Check all rows at once: row-by-row checks would take longer than writing the records.
    rows = np.concatenate([entry.vectors for entry in kept])
    norms = _norms(rows)
    if rows.dtype == np.float32 and _all_unit(norms):
        return kept
    ends = np.cumsum([len(entry.vectors) for entry in kept])[:-1]
    return [_scaled_entry(*pair) for pair in zip(kept, np.split(norms, ends), strict=True)]


def check_metadata(record_id: str, metadata: Mapping[str, MetadataValue]) -> None:
    """Raise `CbirError` unless every value is a string or a finite number."""
    for name, value in metadata.items():
        if not isinstance(value, str | int | float) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise CbirError(
                f"record '{record_id}': metadata {name}={value!r} cannot be stored",
                "metadata values are text or finite numbers",
            )


def checked_queries(
    vectors: Vectors,
    k: int,
    exclude: Sequence[str | None] | None,
    spec: DescriptorSpec,
    most: int | None = None,
) -> Vectors:
    """The query vectors as float32 (q, dim) of unit norm.

    Raises `QueryError` for vectors that do not fit `spec`, for a k outside 1..`most`, and for an
    `exclude` that does not have one id per query.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != spec.dim:
        raise QueryError(
            f"queries of shape {rows.shape} do not fit an index of {spec.short} ({spec.dim}-d)",
            "describe the queries with the index's own descriptor",
        )
    norms = _norms(rows)
    if not np.all(np.isfinite(norms) & (norms > 0)):
        raise QueryError("a query vector is zero or not finite")
    check_k(k, most)
    if exclude is not None and len(exclude) != len(rows):
        raise QueryError(
            f"{len(exclude)} ids to exclude for {len(rows)} queries",
            "give one id, or None, per query",
        )
    return rows if _all_unit(norms) else _scaled(rows, norms)


def check_whole(name: str, value: object) -> None:
    """Raise `QueryError` unless `value` is a whole number."""
    try:
        operator.index(value)  # type: ignore[arg-type]  # which is the question
    except TypeError:
        raise QueryError(
            f"{name} is {value!r}", f"give a whole number, such as {name}=10"
        ) from None


def check_k(k: int, most: int | None = None) -> None:
    """Raise `QueryError` unless k is from 1 to `most`."""
    check_whole("k", k)
    if k < 1:
        raise QueryError(f"k is {k}", "ask for at least one hit")
    if most is not None and k > most:
        raise QueryError(f"k is {k}", f"ask for at most {most:,} hits")


def _check_form(entry: Entry, dim: int) -> None:
    record_id, shape = entry.record.id, np.shape(entry.vectors)
    if len(shape) != 2 or shape[1] != dim or not shape[0]:
        raise CbirError(
            f"record '{record_id}' has vectors of shape {shape}; expected (parts, {dim})"
        )
    if len(entry.boxes) != shape[0] or tuple(entry.boxes[0]) != WHOLE:
        raise CbirError(
            f"record '{record_id}' has {len(entry.boxes)} boxes for {shape[0]} vectors",
            "give one box per vector, the whole image first",
        )
    if entry.record.metadata:
        check_metadata(record_id, entry.record.metadata)


def _scaled_entry(entry: Entry, norms: NDArray[np.float64]) -> Entry:
    """`entry` with float32 unit rows; raises `CbirError` if a norm is too far from 1."""
    if not np.all(np.abs(norms - 1) <= UNIT_TOLERANCE):  # also false for NaN
        raise CbirError(
            f"record '{entry.record.id}' has a vector that is not finite and of unit norm"
        )
    vectors = np.asarray(entry.vectors)
    if vectors.dtype == np.float32 and _all_unit(norms):
        return entry
    return replace(entry, vectors=_scaled(vectors, norms))


def _norms(rows: Vectors) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.sqrt(squares)


def _all_unit(norms: NDArray[np.float64]) -> bool:
    return bool(np.all(np.abs(norms - 1) <= _ROUNDING))


def _scaled(rows: Vectors, norms: NDArray[np.float64]) -> Vectors:
    return (rows.astype(np.float64) / norms[:, None]).astype(np.float32)
