"""One indexing run: describes and commits new images in batches, keeps unchanged ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cbir.descriptors.contract import Descriptor
from cbir.errors import CbirError, RecordsRefusedError
from cbir.images.folders import FolderSource
from cbir.images.ids import make_id
from cbir.images.items import RULES, ImageSource, SourceItem
from cbir.index.base import Entry, FileState, Index, SourceRun, Stamp
from cbir.ingest.describe import Described, Outcome, Unchanged, Unreadable, describe_items
from cbir.ingest.metadata import Metadata
from cbir.types import AddReport, Box, Failure, ImageRecord, MetadataValue

log = logging.getLogger(__name__)

COMMIT_RECORDS = 1024
COMMIT_SECONDS = 2.0
TELL_SECONDS = 0.1
ROOT = "."
"""Location of a failure of the source itself: the rest of its folder or archive is unreadable."""

Prune = bool | Literal["force"]
"""Whether to remove the records of files that no longer exist; "force": even if most are gone."""

Details = tuple[str | None, Mapping[str, MetadataValue]]


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run: images done, their total (None: unknown) and failures among them."""

    done: int
    total: int | None
    failed: int


OnProgress = Callable[[Progress], None]


class PruneRefusedError(CbirError):
    """Pruning was refused for sources that lost more than half of their indexed images.

    `found`: by source, the number of images found and the number indexed. `report`: what the run
    did; it removed no record of these sources.
    """

    def __init__(self, found: Mapping[str, tuple[int, int]], report: AddReport) -> None:
        sources = [f"{name} ({n} of {of} indexed images found)" for name, (n, of) in found.items()]
        super().__init__(
            f"refused to prune {', '.join(sources)}",
            "check that the folder or drive is available; --force-prune prunes anyway",
        )
        self.report = report


@dataclass
class IndexingRun:
    """Adds sources to an index, one after another; with `rehash` it reads files again that seem
    unchanged.

    `lost`: the sources that were not pruned, see `PruneRefusedError`.
    """

    index: Index
    descriptor: Descriptor
    boxes: Sequence[Box]
    metadata: Metadata | None
    on_progress: OnProgress
    rehash: bool = False
    report: AddReport = field(default_factory=AddReport)
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)
    done: int = 0
    _total: int | None = None
    _told: float = 0.0

    def add_sources(self, sources: Sequence[ImageSource], prune: Prune) -> None:
        """Add every image of `sources`; after Ctrl-C the report says that it was interrupted."""
        try:
            counts = [source.count for source in sources]
            known = [count for count in counts if count is not None]
            self._total = sum(known) if len(known) == len(counts) else None
            for source in sources:
                _SourceRun(self, source).add(prune)
            self._tell()
        except KeyboardInterrupt:
            self.report.interrupted = True

    def tell_if_due(self) -> None:
        """Report progress, unless it was reported a moment ago."""
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        self.on_progress(Progress(self.done, self._total, len(self.report.failures)))


