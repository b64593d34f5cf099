"""The embedded engine: SQLite is the source of truth; FAISS searches a memory-mapped cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cbir.errors import IndexStateError, RecordGoneError
from cbir.files import model_faults
from cbir.index import filters
from cbir.index.base import (
    NO_SPARES,
    Details,
    Entry,
    FileStates,
    Matches,
    SourceRun,
    Spares,
    Stamp,
    Tombstone,
    descriptor_info,
)
from cbir.index.embedded import (
    check,
    filter_sql,
    record_rows,
    schema,
    source_rows,
    thumbnail_rows,
)
from cbir.index.embedded import folder as files
from cbir.index.embedded import repair as mending
from cbir.index.embedded.checksums import RECORDS, seal_all
from cbir.index.embedded.sqlite import Check, Database
from cbir.index.embedded.view import Views
from cbir.index.entries import check_metadata, checked_entries, checked_queries
from cbir.index.fields import described_fields
from cbir.index.kept_files import remove_unless
from cbir.index.source_names import check_known, check_move, source_name
from cbir.types import DescriptorSpec, Failure, ImageRecord, MetadataValue, ModelFile, Vectors

CHECKS: Mapping[str, Check] = {
    files.RECORDS: schema.check_tables,
    files.THUMBNAILS: thumbnail_rows.check_tables,
}
"""What every connection to a file begins with."""
_COPIED_AT_ONCE = 256


class EmbeddedIndex:
    """An index in a folder (see `index.base.Index` for the calls).

    Thread-safe. Readers and one writer, in any process, may use it concurrently; a search sees
    everything that was committed when it began.
    """

    engine = "embedded"

    def __init__(self, url: str, folder: Path, *, write: bool = False) -> None:
        """Open the index in `folder`, called `url` in messages.

        `write` holds the writer lock until `close`, and brings an index of an older format to
        today's; readers take it as it is. Raises `IndexStateError` if the index is
        locked, damaged, incomplete or of a newer format.
        """
        self.url = url
        self.writable = write
        self._folder = folder
        self._databases: list[Database] = []
        self._deleted = False
        files.check_own_files(folder, url)
        self._lock = files.lock_for_writing(folder, url) if write else None
        try:
            self._records = self._open(files.RECORDS)
            with self._records.read() as connection:
                meta = schema.read_meta(connection, url)
            if meta is None:
                raise files.unfinished(url)
            self._views = Views(self._records, folder, url, meta)
            if write:
                self._views.discard_foreign()  # first: the cache mends older indexes
            if write and meta.format < schema.FORMAT:
                cached = check.usable_cache(folder, meta)
                with self._records.write() as connection:
                    schema.migrate(connection)
                    if cached is not None:
                        mending.agree_with_cache(connection, cached)
                    seal_all(connection, RECORDS)
                meta = replace(meta, format=schema.FORMAT)
            self._meta = meta
            if write:
                self._tidy()
        except BaseException:
            self._close_files()
            raise

    @property
    def identity(self) -> str:
        return f"{self.engine}:{self._meta.index_id}"

    @property
    def spec(self) -> DescriptorSpec:
        return self._meta.spec

    def count(self) -> int:
        return self._value("SELECT count(*) FROM records")

    def register_source(self, name: str, uri: str) -> str:
        with self._records.write() as connection:
            name = source_name(source_rows.sources(connection), name, uri)
            source_rows.set_source(connection, name, uri)
        return name

    def move_source(self, name: str, uri: str) -> None:
        with self._records.write() as connection:
            check_move(source_rows.sources(connection), name, uri)
            source_rows.set_source(connection, name, uri)

    def remove_source(self, name: str) -> list[str]:
        with self._records.write() as connection:
            check_known(source_rows.sources(connection), name)
            rows = connection.execute("SELECT key, id FROM records WHERE source = ?", (name,))
            found = dict(rows.fetchall())
            record_rows.delete(connection, found)
            source_rows.forget_source(connection, name)
        self._drop_thumbnails(found)
        return sorted(found.values(), key=str.encode)

    def sources(self) -> dict[str, str]:
        with self._records.read() as connection:
            return source_rows.sources(connection)

    def source_counts(self) -> dict[str, tuple[int, int]]:
        with self._records.read() as connection:
            return source_rows.source_counts(connection)

    def runs(self) -> dict[str, SourceRun]:
        with self._records.read() as connection:
            return source_rows.runs(connection)

    def set_run(self, source: str, run: SourceRun) -> None:
        with self._records.write() as connection:
            source_rows.set_run(connection, source, run)

    def stamps(self, source: str) -> dict[str, Stamp]:
        with self._records.read() as connection:
            return record_rows.stamps(connection, source)

    def contents(self, parts: int) -> dict[str, list[str]]:
        with self._records.read() as connection:
            return record_rows.contents(connection, parts)

    def add(self, entries: Sequence[Entry]) -> None:
        batch = checked_entries(entries, self.spec.dim)
        if not batch:
            return
        with self._records.write() as connection:
            first = schema.last_key(connection) + 1
            # Committed first, under unused keys, so that no record is ever without its thumbnail.
            with self._thumbnails.write() as thumbnails:
                thumbnail_rows.insert_thumbnails(thumbnails, batch, first)
            replaced = record_rows.keys_of(connection, (entry.record.id for entry in batch))
            record_rows.delete(connection, replaced.values())
            record_rows.insert(connection, batch, first)
            source_rows.delete_tombstones(connection, (entry.record.id for entry in batch))
        self._drop_thumbnails(replaced.values())

    def remove(self, ids: Iterable[str]) -> list[str]:
        wanted = list(dict.fromkeys(ids))
        with self._records.write() as connection:
            found = record_rows.keys_of(connection, wanted)
            if found:
                record_rows.delete(connection, found.values())
        self._drop_thumbnails(found.values())
        return [record_id for record_id in wanted if record_id in found]

    def rename(
        self,
        renamed: Mapping[str, ImageRecord],
        sources: Mapping[str, str] | None = None,
        tombstones: Sequence[Tombstone] = (),
    ) -> None:
        with self._records.write() as connection:
            keys = record_rows.keys_of(connection, renamed)
            records = {key: renamed[old] for old, key in keys.items()}
            first = schema.last_key(connection) + 1
            with self._thumbnails.write() as thumbnails:
                thumbnail_rows.copy_thumbnails(thumbnails, records, first)
            new = [record.id for record in records.values()]
            replaced = {
                key
                for record_id, key in record_rows.keys_of(connection, new).items()
                if record_id not in keys
            }
            record_rows.delete(connection, replaced)
            record_rows.rename(connection, records, first)
            source_rows.rename_sources(connection, sources or {})
            source_rows.delete_tombstones(connection, new)
            source_rows.insert_tombstones(connection, tombstones)
        self._drop_thumbnails([*records, *replaced])

    def bury(self, tombstones: Sequence[Tombstone]) -> list[str]:
        with self._records.write() as connection:
            found = record_rows.keys_of(connection, (tombstone.id for tombstone in tombstones))
            if found:
                record_rows.delete(connection, found.values())
            source_rows.insert_tombstones(connection, tombstones)
        self._drop_thumbnails(found.values())
        return list(found)

    def unbury(self, ids: Iterable[str]) -> None:
        with self._records.write() as connection:
            source_rows.delete_tombstones(connection, ids)

    def tombstones(self, ids: Iterable[str] | None = None) -> dict[str, Tombstone]:
        with self._records.read() as connection:
            return source_rows.tombstones(connection, ids)

    def set_details(self, details: Details) -> None:
        for record_id, facts in details.items():
            check_metadata(record_id, facts.metadata)
        with self._records.write() as connection:
            schema.next_generation(connection)
            record_rows.set_details(connection, details)

    def touch(self, files: FileStates) -> None:
        with self._records.write() as connection:
            schema.next_generation(connection)
            record_rows.touch(connection, files)

    def mark_missing(self, ids: Iterable[str]) -> None:
        with self._records.write() as connection:
            schema.next_generation(connection)
            record_rows.mark_missing(connection, ids)

    def set_failures(self, source: str, failures: Sequence[Failure]) -> None:
        with self._records.write() as connection:
            source_rows.set_failures(connection, source, failures)

    def failures(self) -> list[Failure]:
        with self._records.read() as connection:
            rows = connection.execute(
                "SELECT source, location, reason FROM failures ORDER BY source, location"
            )
            return [Failure(*row) for row in schema.typed(RECORDS["failures"].columns, rows)]

    def refresh(self) -> None:
        self._tidy()  # before the log of removed keys is truncated
        self._views.refresh()

    def search(
        self,
        vectors: Vectors,
        k: int,
        *,
        where: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        exact: bool = False,  # noqa: ARG002 - this engine is always exact
    ) -> list[Matches]:
        queries = checked_queries(vectors, k, exclude, self.spec)
        view, targets = self._views.filtered(where)
        return view.answer(targets, queries, k, exclude)

    def records(self, ids: Sequence[str]) -> list[ImageRecord]:
        with self._records.read() as connection:
            return record_rows.records(connection, ids)

    def vectors(self, record_id: str) -> Vectors:
        with self._records.read() as connection:
            key = record_rows.key_of(connection, record_id)
            found = record_rows.part_vectors(connection, [key], self.spec.dim)
            if key not in found:
                raise schema.damaged(f"{record_id} has no vectors", self.url)
            return found[key][0]

    def thumbnail(self, record_id: str) -> bytes | None:
        seen = None
        while True:  # retry if the record was replaced between the two reads
            with self._records.read() as connection:
                key = record_rows.key_of(connection, record_id)
            if key == seen:
                return None
            with self._thumbnails.read() as connection:
                pictures = thumbnail_rows.thumbnails(connection, [key])
            if pictures:
                return pictures[key]
            seen = key

    def metadata_fields(self) -> list[str]:
        with self._records.read() as connection:
            return record_rows.metadata_fields(connection)

    def values(self, field: str, most: int, among: int | None = None) -> list[MetadataValue]:
        with self._records.read() as connection:
            return record_rows.values(connection, field, most, among)

    def labels(self) -> dict[str, str | None]:
        with self._records.read() as connection:
            rows = connection.execute("SELECT id, label FROM records ORDER BY id")
            return dict(schema.typed(("id", "label"), rows))

    def matrix(self) -> tuple[list[str], Vectors]:
        view = self._views.current()
        alive = np.arange(len(view.base)) if view.alive is None else np.flatnonzero(view.alive)
        order = np.concatenate((view.order[alive], view.order[len(view.base) :])).argsort()
        ids = [view.base.ids[number] for number in alive.tolist()]
        ids += [view.newer.ids[number] for number in range(len(view.newer))]
        wholes = np.concatenate(
            (
                view.base.matrix[view.base.starts[alive]],
                view.newer.matrix[view.newer.starts[:-1]],
            )
        )
        return [ids[place] for place in order.tolist()], wholes[order]

    def ids(self, where: Sequence[str] = ()) -> Iterator[str]:
        with self._records.read() as connection:
            conditions = filters.parse(where, record_rows.metadata_fields(connection))
            for (record_id,) in filter_sql.matching(connection, "id", conditions):
                yield record_id

    def entries(self, after: str = "") -> Iterator[Entry]:
        last = after
        with self._records.read() as connection, self._thumbnails.read() as thumbnails:
            while listed := record_rows.records_after(connection, last, _COPIED_AT_ONCE):
                keys = [key for key, _ in listed]
                parts = record_rows.part_vectors(connection, keys, self.spec.dim)
                pictures = thumbnail_rows.thumbnails(thumbnails, keys)
                # A copy would seal the damage.
                record_rows.check_records(connection, keys)
                thumbnail_rows.check_thumbnails(
                    thumbnails, {key: record.id for key, record in listed}
                )
                if lacking := [record.id for key, record in listed if key not in parts]:
                    raise schema.damaged(f"{lacking[0]} has no vectors", self.url)
                for key, record in listed:
                    vectors, boxes = parts[key]
                    picture = pictures.get(key)
                    with suppress(RecordGoneError):  # a writer may have changed the index since
                        picture = picture or self.thumbnail(record.id)
                    yield Entry(record, vectors, boxes, picture or b"")
                last = listed[-1][1].id

    def verify(self, repair: bool = False, spares: Spares = NO_SPARES) -> list[str]:
        if repair and not self.writable:
            raise IndexStateError(f"{self.url} is open for reading only", "open it for writing")
        parts = (self._records, self._thumbnails, self._folder, self._meta)
        problems = check.check(*parts)
        if repair:
            self._views.close()
            left = mending.repair(*parts, spares) if problems else []
            problems += [f"not repaired: {line}" for line in left]
            if not check.damage(self._records, files.RECORDS):
                self.refresh()
        return problems

    def info(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "engine": self.engine,
            "count": self.count(),
            "vectors": self._value("SELECT count(*) FROM vectors"),
            "dim": self.spec.dim,
            "descriptor": descriptor_info(self.spec),
            "labels": self._value("SELECT count(DISTINCT label) FROM records"),
            "missing": self._value("SELECT count(*) FROM records WHERE missing"),
            "failed": self._value("SELECT count(*) FROM failures"),
            "kept_out": len(self.tombstones()),
            "sources": self.sources(),
            "fields": described_fields(self),
            "bytes": files.size_in_bytes(self._folder),
        }

    def model_files(self) -> Mapping[str, ModelFile]:
        folder = self._folder / files.MODEL
        for name, fault in model_faults(folder, self._meta.model).items():
            raise IndexStateError(
                f"{self.url} lacks its model: {folder / name} {fault}",
                "restore the model's files, or index the sources again into a new index",
            )
        return {name: folder / name for name in self._meta.model}

    def close(self) -> None:
        try:
            if self._deleted and self._databases:
                self._drop_keypoints()
        finally:
            self._views.close()
            self._close_files()

    @cached_property
    def _thumbnails(self) -> Database:
        """Opened on first use, so that searches work without the thumbnail file."""
        self._records.check_in_place()
        database = self._open(files.THUMBNAILS)
        self._records.check_in_place()  # else the folder, and so this file, is another one
        return database

    def _open(self, name: str) -> Database:
        database = Database(self._folder / name, self.url, CHECKS[name], write=self.writable)
        self._databases.append(database)
        return database

    def _close_files(self) -> None:
        while self._databases:
            self._databases.pop().close()
        if self._lock is not None:
            files.unlock(self._lock, self._folder)
            self._lock = None

    def _tidy(self) -> None:
        """Migrate the thumbnails; remove those and keypoints that have no record."""
        with self._records.read() as connection:
            last = schema.last_key(connection)
            removed = record_rows.removed_since(connection, 0)
        with self._thumbnails.write() as connection:
            thumbnail_rows.create_thumbnails(connection)
            thumbnail_rows.sweep(connection, last, removed)
        self._drop_keypoints()

    def _drop_thumbnails(self, keys: Iterable[int]) -> None:
        keys = list(keys)
        if keys:
            self._deleted = True
            with self._thumbnails.write() as connection:
                thumbnail_rows.delete_thumbnails(connection, keys)

    def _drop_keypoints(self) -> None:
        """Remove the kept keypoints of pictures that have no record."""
        with self._records.read() as connection:
            remove_unless(
                self._folder / files.KEYPOINTS,
                lambda hashes: record_rows.known_contents(connection, hashes),
            )

    def _value(self, query: str) -> int:
        with self._records.read() as connection:
            return schema.number(connection, query)
