"""The Elasticsearch engine: records and vectors as documents of one index on a server.

Each call is one or a few requests; what they say is made in `elastic_queries`, what came back is
read in `elastic_documents` and `elastic_search`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cbir.errors import IndexStateError, QueryError, RecordGoneError, RecordsRefusedError
from cbir.index import filters
from cbir.index.base import Entry, Matches, Stamp, descriptor_info
from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch import bulk, documents, requests, words
from cbir.index.elasticsearch import lifecycle as life
from cbir.index.elasticsearch.address import Address
from cbir.index.elasticsearch.answers import Plan, search
from cbir.index.elasticsearch.client import READING, WRITING, Client, ServerError
from cbir.index.elasticsearch.server_errors import in_words, is_missing
from cbir.index.entries import check_metadata, checked_entries, checked_queries
from cbir.index.source_names import check_move, source_name
from cbir.types import DescriptorSpec, Failure, ImageRecord, MetadataValue, Vectors

_FACTS_KEPT = 1.0  # seconds; a server's index refreshes as often by itself
_CHANGED_AT_ONCE = 500
_CHANGES_OUTRUN = 20
_STAMPS_AT_ONCE = 2000
_ROWS_AT_ONCE = 1000
_COPIED_AT_ONCE = 256


class ElasticIndex:
    """An index on an Elasticsearch server (see `index.base.Index` for what each call does).

    Thread-safe. Each document is changed by itself: a call that is broken off has changed some.
    Readers see what was written about a second later, a writer sees its own writes at once.
    Nothing keeps several writers apart; what they do to different records does not mix.
    """

    engine = "elasticsearch"

    def __init__(
        self, client: Client, address: Address, facts: life.Facts, *, alias: str, write: bool
    ) -> None:
        """The index that `alias` names, as `open_index` and `create_index` found it."""
        self.url = address.url
        self.writable = write
        self._client = client
        self._address = address
        self._alias = alias
        self._spec = facts.spec
        self._field = queries.vector_field(facts.spec)
        self._known = facts
        self._known_at = time.monotonic()
        self._unseen = False  # whether something was written that searches do not see yet
        if facts.restore is not None:
            self._make_visible()

    @property
    def spec(self) -> DescriptorSpec:
        return self._spec

    def count(self) -> int:
        self._see_own()
        return int(self._request("POST", "_count", {"query": queries.RECORDS})["count"])

    def register_source(self, name: str, uri: str) -> str:
        def added(rows: list[Any]) -> list[Any]:
            known = dict(rows)
            new = source_name(known, name, uri)
            return rows if new in known else [*rows, [new, uri]]

        return source_name(dict(self._change_rows(documents.SOURCES, added)), name, uri)

    def move_source(self, name: str, uri: str) -> None:
        def moved(rows: list[Any]) -> list[Any]:
            check_move(dict(rows), name, uri)
            return [[known, uri if known == name else at] for known, at in rows]

        self._change_rows(documents.SOURCES, moved)

    def sources(self) -> dict[str, str]:
        return dict(sorted(requests.read_rows(self._client, self._alias, documents.SOURCES)))

    def stamps(self, source: str) -> dict[str, Stamp]:
        fields = queries.source_fields(self._field, vectors=False)
        return {
            hit["_source"]["id"]: documents.stamp(hit["_source"])
            for hits in self._pages(_STAMPS_AT_ONCE, fields, source=source)
            for hit in hits
        }

    def add(self, entries: Sequence[Entry]) -> None:
        batch = checked_entries(entries, self._spec.dim)
        if not batch:
            return
        refused = documents.unfit(entry.record.id for entry in batch)
        fit = [entry for entry in batch if entry.record.id not in refused]
        made = [(entry.record.id, documents.document(entry, self._field)) for entry in fit]
        if any(len(entry.vectors) > 1 for entry in fit):
            self._make_room_for_parts()
        outcome = self._send([(record_id, document, None) for record_id, document in made])
        refused.update(outcome.refused)
        if refused:
            raise RecordsRefusedError(refused)

    def remove(self, ids: Iterable[str]) -> list[str]:
        wanted = list(dict.fromkeys(ids))
        there = {found["_id"] for found in self._documents(wanted, {"_source": ["id"]})}
        gone = [record_id for record_id in wanted if record_id in there]
        self._send([(record_id, None, None) for record_id in gone])
        return gone

    def set_details(
        self, details: Mapping[str, tuple[str | None, Mapping[str, MetadataValue]]]
    ) -> None:
        groups = {}
        for record_id, (_, metadata) in details.items():
            check_metadata(record_id, metadata)
            groups[record_id] = documents.metadata_groups(record_id, metadata)
        changes = {
            record_id: {"label": label, "metadata": groups[record_id]}
            for record_id, (label, _) in details.items()
        }
        self._change(changes)

    def touch(self, files: Mapping[str, tuple[int | None, int | None]]) -> None:
        self._change(
            {
                record_id: {"file_size": size, "mtime_ns": mtime_ns, "missing": False}
                for record_id, (size, mtime_ns) in files.items()
            }
        )

    def mark_missing(self, ids: Iterable[str]) -> None:
        self._change({record_id: {"missing": True} for record_id in ids})

    def set_failures(self, source: str, failures: Sequence[Failure]) -> None:
        new = [[source, failure.location, failure.reason] for failure in failures]
        self._change_rows(
            documents.FAILURES, lambda rows: [row for row in rows if row[0] != source] + new
        )

    def failures(self) -> list[Failure]:
        rows = requests.read_rows(self._client, self._alias, documents.FAILURES)
        return [Failure(*row) for row in sorted(rows, key=lambda row: row[:2])]

    def refresh(self) -> None:
        """Make all of it searchable; what was being loaded is complete with this."""
        if not self.writable:
            self._make_visible()
            return
        facts = self._facts(fresh=True)
        life.finish(self._client, self._address, self._alias, facts)
        self._alias = self._address.name
        self._unseen = False
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
        asked = checked_queries(vectors, k, exclude, self._spec, queries.LIMIT)
        self._see_own()
        found = self._search(asked, k, where, exclude, exact)
        if not any(matches.ids for matches in found):
            self._facts(fresh=True)  # an index of another spec in its place looks empty from here
        return found

    def records(self, ids: Sequence[str]) -> list[ImageRecord]:
        fields = queries.source_fields(self._field, vectors=False)
        found = {
            document["_id"]: documents.record(document["_source"])
            for document in self._documents(list(dict.fromkeys(ids)), fields)
        }
        for record_id in ids:
            if record_id not in found:
                raise RecordGoneError(record_id)
        return [found[record_id] for record_id in ids]

    def vectors(self, record_id: str) -> Vectors:
        for document in self._documents([record_id], {"_source": [self._field, "parts"]}):
            return documents.vectors(document["_source"], self._field)
        raise RecordGoneError(record_id)

    def thumbnail(self, record_id: str) -> bytes | None:
        fields = {"_source": False, "stored_fields": ["thumbnail"]}
        for document in self._documents([record_id], fields):
            return documents.thumbnail(document.get("fields", {})) or None
        raise RecordGoneError(record_id)

    def labels(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for hits in self._pages(queries.LIMIT, queries.doc_values("id", "label")):
            for hit in hits:
                fields = hit["fields"]
                found[fields["id"][0]] = fields["label"][0] if "label" in fields else None
        return found

    def matrix(self) -> tuple[list[str], Vectors]:
        ids: list[str] = []
        rows = [np.empty((0, self._spec.dim), dtype=np.float32)]
        for hits in self._pages(_ROWS_AT_ONCE, {"_source": ["id", self._field]}):
            ids += [hit["_source"]["id"] for hit in hits]
            vectors = [documents.numbers(hit["_source"][self._field]) for hit in hits]
            rows.append(np.array(vectors, dtype=np.float32))
        return ids, np.concatenate(rows)

    def ids(self) -> Iterator[str]:
        for hits in self._pages(queries.LIMIT, queries.doc_values("id")):
            for hit in hits:
                yield hit["fields"]["id"][0]

    def entries(self, after: str = "") -> Iterator[Entry]:
        fields = {"_source": True, "stored_fields": ["thumbnail"]}
        for hits in self._pages(_COPIED_AT_ONCE, fields, after=after):
            for hit in hits:
                yield documents.entry(hit["_source"], hit.get("fields", {}), self._field)

    def verify(self, repair: bool = False) -> list[str]:
        if repair and not self.writable:
            raise IndexStateError(f"{self.url} is open for reading only", "open it for writing")
        loading = self._facts(fresh=True).restore is not None
        problems = [life.UNFINISHED] if loading else []
        if loading and repair:
            self.refresh()
        self._see_own()
        found = life.check(self._client, self._alias, self._field, self._facts())
        return problems + found + [f"not repaired: {line}" for line in found if repair]

    def info(self) -> dict[str, Any]:
        self._see_own()
        counts = life.counts(self._client, self._alias)
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
            "sources": self.sources(),
        }

    def model_files(self) -> Mapping[str, bytes]:
        """None: the index names its model, and the model store keeps the files."""
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
        plan = self._plan(where, exact)
        find = words.search if plan.kind == words.WORDS else search
        for last in (False, True):
            try:
                return find(
                    lambda bodies: requests.run_searches(self._client, self._alias, bodies),
                    plan,
                    vectors,
                    k,
                    exclude,
                )
            except ServerError as refused:
                if last or not is_missing(refused.status, refused.error):
                    raise in_words(self.url, refused.status, refused.error) from None
                self._facts(fresh=True)  # replaced by a new one while it was being searched
        raise AssertionError("unreachable")

    def _plan(self, where: Sequence[str], exact: bool) -> Plan:
        facts = self._facts()
        try:
            conditions = filters.parse(where, facts.metadata)
        except QueryError:
            facts = self._facts(fresh=True)  # the field may be newer than what was known
            conditions = filters.parse(where, facts.metadata)
        fields = (self._field, f"parts.{self._field}") if facts.parts else (self._field,)
        clauses = tuple(queries.filters(conditions))
        return Plan(fields, facts.kind, self._address.options, clauses, exact)

    def _facts(self, fresh: bool = False) -> life.Facts:
        """What the index is now, at most a second ago.

        Raises `IndexStateError` when it is gone, or another spec's index has taken its place.
        """
        if not fresh and time.monotonic() - self._known_at < _FACTS_KEPT:
            return self._known
        found = life.read_facts(self._client, self.url, self._alias, patience=READING)
        if found is None:
            raise IndexStateError(f"{self.url} is gone", f"cbir index FOLDER --into '{self.url}'")
        if found.spec.fingerprint != self._spec.fingerprint:
            raise IndexStateError(
                f"{self.url} was built anew with {found.spec.short}, no longer {self._spec.short}",
                "open it again",
            )
        self._known, self._known_at = found, time.monotonic()
        return found

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the documents of these ids; None takes a field away.

        The document is read and written whole, thumbnail and all, unless it changed in between.
        """
        waiting = list(changes)
        for _ in range(_CHANGES_OUTRUN):
            conflicts: list[str] = []
            for start in range(0, len(waiting), _CHANGED_AT_ONCE):
                some = waiting[start : start + _CHANGED_AT_ONCE]
                outcome = self._send([*self._changed(some, changes)])
                if outcome.refused:
                    raise RecordsRefusedError(outcome.refused)
                conflicts += outcome.conflicts
            waiting = conflicts
            if not waiting:
                return
        raise IndexStateError(f"{self.url} is being changed by others", "try again in a moment")

    def _changed(
        self, ids: Sequence[str], changes: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[bulk.Action]:
        fields = {"_source": True, "stored_fields": ["thumbnail"]}
        for found in self._documents(ids, fields):
            condition = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
            yield found["_id"], documents.changed(found, changes[found["_id"]]), condition

    def _send(self, actions: Sequence[bulk.Action]) -> bulk.Outcome:
        if not actions:
            return bulk.Outcome()
        if self._known.kind == words.WORDS:
            actions = words.prepared(actions, self._spec)
        self._unseen = True
        outcome = bulk.send(self._client, self.url, self._alias, actions)
        self._known_at = float("-inf")  # new metadata may have come
        return outcome

    def _make_room_for_parts(self) -> None:
        if not self._facts().parts:
            body = queries.parts_mapping(self._spec, self._known.kind)
            self._request("PUT", "_mapping", body)
            self._facts(fresh=True)

    def _change_rows(self, name: str, change: requests.Change) -> list[Any]:
        return requests.change_rows(self._client, self.url, self._alias, name, change)

    def _documents(
        self, ids: Sequence[str], fields: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        return requests.documents_of(self._client, self._alias, ids, fields)

    def _pages(
        self, size: int, fields: Mapping[str, Any], *, source: str | None = None, after: str = ""
    ) -> Iterator[list[Mapping[str, Any]]]:
        self._see_own()
        return requests.pages(self._client, self._alias, size, fields, source=source, after=after)

    def _see_own(self) -> None:
        if self._unseen:
            self._make_visible()

    def _make_visible(self) -> None:
        self._unseen = False
        self._request("POST", "_refresh", None)

    def _request(self, method: str, call: str, body: Mapping[str, Any] | None = None) -> Any:
        patience = WRITING if self.writable else READING
        return self._client.request(method, f"/{self._alias}/{call}", body, patience=patience)