class _SourceRun:
    """Adds one source; holds the known stamps, the ids seen, and the uncommitted work.

    `_again`: ids that an archive contains more than once; the last image counts, known or not.
    """

    def __init__(self, run: IndexingRun, source: ImageSource) -> None:
        self._run = run
        self._index = run.index
        self._report = run.report
        self._source = source
        self._name = run.index.register_source(source.name, source.uri)
        if isinstance(source, FolderSource) and not source.stamped:
            _say_once(run.index, self._name)
        self._known = run.index.stamps(self._name)
        self._seen: set[str] = set()
        self._again: set[str] = set()
        self._failures: list[Failure] = []
        self._entries: list[Entry] = []
        self._details: dict[str, Details] = {}
        self._touched: dict[str, FileState] = {}
        self._last_commit = time.monotonic()

    def add(self, prune: Prune) -> None:
        """Add new and changed images, then mark or remove missing ones."""
        finished = False
        began = int(time.time())
        self._index.set_run(self._name, SourceRun(began, finished=False))
        try:
            for outcomes in describe_items(
                self._changed(), self._run.descriptor, self._run.boxes, self._expected_hash
            ):
                for outcome in outcomes:
                    self._take(outcome)
                self._commit_if_due()
            self._commit()
            finished = True
        except KeyboardInterrupt:
            self._commit()
            raise
        finally:
            self._keep_failures(finished)
        self._settle_missing(prune)
        self._index.set_run(self._name, SourceRun(began, finished=True))
        self._report.ignored += self._source.ignored

    def _changed(self) -> Iterator[SourceItem]:
        """The items that must be read, because their stamps do not prove them unchanged."""
        for item in self._items():
            record_id = self._id(item)
            if record_id in self._seen:
                self._again.add(record_id)
            self._seen.add(record_id)
            stamp = self._stamp(record_id)
            if stamp and not self._run.rehash and _same_file(item, stamp):
                self._keep(record_id, item, stamp)
                self._commit_if_due()
            else:
                yield item

    def _items(self) -> Iterator[SourceItem]:
        """The source's items; damage in the middle becomes a failure and ends the source."""
        try:
            yield from self._source.items()
        except CbirError as error:
            if not self._seen:
                raise
            self._fail(ROOT, error.message)

    def _id(self, item: SourceItem) -> str:
        return make_id(self._name, item.key)

    def _stamp(self, record_id: str) -> Stamp | None:
        """The stamp of an indexed image, None if the image must be described."""
        stamp = None if record_id in self._again else self._known.get(record_id)
        return stamp if stamp and stamp.parts == len(self._run.boxes) else None

    def _expected_hash(self, item: SourceItem) -> str | None:
        stamp = self._stamp(self._id(item))
        return stamp.content_hash if stamp else None

    def _keep(self, record_id: str, item: SourceItem, stamp: Stamp) -> None:
        """Keep a record whose image is unchanged; its label, metadata or file may have changed."""
        details = self._facts(record_id, item)
        if details != (stamp.label, stamp.metadata):
            self._details[record_id] = details
        else:
            self._report.unchanged += 1
        file = FileState(item.file_size, item.mtime_ns, item.stamp, stamp.decoder)
        if stamp.missing or file != stamp.file:
            self._touched[record_id] = file
        self._run.done += 1

    def _take(self, outcome: Outcome) -> None:
        item = outcome.item
        if isinstance(outcome, Unchanged):
            record_id = self._id(item)
            self._keep(record_id, item, self._known[record_id])
            return
        self._run.done += 1
        if isinstance(outcome, Unreadable):
            self._fail(item.location, outcome.reason)
        else:
            self._entries.append(self._entry(outcome))

    def _entry(self, described: Described) -> Entry:
        item = described.item
        record_id = self._id(item)
        label, metadata = self._facts(record_id, item)
        record = ImageRecord(
            id=record_id,
            source=self._name,
            location=item.location,
            label=label,
            content_hash=described.content_hash,
            width=described.width,
            height=described.height,
            file_size=item.file_size,
            mtime_ns=item.mtime_ns,
            metadata=metadata,
            stamp=item.stamp,
            decoder=RULES,
        )
        return Entry(record, described.vectors, self._run.boxes, described.thumbnail)

    def _facts(self, record_id: str, item: SourceItem) -> Details:
        """Label and metadata of an item; the index's own are kept if this run gives none.

        A row of the metadata file replaces all fields of its record; its label overrides the
        folder's.
        """
        stamp = self._known.get(record_id)
        label, metadata = (stamp.label, stamp.metadata) if stamp else (None, {})
        label = item.label or label
        given = self._run.metadata
        row = given.lookup(record_id, item.location) if given else {}
        if row:
            told = row.pop("label", None)
            label, metadata = (label if told is None else str(told)), row
        return label, metadata

    def _fail(self, location: str, reason: str) -> None:
        failure = Failure(self._name, location, reason)
        self._failures.append(failure)
        self._report.failures.append(failure)

    def _commit_if_due(self) -> None:
        waiting = len(self._entries) + len(self._details) + len(self._touched)
        if waiting >= COMMIT_RECORDS or (
            waiting and time.monotonic() - self._last_commit > COMMIT_SECONDS
        ):
            self._commit()
        self._run.tell_if_due()

    def _commit(self) -> None:
        """Commit everything that was collected."""
        self._add_entries()
        if self._details:
            self._index.set_details(self._details)
        if self._touched:
            self._index.touch(self._touched)
        self._report.updated += len(self._details)
        self._entries, self._details, self._touched = [], {}, {}
        self._last_commit = time.monotonic()

    def _add_entries(self) -> None:
        if not self._entries:
            return
        refused: Mapping[str, str] = {}
        try:
            self._index.add(self._entries)
        except RecordsRefusedError as error:
            refused = error.reasons
        for record in (entry.record for entry in self._entries):
            if record.id in refused:
                self._fail(record.location, refused[record.id])
            elif record.id in self._known:
                self._report.updated += 1
            else:
                self._report.added += 1

    def _keep_failures(self, finished: bool) -> None:
        """Store this run's failures, and keep those of images that it did not reach."""
        again = {failure.location for failure in self._failures}
        older = [
            failure
            for failure in self._index.failures()
            if failure.source == self._name
            and failure.location not in again
            and not (finished and (failure.location == ROOT or self._covers(failure.location)))
        ]
        self._index.set_failures(self._name, [*older, *self._failures])

    def _settle_missing(self, prune: Prune) -> None:
        """Mark as missing, or with `prune` remove, the records whose files were not found.

        Files in a folder that could not be read were not found either, but may well exist.
        """
        if any(failure.location == ROOT for failure in self._failures):
            return
        unread = tuple(f"{make_id(self._name, failure.location)}/" for failure in self._failures)
        start = len(self._name) + 1
        held = [record_id for record_id in self._known if self._covers(record_id[start:])]
        gone = [i for i in held if i not in self._seen and not i.startswith(unread)]
        if prune is True and len(gone) > len(held) / 2:  # an unmounted drive looks the same
            self._run.lost[self._name] = (len(held) - len(gone), len(held))
        elif prune:
            self._report.removed += len(self._index.remove(gone))
            return
        self._index.mark_missing(gone)
        self._report.missing += len(gone)

    def _covers(self, key: str) -> bool:
        """Whether the source yields `key`: its scope is a prefix, or one key."""
        scope = self._source.scope
        return key.startswith(scope) if not scope or scope.endswith("/") else key == scope


def _say_once(index: Index, name: str) -> None:
    """Say at the first run of a source what its file system cannot tell."""
    if name not in index.runs():
        log.warning(
            "source %s: this file system does not tell files of equal size and time apart; "
            "--rehash does",
            name,
        )


def _same_file(item: SourceItem, stamp: Stamp) -> bool:
    """Whether size, time and, where both are known, the stamps say that it is the same file."""
    return (
        item.mtime_ns is not None
        and item.mtime_ns == stamp.mtime_ns
        and item.file_size == stamp.file_size
        and (None in (item.stamp, stamp.file_stamp) or item.stamp == stamp.file_stamp)
    )
