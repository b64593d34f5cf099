"""What an index is: the calls that every engine answers in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.types import Box, DescriptorSpec, Failure, ImageRecord, MetadataValue, Vectors

SCORE_TOLERANCE = 2e-6
"""Scores closer than this are equal between engines, and between batch sizes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record to add: its vectors (parts, dim), a box for each part (part 0: WHOLE).

    `thumbnail` is an encoded picture of at most 256 px (see images.thumbnails).
    """

    record: ImageRecord
    vectors: Vectors
    boxes: Sequence[Box]
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a changed file, or changed details of it, are recognised."""

    content_hash: str
    file_size: int | None
    mtime_ns: int | None
    missing: bool
    parts: int
    label: str | None
    metadata: Mapping[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class Matches:
    """The answer to one query, best first: m <= k records.

    `ids`: m record ids. `scores`: float32 (m,), the true cosine of the best part. `boxes`: the
    best part's box, None for part 0 (the whole image).
    """

    ids: list[str]
    scores: NDArray[np.float32]
    boxes: list[Box | None]


Details: TypeAlias = Mapping[str, tuple[str | None, Mapping[str, MetadataValue]]]
"""Id -> label and metadata."""

FileStates: TypeAlias = Mapping[str, tuple[int | None, int | None]]
"""Id -> file size (bytes) and mtime_ns."""


class Index(Protocol):
    """Records and vectors of one spec.

    Open for reading, or for one writer at a time. What a call has written is durable when it
    returns. Order of matches: score descending, then id ascending by bytes, exact at the cut.
    `records`, `vectors` and `thumbnail` raise `RecordGoneError` for an id that the index does not
    hold, and no call raises it for another reason; calls that change records skip such ids.
    """

    url: str
    engine: str
    writable: bool

    @property
    def spec(self) -> DescriptorSpec: ...

    def count(self) -> int:
        """Number of records."""

    def register_source(self, name: str, uri: str) -> str:
        """The registered name of the source at `uri`; `name`, `name-2`, ... for a new one."""

    def move_source(self, name: str, uri: str) -> None:
        """Register another URI for the source `name`.

        Raises `QueryError` if no source has that name, or another source has that URI.
        """

    def sources(self) -> dict[str, str]:
        """Registered source names and their URIs."""

    def stamps(self, source: str) -> dict[str, Stamp]:
        """Id -> stamp of every record of the registered source."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Add or replace records by id, in one transaction.

        An engine without transactions raises `RecordsRefusedError` for the records that it does
        not take, and keeps the others.
        """

    def remove(self, ids: Iterable[str]) -> list[str]:
        """Remove records; returns the ids that were there. One transaction."""

    def set_details(self, details: Details) -> None:
        """Replace label and metadata of the records of these ids. One transaction."""

    def touch(self, files: FileStates) -> None:
        """Set file states of unchanged content, and clear the mark `missing`. One transaction."""

    def mark_missing(self, ids: Iterable[str]) -> None:
        """Mark records whose file was not found. One transaction."""

    def set_failures(self, source: str, failures: Sequence[Failure]) -> None:
        """Replace the list of failed images of `source`."""

    def failures(self) -> list[Failure]:
        """Images that could not be added, of all sources."""

    def refresh(self) -> None:
        """Bring the search structures up to date (writers call it at the end of a run)."""

    def search(
        self,
        vectors: Vectors,
        k: int,
        *,
        where: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        exact: bool = False,
    ) -> list[Matches]:
        """The k best records for each row of `vectors` (q, dim), one `Matches` for each.

        `where`: filters (see index.filters), all of which must hold. `exclude`: for each query an
        id that must not be in its answer, or None. `exact`: without approximation. Raises
        `QueryError` for queries, k, filters or exclusions that cannot be answered.
        """

    def records(self, ids: Sequence[str]) -> list[ImageRecord]:
        """The records of `ids`, in that order."""

    def vectors(self, record_id: str) -> Vectors:
        """The record's vectors (parts, dim)."""

    def thumbnail(self, record_id: str) -> bytes | None:
        """The record's encoded thumbnail, None if it has none."""

    def labels(self) -> dict[str, str | None]:
        """Id -> label of every record."""

    def matrix(self) -> tuple[list[str], Vectors]:
        """All ids in byte order and their part-0 vectors (n, dim), for evaluation."""

    def ids(self) -> Iterator[str]:
        """All ids in byte order."""

    def entries(self, after: str = "") -> Iterator[Entry]:
        """Everything in the index with an id above `after`, id by id, for copying."""

    def verify(self, repair: bool = False) -> list[str]:
        """Problems found, one line each; `repair` rebuilds what can be rebuilt."""

    def info(self) -> dict[str, Any]:
        """What `cbir info --json` shows: count, dim, engine, descriptor, failed, size, ..."""

    def model_files(self) -> Mapping[str, bytes]:
        """The descriptor's files, if the index keeps them."""

    def close(self) -> None:
        """Release files and locks."""


def descriptor_info(spec: DescriptorSpec) -> dict[str, str]:
    """What `Index.info` says of the descriptor."""
    names = ("name", "fingerprint", "trained_on", "licence")
    return {name: getattr(spec, name) for name in names}


def difference(one: Matches, other: Matches, tolerance: float = SCORE_TOLERANCE) -> str:
    """The first difference between two exact answers to one query, in one line; "" if none.

    Engines may differ in three ways: scores by up to `tolerance`, the order of records whose
    scores are that close, and which of several such records the last ranks show.
    """
    if len(one.ids) != len(other.ids):
        return f"{len(one.ids)} and {len(other.ids)} hits"
    for rank, (a, b) in enumerate(zip(one.scores.tolist(), other.scores.tolist(), strict=True), 1):
        if abs(a - b) > tolerance:
            return f"scores {a:.7f} and {b:.7f} at rank {rank}"
    scores = [dict(zip(m.ids, m.scores.tolist(), strict=True)) for m in (one, other)]
    for mine, theirs in (scores, scores[::-1]):
        last = min(theirs.values(), default=0.0)
        for record_id, score in mine.items():
            if abs(score - theirs.get(record_id, last)) > tolerance:
                return f"'{record_id}' with {score:.7f} is not where the other has it"
    return ""
