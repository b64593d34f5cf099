"""The index interface that every engine implements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.types import Box, DescriptorSpec, Failure, ImageRecord, MetadataValue, ModelFile, Vectors

SCORE_TOLERANCE = 2e-6
"""Scores that differ by less than this count as equal across engines and batch sizes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record to add, with vectors (parts, dim) and one box per part (part 0: WHOLE).

    `thumbnail` is an encoded image of at most 256 x 256 pixels (see images.thumbnails).
    """

    record: ImageRecord
    vectors: Vectors
    boxes: Sequence[Box]
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """The stored state of an image, used to detect changed files and details."""

    content_hash: str
    file_size: int | None
    mtime_ns: int | None
    missing: bool
    parts: int
    label: str | None
    metadata: Mapping[str, MetadataValue]
    stamp: str | None = None
    decoder: int = 0
    given: frozenset[str] = frozenset()

    @property
    def file(self) -> FileState:
        """The file as it was when the record was last written or touched."""
        return FileState(self.file_size, self.mtime_ns, self.stamp, self.decoder)


class FileState(NamedTuple):
    """The state of an image's file; see the fields of `ImageRecord`."""

    file_size: int | None
    mtime_ns: int | None
    stamp: str | None
    decoder: int


@dataclass(frozen=True, slots=True)
class SourceRun:
    """The last run of a source: when it began (seconds since 1970), and whether it finished."""

    at: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An image that a person removed, and the state of its file then.

    `at`: when it was removed, in seconds since 1970. See `ImageRecord` for the other fields.
    """

    id: str
    source: str
    location: str
    content_hash: str
    file_size: int | None
    mtime_ns: int | None
    stamp: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Matches:
    """The results of one query, best first: m <= k records.

    `ids`: m record ids. `scores`: float32 (m,), the exact cosine of the best part. `boxes`: the
    best part's box, None for part 0 (the whole image).
    """

    ids: list[str]
    scores: NDArray[np.float32]
    boxes: list[Box | None]


@dataclass(frozen=True)
class Spares:
    """Where a repair finds good copies.

    `thumbnail`: the thumbnail of a record drawn from its original, None if that is gone or another
    picture. `model_files`: the descriptor's files, from elsewhere than the index; may be empty.
    """

    thumbnail: Callable[[ImageRecord], bytes | None] = lambda _: None
    model_files: Callable[[], Mapping[str, ModelFile]] = dict


NO_SPARES = Spares()


class Detail(NamedTuple):
    """Label and metadata of an image, and which of them were given; see `ImageRecord`."""

    label: str | None
    metadata: Mapping[str, MetadataValue]
    given: frozenset[str] = frozenset()


Details: TypeAlias = Mapping[str, Detail]
"""By id."""

FileStates: TypeAlias = Mapping[str, FileState]
"""Id -> state of the file."""


class Index(Protocol):
    """Records and vectors of one spec.

    An index is open for reading, or for writing by one writer at a time. A call's writes are
    durable when it returns. Matches are ordered by descending score, then by ascending id (byte
    order); the cutoff at k respects this order. `records`, `vectors` and `thumbnail` raise
    `RecordGoneError` for an unknown id, and no call raises it for another reason; calls that
    change records skip unknown ids.
    """

    url: str
    engine: str
    writable: bool

    @property
    def identity(self) -> str:
        """What tells this index from all others that the machine opens, wherever its folder is."""

    @property
    def spec(self) -> DescriptorSpec: ...

    def count(self) -> int:
        """Number of records."""

    def register_source(self, name: str, uri: str) -> str:
        """The registered name of the source at `uri`; a new one becomes `name`, `name-2`, ..."""

    def move_source(self, name: str, uri: str) -> None:
        """Change the URI of the source `name`.

        Raises `QueryError` if no source has that name or another source has that URI.
        """

    def remove_source(self, name: str) -> list[str]:
        """Remove the source `name` with its records, failures and tombstones. One transaction.

        Returns the ids of the records. Raises `QueryError` if no source has that name.
        """

    def sources(self) -> dict[str, str]:
        """Registered source names and their URIs."""

    def source_counts(self) -> dict[str, tuple[int, int]]:
        """Source name -> the numbers of its records, and of those marked as missing."""

    def runs(self) -> dict[str, SourceRun]:
        """The last run of each registered source that has one."""

    def set_run(self, source: str, run: SourceRun) -> None:
        """Store the last run of a registered source."""

    def stamps(self, source: str) -> dict[str, Stamp]:
        """Id -> stamp of every record of the registered source."""

    def contents(self, parts: int) -> dict[str, list[str]]:
        """Content hash -> ids, in byte order, of the records that have `parts` vectors."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Add or replace records by id, and drop the tombstones of these ids. One transaction.

        An engine without transactions raises `RecordsRefusedError` for the records it refuses and
        keeps the others.
        """

    def remove(self, ids: Iterable[str]) -> list[str]:
        """Remove records and return the ids that existed. One transaction."""

    def rename(
        self,
        renamed: Mapping[str, ImageRecord],
        sources: Mapping[str, str] | None = None,
        tombstones: Sequence[Tombstone] = (),
    ) -> None:
        """Give records new ids; they keep vectors and thumbnails. One transaction.

        `renamed`: old id -> the whole record under its new id. A record that has a new id already
        is replaced, unless it is renamed too, so records can swap ids. `sources`: old name -> new
        name of sources to rename; if the new name is registered, the old source is dropped.
        `tombstones`: replace those of these sources. An engine without transactions completes an
        interrupted call when it is repeated.
        """

    def bury(self, tombstones: Sequence[Tombstone]) -> list[str]:
        """Remove the records of these ids for a person, who does not want them back.

        Keeps the tombstones, also of ids without a record. Returns the ids that had one. One
        transaction.
        """

    def unbury(self, ids: Iterable[str]) -> None:
        """Drop the tombstones of these ids. One transaction."""

    def tombstones(self, ids: Iterable[str] | None = None) -> dict[str, Tombstone]:
        """Id -> tombstone of the images that a person removed: of all, or of `ids`, in id order."""

    def set_details(self, details: Details) -> None:
        """Replace the label and metadata of the records with these ids. One transaction."""

    def touch(self, files: FileStates) -> None:
        """Set the file state of unchanged images and clear `missing`. One transaction."""

    def mark_missing(self, ids: Iterable[str]) -> None:
        """Mark records as missing. One transaction."""

    def set_failures(self, source: str, failures: Sequence[Failure]) -> None:
        """Replace the failures of `source`."""

    def failures(self) -> list[Failure]:
        """The images of all sources that could not be added."""

    def refresh(self) -> None:
        """Update the search structures if that is due; writers call this at the end of a run."""

    def search(
        self,
        vectors: Vectors,
        k: int,
        *,
        where: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        exact: bool = False,
    ) -> list[Matches]:
        """The k best records for each row of `vectors` (q, dim).

        `where`: filters (see index.filters), combined with AND. `exclude`: one id, or None, per
        query to leave out of its results. `exact`: no approximation. Raises `QueryError` for
        invalid queries, k, filters or exclusions.
        """

    def records(self, ids: Sequence[str]) -> list[ImageRecord]:
        """The records of `ids`, in that order."""

    def vectors(self, record_id: str) -> Vectors:
        """The vectors (parts, dim) of a record."""

    def thumbnail(self, record_id: str) -> bytes | None:
        """The encoded thumbnail of a record, or None."""

    def metadata_fields(self) -> list[str]:
        """The metadata keys in use, sorted."""

    def values(self, field: str, most: int, among: int | None = None) -> list[MetadataValue]:
        """Up to `most` different values of a field, the most frequent first.

        `field`: a metadata key, or one of filters.FIELDS but `path`. `among`: it is enough to look
        at that many records that have the field.
        """

    def labels(self) -> dict[str, str | None]:
        """Id -> label of every record."""

    def matrix(self) -> tuple[list[str], Vectors]:
        """All ids in byte order and their part-0 vectors (n, dim), for evaluation."""

    def ids(self, where: Sequence[str] = ()) -> Iterator[str]:
        """The ids of the records that pass the filters, by default of all, in byte order."""

    def entries(self, after: str = "") -> Iterator[Entry]:
        """All entries with an id above `after`, in id order, for copying."""

    def verify(self, repair: bool = False, spares: Spares = NO_SPARES) -> list[str]:
        """The problems found, one line each; `repair` fixes what it can, also from `spares`."""

    def info(self) -> dict[str, Any]:
        """The content of `cbir info --json`: count, dim, engine, descriptor, failed, size, ..."""

    def model_files(self) -> Mapping[str, ModelFile]:
        """The descriptor's files, if the index keeps them."""

    def close(self) -> None:
        """Release files and locks."""


def descriptor_info(spec: DescriptorSpec) -> dict[str, str]:
    """The descriptor's fields in `Index.info`."""
    names = ("name", "fingerprint", "trained_on", "licence")
    return {name: getattr(spec, name) for name in names}


def difference(one: Matches, other: Matches, tolerance: float = SCORE_TOLERANCE) -> str:
    """The first difference between two exact results for one query, in one line; "" if none.

    Engines may differ in scores by up to `tolerance`, in the order of records with scores that
    close, and in which of these records fill the last ranks.
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
                return f"'{record_id}' with {score:.7f} is out of place in the other result"
    return ""
