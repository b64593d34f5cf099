"""One indexing run: what is new is described, what is known is kept, all in committed batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cbir.descriptors.contract import Descriptor
from cbir.errors import CbirError, RecordsRefusedError
from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.index.base import Entry, Index, Stamp
from cbir.ingest.describe import Described, Outcome, Unchanged, Unreadable, describe_items
from cbir.ingest.metadata import Metadata
from cbir.types import AddReport, Box, Failure, ImageRecord, MetadataValue

COMMIT_RECORDS = 1024
COMMIT_SECONDS = 2.0
TELL_SECONDS = 0.1
ROOT = "."
"""Location of a failure that is the source's own: its folder or archive cannot be read on."""

Prune = bool | Literal["force"]
"""Whether to drop the records of files that are gone; "force": even if most of them are."""

Details = tuple[str | None, Mapping[str, MetadataValue]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: images done, of how many (None: not known), failures among them."""

    done: int
    total: int | None
    failed: int


OnProgress = Callable[[Progress], None]


class PruneRefusedError(CbirError):
    """Pruning was refused for sources that lost more than half of their indexed images.

    `found`: for each of them, how many were found, and of how many. `report`: what the run did.
    """

    def __init__(self, found: Mapping[str, tuple[int, int]], report: AddReport) -> None:
        (first, (number, held)), *others = found.items()
        super().__init__(
            f"nothing was dropped from {first}, where {number} of {held} indexed images were found"
            + "".join(f", and from {name}, where {n} of {of} were" for name, (n, of) in others),
            "check that the folder or drive is complete; --force-prune drops the records anyway",
        )
        self.report = report


@dataclass
class _Source:
    """One source during a run: what the index knew of it, and what was seen.

    `again`: what an archive holds a second time. The last one counts, whatever was known.
    """

    name: str
    scope: str
    known: Mapping[str, Stamp]
    seen: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)

    def stamp(self, record_id: str) -> Stamp | None:
        """What proves an image unchanged, None where nothing can."""
        return None if record_id in self.again else self.known.get(record_id)

    def covers(self, key: str) -> bool:
        """Whether this source yields `key`: its scope is a prefix, or one key."""
        if self.scope and not self.scope.endswith("/"):
            return key == self.scope
        return key.startswith(self.scope)


class IndexingRun:
    """Collects what is described, commits it in batches, keeps the report."""

    def __init__(
        self,
        index: Index,
        descriptor: Descriptor,
        boxes: Sequence[Box],
        metadata: Metadata | None,
        on_progress: OnProgress,
    ) -> None:
        self.report = AddReport()
        self.lost: dict[str, tuple[int, int]] = {}
        """Sources that were not pruned: indexed images found, and of how many."""
        self._index = index
        self._descriptor = descriptor
        self._boxes = boxes
        self._metadata = metadata
        self._on_progress = on_progress
        self._state: _Source | None = None
        self._total: int | None = None
        self._done = 0
        self._told = 0.0
        self._entries: list[Entry] = []
        self._details: dict[str, Details] = {}
        self._touched: dict[str, tuple[int | None, int | None]] = {}
        self._replaced = 0
        self._last_commit = time.monotonic()

    def add_sources(self, sources: Sequence[ImageSource], prune: Prune) -> None:
        counts = [source.count for source in sources]
        known = [count for count in counts if count is not None]
        self._total = sum(known) if len(known) == len(counts) else None
        for source in sources:
            self._add_source(source, prune)
        self._on_progress(self._progress())

    def commit(self) -> None:
        """Make all that was collected durable."""
        entries, details, touched = self._entries, self._details, self._touched
        refused = self._refused(entries)
        if details:
            self._index.set_details(details)
        if touched:
            self._index.touch(touched)
        self.report.added += len(entries) - self._replaced - refused
        self.report.updated += self._replaced + len(details)
        self._entries, self._details, self._touched, self._replaced = [], {}, {}, 0
        self._last_commit = time.monotonic()

    def _refused(self, entries: Sequence[Entry]) -> int:
        """Add `entries`; returns how many of them the engine would not take."""
        if not entries:
            return 0
        try:
            self._index.add(entries)
        except RecordsRefusedError as error:
            assert self._state is not None
            for entry in entries:
                if entry.record.id in error.reasons:
                    self._fail(self._state, entry.record.location, error.reasons[entry.record.id])
            return len(error.reasons)
        return 0

    def _add_source(self, source: ImageSource, prune: Prune) -> None:
        name = self._index.register_source(source.name, source.uri)
        state = self._state = _Source(name, source.scope, self._index.stamps(name))
        finished = False
        try:
            for outcomes in describe_items(
                self._changed(source, state),
                self._descriptor,
                self._boxes,
                lambda item: self._expected_hash(state.stamp(make_id(name, item.key))),
            ):
                for outcome in outcomes:
                    self._take(outcome, state)
                self._commit_if_due()
                self._tell()
            self.commit()
            finished = True
        finally:
            self._keep_failures(state, finished)
        self._settle_missing(state, prune)
        self.report.ignored += source.ignored

    def _changed(self, source: ImageSource, state: _Source) -> Iterator[SourceItem]:
        """The items that must be read, because their stamps do not prove them unchanged."""
        for item in self._items(source, state):
            record_id = make_id(state.name, item.key)
            if record_id in state.seen:
                state.again.add(record_id)
            state.seen.add(record_id)
            stamp = state.stamp(record_id)
            if stamp is not None and self._same_file(item, stamp):
                self._keep(record_id, item, stamp)
            else:
                yield item

    def _items(self, source: ImageSource, state: _Source) -> Iterator[SourceItem]:
        """The source's items; damage in the middle of it is a failure, and ends it."""
        try:
            yield from source.items()
        except CbirError as error:
            if not state.seen:
                raise
            self._fail(state, ROOT, error.message)

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
        details = self._facts(record_id, item, stamp)
        if details != (stamp.label, stamp.metadata):
            self._details[record_id] = details
        else:
            self.report.unchanged += 1
        file = (item.file_size, item.mtime_ns)
        if stamp.missing or file != (stamp.file_size, stamp.mtime_ns):
            self._touched[record_id] = file
        self._done += 1
        self._commit_if_due()
        self._tell()

    def _take(self, outcome: Outcome, state: _Source) -> None:
        item = outcome.item
        record_id = make_id(state.name, item.key)
        if isinstance(outcome, Unchanged):
            self._keep(record_id, item, state.known[record_id])
            return
        self._done += 1
        if isinstance(outcome, Unreadable):
            self._fail(state, item.location, outcome.reason)
            return
        self._entries.append(self._entry(record_id, outcome, state))
        self._replaced += record_id in state.known

    def _fail(self, state: _Source, location: str, reason: str) -> None:
        failure = Failure(state.name, location, reason)
        state.failures.append(failure)
        self.report.failures.append(failure)

    def _entry(self, record_id: str, described: Described, state: _Source) -> Entry:
        item = described.item
        label, metadata = self._facts(record_id, item, state.known.get(record_id))
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

    def _facts(self, record_id: str, item: SourceItem, stamp: Stamp | None) -> Details:
        """Label and metadata of an item; where this run says nothing, what the index has stays.

        A row of the metadata file replaces all fields of its record; its label wins over the
        folder's.
        """
        label, metadata = (stamp.label, stamp.metadata) if stamp else (None, {})
        label = item.label or label
        row = dict(self._metadata.lookup(record_id, item.location)) if self._metadata else {}
        if row:
            told = row.pop("label", None)
            label, metadata = (label if told is None else str(told)), row
        return label, metadata

    def _commit_if_due(self) -> None:
        waiting = len(self._entries) + len(self._details) + len(self._touched)
        if waiting >= COMMIT_RECORDS or (
            waiting and time.monotonic() - self._last_commit > COMMIT_SECONDS
        ):
            self.commit()

    def _keep_failures(self, state: _Source, finished: bool) -> None:
        """Store this run's failures; those of images that it did not come to stay."""
        again = {failure.location for failure in state.failures}
        older = [
            failure
            for failure in self._index.failures()
            if failure.source == state.name
            and failure.location not in again
            and not (finished and (failure.location == ROOT or state.covers(failure.location)))
        ]
        self._index.set_failures(state.name, [*older, *state.failures])

    def _settle_missing(self, state: _Source, prune: Prune) -> None:
        """Mark, or with `prune` drop, records of this source whose files were not found.

        What lies in a folder that could not be read was not found either, but may well be there.
        """
        if any(failure.location == ROOT for failure in state.failures):
            return
        unread = tuple(f"{make_id(state.name, failure.location)}/" for failure in state.failures)
        start = len(state.name) + 1
        held = [record_id for record_id in state.known if state.covers(record_id[start:])]
        gone = [i for i in held if i not in state.seen and not i.startswith(unread)]
        if prune is True and len(gone) > len(held) / 2:  # an unmounted drive looks the same
            self.lost[state.name] = (len(held) - len(gone), len(held))
        elif prune:
            self.report.removed += len(self._index.remove(gone))
            return
        self._index.mark_missing(gone)
        self.report.missing += len(gone)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._on_progress(self._progress())

    def _progress(self) -> Progress:
        return Progress(self._done, self._total, len(self.report.failures))
