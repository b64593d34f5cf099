"""One source of an indexing run: describes and commits new images, keeps unchanged ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Literal

from cbir.errors import CbirError, RecordsRefusedError
from cbir.images.excludes import ArchiveMembers
from cbir.images.folders import FolderSource
from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.images.rules import RULES, reads_differently
from cbir.images.tars import TarSource
from cbir.index.base import Detail, Entry, FileState, Index, SourceRun, Stamp, Tombstone
from cbir.ingest.describe import (
    Described,
    Hashed,
    OnlyHash,
    Outcome,
    Unreadable,
    describe_all,
    describe_items,
)
from cbir.ingest.details import merged
from cbir.ingest.linked_sources import find_elsewhere, hand_over, is_awaited
from cbir.ingest.moves import source_of
from cbir.ingest.run_state import RunState
from cbir.types import (
    EXIF_FIELDS,
    Failure,
    ImageRecord,
    MetadataValue,
    Note,
    RgbImage,
)
from cbir.wording import listed

log = logging.getLogger(__name__)

COMMIT_RECORDS = 1024
COMMIT_SECONDS = 2.0
ROOT = "."
"""Location of a failure of the source itself: the rest of its folder or archive is unreadable."""

Prune = bool | Literal["force"]
"""Whether to remove the records of files that no longer exist; "force": even if most are gone."""


def skipped_indexes(source: ImageSource) -> list[str]:
    """The paths of the indexes that `source` skipped in its last walk; only folders contain any."""
    return source.indexes if isinstance(source, FolderSource) else []


def is_in(source: ImageSource, name: str, record_id: str) -> bool:
    """Whether `source`, registered as `name`, yields the image of this id, if it is there."""
    start = len(name) + 1
    return record_id[:start] == f"{name}/" and _in_scope(source, record_id[start:])


def _opens_none(source: ImageSource) -> bool:
    """Whether no original of `source` can be opened; it has been walked."""
    archive = source.archive if isinstance(source, ArchiveMembers) else source
    return isinstance(archive, TarSource) and archive.opens_none()


class SourceScan:
    """Adds one source; holds the known stamps, the ids seen, and the uncommitted work.

    `name`: the registered name. `known`: id -> item and content hash of the images whose content
    the index knows from elsewhere. `described`: ids of known records that now have other vectors.
    `_again`: ids that an archive contains more than once; the last image counts, known or not.
    `_put_off`: the items to describe in the end. `_elsewhere`: ids of known records in linked
    folders that belong to another source -> their ids there.
    """

    def __init__(self, run: RunState, source: ImageSource, began: int) -> None:
        self._run = run
        self._index = run.index
        self._report = run.report
        self._source = source
        self._began = began
        self.name = run.index.register_source(source.name, source.uri)
        self._is_whole = not (isinstance(source, FolderSource) and source.scope)
        if self._is_whole:
            run.whole.add(self.name)
        if isinstance(source, FolderSource) and self._is_whole and not source.stamped:
            _say_once(run.index, self.name)
        self._stamps = run.stamps(self.name)
        # Else a tar, which is read from its beginning. A folder is not counted in vain.
        self._reopens = isinstance(source, FolderSource) or source.count is not None
        self._seen: set[str] = set()
        self._again: set[str] = set()
        self._failures: list[Failure] = []
        self._entries: list[Entry] = []
        self._details: dict[str, Detail] = {}
        self._touched: dict[str, FileState] = {}
        self._put_off: dict[str, SourceItem] = {}
        self._last_commit = time.monotonic()
        self.known: dict[str, tuple[SourceItem, str]] = {}
        self._exif: dict[str, Mapping[str, MetadataValue]] = {}
        self.described: set[str] = set()
        self._excluded: set[str] = set()
        self._elsewhere: dict[str, str] = {}

    def read(self) -> None:
        """Read all new and changed images, and describe those of new content."""
        self._set_run(finished=False)
        self._describe(self._changed(), self._only_hash)
        self._excluded = self._find_excluded()

    def finish(self, prune: Prune) -> None:
        """Describe what was put off, then mark or remove missing images."""
        if self._put_off:
            self._describe(iter(self._put_off.values()))
        self._drop_excluded()
        self._settle_missing(prune)
        if self._run.again:
            self._index.unbury([i for i in self._index.tombstones() if self.covers(i)])
        self._set_run(finished=True)
        self._report.count_ignored(self._source.ignored)
        self._report.skipped_indexes += skipped_indexes(self._source)
        self._report.unopened += [self._source.uri] if _opens_none(self._source) else []
        if isinstance(self._source, FolderSource):
            for path, other in self._source.elsewhere.items():
                self._report.nested[self._source.path_of(path)] = source_of(other)

    def _set_run(self, finished: bool) -> None:
        if self._is_whole:
            self._index.set_run(self.name, SourceRun(self._began, finished))

    def _describe(
        self,
        items: Iterator[SourceItem],
        only_hash: OnlyHash = describe_all,
    ) -> None:
        finished = False
        try:
            for outcomes in describe_items(
                items,
                self._run.descriptor,
                self._run.boxes,
                only_hash,
                self._run.limits,
                exif=self._run.exif,
            ):
                for outcome in outcomes:
                    self._take(outcome)
                self._commit_if_due()
            self.commit()
            finished = True
        except KeyboardInterrupt:
            self.commit()
            raise
        finally:
            self._keep_failures(finished)

    def _changed(self) -> Iterator[SourceItem]:
        """The items that must be read, because their stamps do not prove them unchanged."""
        for item in self._items():
            record_id = self._id(item)
            if record_id in self._seen:
                self._again.add(record_id)
            self._seen.add(record_id)
            stamp = self._stamp(record_id)
            tombstone = self._run.buried.get(record_id)
            if stamp and self._is_same(item, stamp) and not self._uncovers(item, stamp):
                self._keep(record_id, item, stamp)
                self._commit_if_due()
            elif tombstone and self._is_same(item, tombstone):
                self._keep_out()
            else:
                _ = self._run.contents  # in this thread, before a worker asks
                self._run.count()
                yield item

    def _is_same(self, item: SourceItem, known: Stamp | Tombstone) -> bool:
        if isinstance(known, Stamp) and known.decoder < RULES:
            return False
        return not self._run.rehash and _same_file(item, known)

    def _uncovers(self, item: SourceItem, stamp: Stamp) -> bool:
        """Whether a metadata file takes a field back that hid one of the picture."""
        hiding = stamp.given.intersection(EXIF_FIELDS) if self._run.exif else None
        return bool(hiding and hiding - self._detail(self._id(item), item, stamp).given)

    def _only_hash(self, item: SourceItem, data: bytes | RgbImage, content: str) -> bool:
        """Whether an image has known content, or changed and can be read again in the end."""
        record_id = self._id(item)
        if record_id in self._again:
            return False
        stamp = self._stamp(record_id)
        if stamp is not None and stamp.content_hash == content:
            return not isinstance(data, bytes) or not reads_differently(
                BytesIO(data), stamp.decoder
            )
        changed = stamp is not None and self._reopens
        return changed or content in self._run.contents or content in self._run.buried_contents

    def _items(self) -> Iterator[SourceItem]:
        """The source's items; damage in the middle becomes a failure and ends the source."""
        try:
            yield from self._source.items()
        except CbirError as error:
            if not self._seen:
                raise
            self._fail(ROOT, error.message)

    def _id(self, item: SourceItem) -> str:
        return make_id(self.name, item.key)

    def _stamp(self, record_id: str) -> Stamp | None:
        """The stamp of an indexed image, None if the image must be described."""
        stamp = None if record_id in self._again else self._stamps.get(record_id)
        return stamp if stamp and stamp.parts == len(self._run.boxes) else None

    def _keep(
        self,
        record_id: str,
        item: SourceItem,
        stamp: Stamp,
        exif: Mapping[str, MetadataValue] | None = None,
    ) -> None:
        """Keep a record whose image is unchanged; its label, metadata or file may have changed."""
        detail = self._detail(record_id, item, stamp, exif)
        if detail != (stamp.label, stamp.metadata, stamp.given):
            self._details[record_id] = detail
        else:
            self._report.unchanged += 1
        state = FileState(item.file_size, item.mtime_ns, item.stamp, RULES)
        if stamp.missing or state != stamp.file:
            self._touched[record_id] = state
        self._run.done += 1

    def _keep_out(self) -> None:
        self._report.kept_out += 1
        self._run.done += 1

    def _take(self, outcome: Outcome) -> None:
        item, record_id = outcome.item, self._id(outcome.item)
        if isinstance(outcome, Hashed):
            self._take_hashed(record_id, outcome)
            return
        self.known.pop(record_id, None)
        self._run.done += 1
        if isinstance(outcome, Unreadable):
            self._fail(item.location, outcome.reason)
        else:
            self.described.add(record_id)
            self._report.returned += record_id in self._run.buried
            self._entries.append(self._entry(outcome))
            notes = [Note(self.name, item.location, text) for text in outcome.notes]
            self._report.notes += notes

    def _take_hashed(self, record_id: str, outcome: Hashed) -> None:
        stamp, tombstone = self._stamp(record_id), self._run.buried.get(record_id)
        if stamp and stamp.content_hash == outcome.content_hash:
            self._keep(record_id, outcome.item, stamp, outcome.exif)
        elif tombstone and tombstone.content_hash == outcome.content_hash:
            self._keep_out()
        elif outcome.content_hash in self._run.contents or (
            outcome.content_hash in self._run.buried_contents
        ):
            # Without `read`, which may hold the bytes of a whole file.
            item = replace(outcome.item, read=partial(self._source.open, outcome.item.location))
            self.known[record_id] = item, outcome.content_hash
            self._exif[record_id] = outcome.exif
        else:
            self._put_off[record_id] = outcome.item

    def put_off(self, record_id: str) -> None:
        """Describe an image of known content after all."""
        self._put_off[record_id], _ = self.known.pop(record_id)

    def copy(self, record_id: str, other: str) -> None:
        """Add an image of known content with the vectors of the record `other`."""
        [same] = self._index.records([other])
        thumbnail = self._index.thumbnail(other) or b""
        record = self.record(record_id, same, self._stamps.get(record_id))
        self._entries.append(Entry(record, self._index.vectors(other), self._run.boxes, thumbnail))
        self._run.done += 1
        self._commit_if_due()

    def forget(self, ids: Iterable[str]) -> None:
        """Forget what is known about records that are gone."""
        for record_id in ids:
            self._stamps.pop(record_id, None)

    def record(
        self, record_id: str, same: ImageRecord, details: Stamp | ImageRecord | None
    ) -> ImageRecord:
        """The record of an image that has the content of the record `same`.

        It keeps the label and metadata of `details`.
        """
        item, _ = self.known[record_id]
        return replace(
            same,
            id=record_id,
            source=self.name,
            location=item.location,
            file_size=item.file_size,
            mtime_ns=item.mtime_ns,
            missing=False,
            stamp=item.stamp,
            **self._detail(record_id, item, details, self._exif[record_id])._asdict(),
        )

    def tombstone(self, record_id: str) -> Tombstone:
        """The tombstone of an image that was removed when its file was elsewhere."""
        item, content = self.known[record_id]
        file = (item.file_size, item.mtime_ns, item.stamp)
        self._run.done += 1
        return Tombstone(record_id, self.name, item.location, content, *file, self._began)

    def _entry(self, described: Described) -> Entry:
        item = described.item
        record_id = self._id(item)
        detail = self._detail(record_id, item, self._stamps.get(record_id), described.exif)
        record = ImageRecord(
            id=record_id,
            source=self.name,
            location=item.location,
            label=detail.label,
            content_hash=described.content_hash,
            width=described.width,
            height=described.height,
            file_size=item.file_size,
            mtime_ns=item.mtime_ns,
            metadata=detail.metadata,
            stamp=item.stamp,
            decoder=RULES,
            given=detail.given,
        )
        return Entry(record, described.vectors, self._run.boxes, described.thumbnail)

    def _detail(
        self,
        record_id: str,
        item: SourceItem,
        known: Stamp | ImageRecord | None,
        exif: Mapping[str, MetadataValue] | None = None,
    ) -> Detail:
        """Label and metadata of an item. `exif`: what was read from the picture; None: unknown."""
        if exif is None and not self._run.exif:
            exif = {}
        rows = (
            file.lookup(record_id, item.location, self._source.uri) for file in self._run.metadata
        )
        return merged(known, item.label, exif, rows)

    def _fail(self, location: str, reason: str) -> None:
        failure = Failure(self.name, location, reason)
        self._failures.append(failure)
        self._report.failures.append(failure)

    def _commit_if_due(self) -> None:
        waiting = len(self._entries) + len(self._details) + len(self._touched)
        if waiting >= COMMIT_RECORDS or (
            waiting and time.monotonic() - self._last_commit > COMMIT_SECONDS
        ):
            self.commit()
        self._run.tell_if_due()

    def commit(self) -> None:
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
            elif stamp := self._stamps.get(record.id):
                self._report.updated += 1
                same = stamp.content_hash == record.content_hash
                self._report.decoded_anew += same and stamp.decoder < RULES
            else:
                self._report.added += 1

    def _keep_failures(self, finished: bool) -> None:
        """Store this run's failures, and keep those of images that it did not reach."""
        again = {failure.location for failure in self._failures}
        older = [
            failure
            for failure in self._index.failures()
            if failure.source == self.name
            and failure.location not in again
            and not (
                finished and (failure.location == ROOT or _in_scope(self._source, failure.location))
            )
        ]
        self._index.set_failures(self.name, [*older, *self._failures])

    def covers(self, record_id: str) -> bool:
        """Whether the source yields the image of this id, if it is there."""
        return is_in(self._source, self.name, record_id) and record_id not in self._excluded

    def is_there(self, record_id: str) -> bool:
        """Whether an image that the source covers is, or may be, where it was.

        Files in a folder that could not be read were not found, but may well exist.
        """
        return record_id in self._seen or record_id.startswith(self._unread)

    def is_replaced(self, record_id: str) -> bool:
        """Whether the file of an image shows something else now."""
        return record_id in self.known or record_id in self._put_off

    def absent(self) -> tuple[list[str], int]:
        """The ids of the known images that are gone, and how many there were."""
        held, unread = [i for i in self._stamps if self.covers(i)], self._unread
        return [i for i in held if i not in self._seen and not i.startswith(unread)], len(held)

    @property
    def _unread(self) -> tuple[str, ...]:
        """How ids of images begin that could not be looked for."""
        if any(failure.location == ROOT for failure in self._failures):
            return (f"{self.name}/",)
        return tuple(f"{make_id(self.name, failure.location)}/" for failure in self._failures)

    def _find_excluded(self) -> set[str]:
        """The ids of the records whose images are excluded now, or part of another source."""
        source, start = self._source, len(self.name) + 1
        self._elsewhere = find_elsewhere(self._run, source, self.name)
        if not isinstance(source, FolderSource | ArchiveMembers) or not source.may_leave_out():
            return set(self._elsewhere)
        return {i for i in self._stamps if i in self._elsewhere or source.leaves_out(i[start:])}

    def _drop_excluded(self) -> None:
        """Remove the records of excluded images, unless they have moved to others."""
        elsewhere = self._elsewhere
        awaited = {i for i, other in elsewhere.items() if is_awaited(self._run, other)}
        gone = self._excluded - awaited
        excluded = [i for i in self._stamps if i in gone]
        if not excluded:
            return
        hand_over(self._run, self.name, {i: elsewhere[i] for i in excluded if i in elsewhere})
        if lost := [i for i in excluded if i not in elsewhere and self._stamps[i].given]:
            log.warning(
                "source %s: metadata that files gave is dropped with the excluded images %s; "
                "give the files again when you include them",
                self.name,
                listed(lost),
            )
        self._report.dropped += len(self._index.remove(excluded))
        self.forget(excluded)

    def _settle_missing(self, prune: Prune) -> None:
        """Mark as missing, or with `prune` remove, the records whose files were not found."""
        gone, held = self.absent()
        if prune is True and len(gone) > held / 2:  # an unmounted drive looks the same
            self._run.lost[self.name] = (held - len(gone), held)
        elif prune:
            self._report.removed += len(self._index.remove(gone))
            return
        # A write makes every reader load the index again, and the cache of vectors stale.
        if new := [record_id for record_id in gone if not self._stamps[record_id].missing]:
            self._index.mark_missing(new)
        self._report.missing += len(gone)


def _in_scope(source: ImageSource, key: str) -> bool:
    """Whether `source` yields `key`, if it is there: its scope is a prefix, or one key."""
    scope = source.scope
    return key.startswith(scope) if not scope or scope.endswith("/") else key == scope


def _say_once(index: Index, name: str) -> None:
    """Say at the first run of a source what its file system cannot tell."""
    if name not in index.runs():
        log.warning(
            "source %s: this file system does not tell files of equal size and time apart; "
            "--rehash does",
            name,
        )


def _same_file(item: SourceItem, known: Stamp | Tombstone) -> bool:
    """Whether size, time and, where both are known, the stamps say that it is the same file."""
    return (
        item.mtime_ns is not None
        and item.mtime_ns == known.mtime_ns
        and item.file_size == known.file_size
        and (item.stamp == known.stamp or None in (item.stamp, known.stamp))
    )
