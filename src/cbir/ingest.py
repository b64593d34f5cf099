"""Indexing: source -> decode -> describe -> add, skipping what has not changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cbir.descriptors.base import Descriptor, describe
from cbir.descriptors.models import descriptor_of, files_of, load_descriptor
from cbir.errors import CbirError
from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.images.sources import open_source
from cbir.index.base import Entry, Index, Stamp
from cbir.index.open import create_index, index_exists, open_index
from cbir.metadata import Metadata, read_metadata
from cbir.pipeline import Described, Outcome, Unchanged, Unreadable, describe_items
from cbir.types import WHOLE, AddReport, Box, Failure, ImageRecord, MetadataValue

# Its posterior knows ten classes only: for other pictures the embedding alone is the better half.
DEFAULT_DESCRIPTOR = "cifar10-cnn:embedding"
COMMIT_RECORDS = 1024
COMMIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: images done, of how many (None: not known), failures among them."""

    done: int
    total: int | None
    failed: int


OnProgress = Callable[[Progress], None]


def index_images(
    sources: Sequence[str | ImageSource],
    into: str,
    *,
    descriptor: str | Descriptor | None = None,
    label_from_folder: bool = False,
    metadata: Path | None = None,
    regions: int = 1,
    prune: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> AddReport:
    """Add every image of `sources` to the index at `into`, which is created if need be.

    Unchanged images are skipped; changed ones replace their records; images that cannot be read
    are listed in the report and in the index. `regions` (1, 5 or 14) is how many parts of each
    picture get a vector. Files that are gone are marked missing, or dropped with `prune`. An
    interruption (Ctrl-C) keeps all that was committed and is noted in the report.
    """
    boxes = region_boxes(regions)
    opened = [open_source(s, label_from_folder) if isinstance(s, str) else s for s in sources]
    details = read_metadata(metadata) if metadata else None
    chosen = choose_descriptor(opened, into, descriptor)
    # A descriptor that cannot run at all should say so once, not once an image.
    describe(chosen, [np.full((32, 32, 3), 127, dtype=np.uint8)])
    with closing(create_index(into, chosen.spec, files_of(chosen))) as index:
        run = _Run(index, chosen, boxes, details, on_progress)
        started = time.perf_counter()
        try:
            for source in opened:
                run.add_source(source, prune)
        except KeyboardInterrupt:
            run.report.interrupted = True
            run.commit()
        index.refresh()
        run.report.seconds = time.perf_counter() - started
    if details is not None:
        run.report.unused_metadata = details.unused()
    return run.report


def choose_descriptor(
    sources: Sequence[ImageSource], into: str, requested: str | Descriptor | None
) -> Descriptor:
    """The descriptor to index with: the requested one, the index's own, or the source's default."""
    if isinstance(requested, str):
        return load_descriptor(requested)
    if requested is not None:
        return requested
    if index_exists(into):
        with closing(open_index(into)) as index:
            return descriptor_of(index.spec, index.model_files())
    return default_descriptor(sources)


def default_descriptor(sources: Sequence[ImageSource]) -> Descriptor:
    """What a new index of `sources` is built with when nothing is said: the sources' own choice."""
    own = {source.descriptor or DEFAULT_DESCRIPTOR for source in sources}
    return load_descriptor(own.pop() if len(own) == 1 else DEFAULT_DESCRIPTOR)


def region_boxes(regions: int) -> list[Box]:
    """The parts of a picture that get a vector: 1 (whole), 5 (+ 2x2) or 14 (+ 3x3 overlapping)."""
    quarters = _grid(count=2, size=0.5)
    ninths = _grid(count=3, size=0.4)
    layouts = {1: [WHOLE], 5: [WHOLE, *quarters], 14: [WHOLE, *quarters, *ninths]}
    if regions not in layouts:
        raise CbirError(f"{regions} regions are not possible", "choose 1, 5 or 14")
    return layouts[regions]


def _grid(count: int, size: float) -> list[Box]:
    starts = [i * (1 - size) / (count - 1) for i in range(count)]
    return [(x, y, x + size, y + size) for y in starts for x in starts]


@dataclass
class _Source:
    """One source during a run: what the index knew of it, and what was seen."""

    name: str
    known: Mapping[str, Stamp]
    total: int | None
    seen: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)


