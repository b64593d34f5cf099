"""The Elasticsearch engine: records and vectors as documents of one server index."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cbir.errors import IndexStateError, QueryError, RecordGoneError, RecordsRefusedError
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
from cbir.index.elasticsearch import answers, bodies, bulk, documents, words
from cbir.index.elasticsearch import lifecycle as life
from cbir.index.elasticsearch import tombstones as buried
from cbir.index.elasticsearch.client import READING, WRITING, Client
from cbir.index.elasticsearch.requests import Requests, unchanged
from cbir.index.elasticsearch.server_errors import IndexMissingError
from cbir.index.entries import check_metadata, checked_entries, checked_queries
from cbir.index.fields import described_fields
from cbir.index.renaming import in_groups
from cbir.index.source_names import check_known, check_move, source_name
from cbir.types import DescriptorSpec, Failure, ImageRecord, MetadataValue, ModelFile, Vectors

_FACTS_KEPT = 1.0  # seconds, the server's own refresh interval
_CHANGED_AT_ONCE = 500
_CHANGES_OUTRUN = 20
_STAMPS_AT_ONCE = 2000
_ROWS_AT_ONCE = 1000
_COPIED_AT_ONCE = 256


class ElasticIndex:
    """An index on an Elasticsearch server (see `index.base.Index` for the calls).

    Thread-safe. Documents change one by one, so an interrupted call may be partly applied. Readers
    see changes after about a second; a writer sees its own immediately. Several writers may work
    concurrently on different records.
    """

    engine = "elasticsearch"

    def __init__(self, client: Client, alias: str, facts: life.Facts, *, write: bool) -> None:
        """The index behind `alias`, as found or created by the module `opening`.

        `write` brings an index of an older schema to today's.
        """
        self.url = client.url
        self.writable = write
        self._client = client
        self._requests = Requests(client, alias, write=write)
        self._spec = facts.spec
        self._field = bodies.vector_field(facts.spec)
        self._known = facts
        self._known_at = time.monotonic()
        if write:
            life.migrate(self._requests, facts)
        if facts.restore is not None:
            self._requests.refresh()

    @property
    def identity(self) -> str:
        address = self._client.address
        return f"{self.engine}:{','.join(sorted(address.nodes))}/{address.name}"

    @property
    def spec(self) -> DescriptorSpec:
        return self._spec

    def count(self) -> int:
        return self._requests.count(bodies.RECORDS)

    def register_source(self, name: str, uri: str) -> str:
        def added(rows: list[Any]) -> list[Any]:
            known = documents.uris(rows)
            new = source_name(known, name, uri)
            return rows if new in known else [*rows, [new, uri]]

        rows = self._requests.change_rows(documents.SOURCES, added)
        return source_name(documents.uris(rows), name, uri)

    def move_source(self, name: str, uri: str) -> None:
        def moved(rows: list[Any]) -> list[Any]:
            check_move(documents.uris(rows), name, uri)
            return [[row[0], uri, *row[2:]] if row[0] == name else row for row in rows]

        self._requests.change_rows(documents.SOURCES, moved)

    def remove_source(self, name: str) -> list[str]:
        check_known(self.sources(), name)
        found = self.remove(list(self.stamps(name)))
        buried.drop_source(self._requests, name)
        for of_sources in (documents.FAILURES, documents.SOURCES):
            self._requests.change_rows(
                of_sources, lambda rows: [row for row in rows if row[0] != name]
            )
        return found

    def sources(self) -> dict[str, str]:
        return dict(sorted(documents.uris(self._requests.rows(documents.SOURCES)).items()))

    def source_counts(self) -> dict[str, tuple[int, int]]:
        found = self._requests.search(bodies.source_counts())["aggregations"]["sources"]["buckets"]
        return {one["key"]: (one["doc_count"], one["missing"]["doc_count"]) for one in found}

    def runs(self) -> dict[str, SourceRun]:
        return documents.runs(self._requests.rows(documents.SOURCES))

    def set_run(self, source: str, run: SourceRun) -> None:
        self._requests.change_rows(
            documents.SOURCES,
            lambda rows: [
                [*row[:2], run.at, run.finished] if row[0] == source else row for row in rows
            ],
        )

    def stamps(self, source: str) -> dict[str, Stamp]:
        fields = bodies.without_vectors(self._field)
        return {
            hit["_source"]["id"]: documents.stamp(hit["_source"])
            for hit in self._requests.hits(_STAMPS_AT_ONCE, fields, source=source)
        }

    def contents(self, parts: int) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        fields = {"_source": ["id", "content_hash", "part_count"]}
        for hit in self._requests.hits(bodies.LIMIT, fields):
            if hit["_source"]["part_count"] == parts:
                same = found.setdefault(hit["_source"]["content_hash"], [])
                same.append(hit["_source"]["id"])
        return found

    def add(self, entries: Sequence[Entry]) -> None:
        batch = checked_entries(entries, self._spec.dim)
        if not batch:
            return
        refused = documents.unfit(entry.record.id for entry in batch)
        fit = [entry for entry in batch if entry.record.id not in refused]
        made = [(entry.record.id, documents.document(entry, self._field), None) for entry in fit]
        if any(len(entry.vectors) > 1 for entry in fit):
            self._make_room_for_parts()
        buried.drop(self._requests, [entry.record.id for entry in fit])
        refused.update(self._send(made).refused)
        if refused:
            raise RecordsRefusedError(refused)

    def remove(self, ids: Iterable[str]) -> list[str]:
        wanted = list(dict.fromkeys(ids))
        there = {found["_id"] for found in self._requests.documents(wanted, {"_source": ["id"]})}
        gone = [record_id for record_id in wanted if record_id in there]
        self._send([(record_id, None, None) for record_id in gone])
        return gone

    def rename(
        self,
        renamed: Mapping[str, ImageRecord],
        sources: Mapping[str, str] | None = None,
        tombstones: Sequence[Tombstone] = (),
    ) -> None:
        gone = sources or {}
        batch: list[str] = []
        for group in in_groups({old: record.id for old, record in renamed.items()}):
            batch += group
            if len(batch) >= _CHANGED_AT_ONCE:
                self._rename(batch, renamed)
                batch = []
        self._rename(batch, renamed)
        new = {record.id for record in renamed.values()}
        self._send([(old, None, None) for old in renamed if old not in new])
        buried.drop(self._requests, new)
        buried.write(self._requests, tombstones)
        for name in gone:
            buried.drop_source(self._requests, name, kept=tombstones)
        known = self.sources()
        # Sources come last, so that a call that was interrupted can be repeated.
        for name in (documents.FAILURES, documents.SOURCES):
            self._requests.change_rows(name, lambda rows: _renamed_sources(rows, gone, known))

    def bury(self, tombstones: Sequence[Tombstone]) -> list[str]:
        buried.write(self._requests, tombstones)
        return self.remove(tombstone.id for tombstone in tombstones)

    def unbury(self, ids: Iterable[str]) -> None:
        buried.drop(self._requests, set(ids))

    def tombstones(self, ids: Iterable[str] | None = None) -> dict[str, Tombstone]:
        if self.writable and ids is None:
            self._requests.refresh()  # another writer's may not be searchable yet
        return buried.read(self._requests, self._facts(fresh=True).schema, ids)

    def set_details(self, details: Details) -> None:
        for record_id, detail in details.items():
            check_metadata(record_id, detail.metadata)
        self._change(
            {
                record_id: {"label": detail.label, **documents.metadata_fields(record_id, detail)}
                for record_id, detail in details.items()
            }
        )

    def touch(self, files: FileStates) -> None:
        self._change(
            {record_id: {**state._asdict(), "missing": False} for record_id, state in files.items()}
        )

    def mark_missing(self, ids: Iterable[str]) -> None:
        self._change({record_id: {"missing": True} for record_id in ids})

    def set_failures(self, source: str, failures: Sequence[Failure]) -> None:
        new = [[source, failure.location, failure.reason] for failure in failures]
        self._requests.change_rows(
            documents.FAILURES, lambda rows: [row for row in rows if row[0] != source] + new
        )

    def failures(self) -> list[Failure]:
        rows = self._requests.rows(documents.FAILURES)
        return [Failure(*row) for row in sorted(rows, key=lambda row: row[:2])]

    def refresh(self) -> None:
        """Make all records searchable; this also completes the load of a new index."""
        if not self.writable:
            self._requests.refresh()
            return
        life.finish(self._requests, self._facts(fresh=True))
        self._facts(fresh=True)

    def search(
        self,
        vectors: Vectors,
        k: int,
        *,
        where: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        exact: bool = False,
    ) -> list[Matches]:
        asked = checked_queries(vectors, k, exclude, self._spec, bodies.LIMIT)
        question = (asked, k, where, exclude, exact)
        try:
            found = self._search(*question)
        except IndexMissingError:  # a rebuilt index replaced it during the search
            self._facts(fresh=True)
            found = self._search(*question)
        if not any(matches.ids for matches in found):
            self._facts(fresh=True)  # a replacement with another spec would look empty
        return found

    def records(self, ids: Sequence[str]) -> list[ImageRecord]:
        fields = bodies.without_vectors(self._field)
        found = {
            document["_id"]: documents.record(document["_source"])
            for document in self._requests.documents(list(dict.fromkeys(ids)), fields)
        }
        for record_id in ids:
            if record_id not in found:
                raise RecordGoneError(record_id)
        return [found[record_id] for record_id in ids]

    def vectors(self, record_id: str) -> Vectors:
        for document in self._requests.documents([record_id], {"_source": [self._field, "parts"]}):
            return documents.vectors(document["_source"], self._field)
        raise RecordGoneError(record_id)

    def thumbnail(self, record_id: str) -> bytes | None:
        fields = {"_source": False, "stored_fields": ["thumbnail"]}
        for document in self._requests.documents([record_id], fields):
            return documents.thumbnail(document) or None
        raise RecordGoneError(record_id)

    def metadata_fields(self) -> list[str]:
        return list(self._facts(fresh=True).metadata)

    def values(
        self,
        field: str,
        most: int,
        among: int | None = None,  # noqa: ARG002 - the server counts all in columns
    ) -> list[MetadataValue]:
        return documents.values(self._requests.search(bodies.values(field, most)), most)

    def labels(self) -> dict[str, str | None]:
        hits = self._requests.hits(bodies.LIMIT, bodies.doc_values("id", "label"))
        return {hit["fields"]["id"][0]: hit["fields"].get("label", [None])[0] for hit in hits}

    def matrix(self) -> tuple[list[str], Vectors]:
        ids: list[str] = []
        rows = [np.empty((0, self._spec.dim), dtype=np.float32)]
        for hit in self._requests.hits(_ROWS_AT_ONCE, {"_source": ["id", self._field]}):
            ids.append(hit["_source"]["id"])
            rows.append(documents.vectors(hit["_source"], self._field))
        return ids, np.concatenate(rows)

    def ids(self, where: Sequence[str] = ()) -> Iterator[str]:
        clauses = bodies.filters(self._conditions(where))
        for hit in self._requests.hits(bodies.LIMIT, bodies.doc_values("id"), where=clauses):
            yield hit["fields"]["id"][0]

    def entries(self, after: str = "") -> Iterator[Entry]:
        for hit in self._requests.hits(_COPIED_AT_ONCE, bodies.EVERYTHING, after=after):
            yield documents.entry(hit, self._field)

    def verify(
        self,
        repair: bool = False,
        spares: Spares = NO_SPARES,  # noqa: ARG002 - the server keeps copies itself
    ) -> list[str]:
        if repair and not self.writable:
            raise IndexStateError(f"{self.url} is open for reading only", "open it for writing")
        loading = self._facts(fresh=True).restore is not None
        problems = [life.UNFINISHED] if loading else []
        if loading and repair:
            self.refresh()
        found = life.check(self._requests, self._facts())
        return problems + found + [f"not repaired: {line}" for line in found if repair]

    def info(self) -> dict[str, Any]:
        counts = life.counts(self._requests)
        facts = self._facts(fresh=True)
        return {
            "url": self.url,
            "engine": self.engine,
            "type": facts.kind,
            "loading": facts.restore is not None,
            "dim": self._spec.dim,
            "descriptor": descriptor_info(self._spec),
            **counts,
            "failed": len(self.failures()),
            "kept_out": buried.count(self._requests, facts.schema),
            "sources": self.sources(),
            "fields": described_fields(self),
        }

    def model_files(self) -> Mapping[str, ModelFile]:
        """None: the index only names its model; the model store keeps the files."""
        return {}

    def close(self) -> None:
        self._client.close()

    def _search(
        self,
        vectors: Vectors,
        k: int,
        where: Sequence[str],
        exclude: Sequence[str | None] | None,
        exact: bool,
    ) -> list[Matches]:
        conditions = self._conditions(where)
        facts = self._facts()
        fields = (self._field, f"parts.{self._field}") if facts.parts else (self._field,)
        clauses = tuple(bodies.filters(conditions))
        plan = answers.Plan(fields, facts.kind, self._client.address.options, clauses, exact)
        search = words.search if facts.kind == words.WORDS else answers.search
        return search(self._requests.searches, plan, vectors, k, exclude)

    def _conditions(self, where: Sequence[str]) -> list[filters.Condition]:
        try:
            return filters.parse(where, self._facts().metadata)
        except QueryError:  # the field may be newer than the cached facts
            return filters.parse(where, self._facts(fresh=True).metadata)

    def _facts(self, fresh: bool = False) -> life.Facts:
        """The server's facts about the index, at most a second old.

        Raises `IndexStateError` if the index is gone or was replaced by one with another spec.
        """
        if not fresh and time.monotonic() - self._known_at < _FACTS_KEPT:
            return self._known
        found = life.read_facts(self._client, self._requests.alias, patience=READING)
        if found is None:
            raise IndexStateError(f"{self.url} is gone", f"cbir index FOLDER --into '{self.url}'")
        if found.spec.fingerprint != self._spec.fingerprint:
            raise IndexStateError(
                f"{self.url} was rebuilt with {found.spec.short} in place of {self._spec.short}",
                "open it again",
            )
        self._known, self._known_at = found, time.monotonic()
        return found

    def _rename(self, old: Sequence[str], renamed: Mapping[str, ImageRecord]) -> None:
        """Write the documents of `old` again, under their new ids."""
        outcome = self._send(
            [
                (renamed[hit["_id"]].id, documents.renamed(hit, renamed[hit["_id"]]), None)
                for hit in self._requests.documents(old, bodies.EVERYTHING)
            ]
        )
        if outcome.refused:
            raise RecordsRefusedError(outcome.refused)

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the documents of these ids; None removes a field.

        Reads and writes whole documents, and retries those that changed in between.
        """
        waiting = list(changes)
        for _ in range(_CHANGES_OUTRUN):
            conflicts: list[str] = []
            for start in range(0, len(waiting), _CHANGED_AT_ONCE):
                some = waiting[start : start + _CHANGED_AT_ONCE]
                outcome = self._send(
                    [
                        (hit["_id"], documents.changed(hit, changes[hit["_id"]]), unchanged(hit))
                        for hit in self._requests.documents(some, bodies.EVERYTHING)
                    ]
                )
                if outcome.refused:
                    raise RecordsRefusedError(outcome.refused)
                conflicts += outcome.conflicts
            waiting = conflicts
            if not waiting:
                return
        raise IndexStateError(
            f"{self.url} is being changed by other writers", "try again in a moment"
        )

    def _send(self, actions: Sequence[bulk.Action]) -> bulk.Outcome:
        if not actions:
            return bulk.Outcome()
        if self._known.kind == words.WORDS:
            actions = words.prepared(actions, self._spec)
        outcome = bulk.send(self._requests, actions)
        self._known_at = float("-inf")  # there may be new metadata fields
        return outcome

    def _make_room_for_parts(self) -> None:
        if not self._facts().parts:
            body = bodies.parts_mapping(self._spec, self._known.kind)
            self._requests.call("PUT", "_mapping", body, patience=WRITING)
            self._facts(fresh=True)


def _renamed_sources(
    rows: list[Any], renamed: Mapping[str, str], known: Mapping[str, str]
) -> list[Any]:
    """The rows, which begin with a source, under its new name; dropped if that name is taken."""
    return [
        [renamed.get(row[0], row[0]), *row[1:]]
        for row in rows
        if row[0] not in renamed or renamed[row[0]] not in known
    ]