class _Run:
    """One indexing run: collects what is described, commits it in batches, keeps the report."""

    def __init__(
        self,
        index: Index,
        descriptor: Descriptor,
        boxes: Sequence[Box],
        metadata: Metadata | None,
        on_progress: OnProgress,
    ) -> None:
        self.report = AddReport()
        self._index = index
        self._descriptor = descriptor
        self._boxes = boxes
        self._metadata = metadata
        self._on_progress = on_progress
        self._entries: list[Entry] = []
        self._details: dict[str, tuple[str | None, Mapping[str, MetadataValue]]] = {}
        self._back: list[str] = []
        self._replaced = 0
        self._last_commit = time.monotonic()
        self._done = 0

    def add_source(self, source: ImageSource, prune: bool) -> None:
        name = self._index.register_source(source.name, source.uri)
        state = _Source(name, self._index.stamps(name), source.count)
        for outcomes in describe_items(
            self._changed(source, state),
            self._descriptor,
            self._boxes,
            lambda item: self._expected_hash(state.known.get(make_id(name, item.key))),
        ):
            for outcome in outcomes:
                self._take(outcome, state)
            self._commit_if_due()
            self._tell(state)
        self.commit()
        self._index.set_failures(name, state.failures)
        self._settle_missing(source, state, prune)
        self.report.ignored += source.ignored
        self._tell(state)

    def commit(self) -> None:
        """Make all that was collected durable."""
        entries, details, back = self._entries, self._details, self._back
        if entries:
            self._index.add(entries)
        if details:
            self._index.set_details(details)
        if back:
            self._index.mark_missing(back, missing=False)
        self.report.added += len(entries) - self._replaced
        self.report.updated += self._replaced + len(details)
        self._entries, self._details, self._back, self._replaced = [], {}, [], 0
        self._last_commit = time.monotonic()

    def _changed(self, source: ImageSource, state: _Source) -> Iterator[SourceItem]:
        """The items that must be read, because their stamps do not prove them unchanged."""
        for item in source.items():
            record_id = make_id(state.name, item.key)
            state.seen.add(record_id)
            stamp = state.known.get(record_id)
            if stamp is not None and self._same_file(item, stamp):
                self._keep(record_id, item, stamp)
            else:
                yield item

    def _same_file(self, item: SourceItem, stamp: Stamp) -> bool:
        return (
            item.mtime_ns is not None
            and item.mtime_ns == stamp.mtime_ns
            and item.file_size == stamp.file_size
            and stamp.parts == len(self._boxes)
        )

    def _expected_hash(self, stamp: Stamp | None) -> str | None:
        return stamp.content_hash if stamp and stamp.parts == len(self._boxes) else None

    def _keep(self, record_id: str, item: SourceItem, stamp: Stamp) -> None:
        """An image that is in the index as it is; what is known about it may have changed."""
        label, metadata = self._facts(record_id, item)
        if self._metadata is None:
            metadata = stamp.metadata
        if label is None:
            label = stamp.label
        if (label, metadata) != (stamp.label, stamp.metadata):
            self._details[record_id] = (label, metadata)
        else:
            self.report.unchanged += 1
        if stamp.missing:
            self._back.append(record_id)
        self._done += 1

    def _take(self, outcome: Outcome, state: _Source) -> None:
        item = outcome.item
        record_id = make_id(state.name, item.key)
        if isinstance(outcome, Unchanged):
            self._keep(record_id, item, state.known[record_id])
            return
        self._done += 1
        if isinstance(outcome, Unreadable):
            failure = Failure(state.name, item.location, outcome.reason)
            state.failures.append(failure)
            self.report.failures.append(failure)
            return
        self._entries.append(self._entry(record_id, outcome, state))
        self._replaced += record_id in state.known

    def _entry(self, record_id: str, described: Described, state: _Source) -> Entry:
        item = described.item
        label, metadata = self._facts(record_id, item)
        record = ImageRecord(
            id=record_id,
            source=state.name,
            location=item.location,
            label=label,
            content_hash=described.content_hash,
            width=described.width,
            height=described.height,
            file_size=item.file_size,
            mtime_ns=item.mtime_ns,
            metadata=metadata,
        )
        return Entry(record, described.vectors, self._boxes, described.thumbnail)

    def _facts(
        self, record_id: str, item: SourceItem
    ) -> tuple[str | None, Mapping[str, MetadataValue]]:
        """Label and metadata of an item; a label in the metadata file wins over the folder's."""
        if self._metadata is None:
            return item.label, {}
        found = dict(self._metadata.lookup(record_id, item.location))
        label = found.pop("label", None)
        return (item.label if label is None else str(label)), found

    def _commit_if_due(self) -> None:
        waiting = len(self._entries) + len(self._details)
        if waiting >= COMMIT_RECORDS or (
            waiting and time.monotonic() - self._last_commit > COMMIT_SECONDS
        ):
            self.commit()

    def _settle_missing(self, source: ImageSource, state: _Source, prune: bool) -> None:
        """Mark, or with `prune` drop, records of this source whose files were not found.

        What lies in a folder that could not be read was not found either, but may well be there.
        """
        unread = tuple(f"{make_id(state.name, failure.location)}/" for failure in state.failures)
        gone = [
            record_id
            for record_id in state.known
            if record_id not in state.seen
            and _in_scope(record_id, state.name, source.scope)
            and not record_id.startswith(unread)
        ]
        if prune:
            self.report.removed += len(self._index.remove(gone))
        else:
            self._index.mark_missing(gone)
            self.report.missing += len(gone)

    def _tell(self, state: _Source) -> None:
        self._on_progress(Progress(self._done, state.total, len(self.report.failures)))


def _in_scope(record_id: str, name: str, scope: str) -> bool:
    """Whether a source of this scope should have yielded the record: a prefix, or one key."""
    if scope and not scope.endswith("/"):
        return record_id == make_id(name, scope)
    return record_id.startswith(f"{name}/{scope}")
