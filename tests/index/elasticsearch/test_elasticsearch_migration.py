"""Indexes of older schemas open for reading as they are; the next writer migrates them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, replace
from typing import Any
from urllib.parse import quote

import pytest

from cbir.errors import CbirError
from cbir.index.base import Detail, Entry, SourceRun, Tombstone
from cbir.index.elasticsearch import bodies, documents, tombstones
from cbir.index.elasticsearch.address import Options
from cbir.index.elasticsearch.requests import Requests
from cbir.index.open import create_index, open_index
from cbir.testing import make_entry, sample_entries, unit
from tests.index.elasticsearch.support_elasticsearch import session_server
from tests.index.embedded.support_index import SPEC
from tools.elasticsearch_address import Address

pytestmark = pytest.mark.elasticsearch
FIELDS_SINCE = {3: ("tombstone",), 2: ("tombstone", "given")}
"""Schema -> the fields that it lacks."""
ENTRIES = [
    replace(entry, record=replace(entry.record, metadata={"lens": "50 mm", "price": 3}))
    for entry in sample_entries(5, parts=2)
]
BURIED = [
    Tombstone(f"a/gone%20{n}", "a", f"gone%20{n}", "0" * 64, 1000 + n, None, "7-1", 1_700_000_000)
    for n in range(3)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture
def name(server: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    own = f"m-{uuid.uuid4().hex[:12]}"
    yield own
    for index in server.request("GET", f"/{own}*"):
        server.request("DELETE", f"/{index}")


def put(server: Address, name: str, document_id: str, document: Any) -> None:
    server.request("PUT", f"/{name}/_doc/{quote(document_id, safe='')}", document)


def old_index(server: Address, name: str, schema: int) -> str:
    """An index as the version of that schema wrote it; returns its URL."""
    body = bodies.creation(SPEC, Options(), name)
    body["settings"]["index"].pop("refresh_interval")
    said = body["mappings"]["_meta"]["cbir"]
    said["schema"] = schema
    del said["load"]
    for field in FIELDS_SINCE[schema]:
        del body["mappings"]["properties"][field]
    body["mappings"]["properties"].update(bodies.parts_mapping(SPEC, "flat")["properties"])
    server.request("PUT", f"/{name}-000001", body)
    field = bodies.vector_field(SPEC)
    for entry in ENTRIES:
        document = as_lists(documents.document(entry, field))
        if schema < 3:
            del document["given"]
        put(server, name, entry.record.id, document)
    rows = [list(astuple(tombstone)) for tombstone in BURIED]
    put(server, name, "cbir tombstones", {"state": {"rows": rows}})
    put(server, name, "cbir sources", {"state": {"rows": [["a", "/photos/a"]]}})
    server.request("POST", f"/{name}/_refresh")
    return server.index_url(name)


def as_lists(document: dict[str, Any]) -> dict[str, Any]:
    field = bodies.vector_field(SPEC)
    parts = [{**part, field: part[field].tolist()} for part in document["parts"]]
    return {**document, field: document[field].tolist(), "parts": parts}


def stored(server: Address, name: str) -> tuple[Any, int]:
    """The mapping, and the number of all documents, those without an id included."""
    (found,) = server.request("GET", f"/{name}/_mapping").values()
    server.request("POST", f"/{name}/_refresh")
    query = {"query": {"match_all": {}}}
    return found["mappings"], server.request("POST", f"/{name}/_count", query)["count"]


def check(url: str, schema: int, entries: list[Entry]) -> None:
    """A reader sees everything that the index holds."""
    given = frozenset() if schema > 2 else frozenset({"price"})
    with closing(open_index(url)) as index:
        assert [entry.record for entry in index.entries()] == [
            replace(entry.record, given=given) for entry in entries
        ]
        assert index.tombstones() == {tombstone.id: tombstone for tombstone in BURIED}
        some = [BURIED[1].id, "a/none"]
        assert index.tombstones(some) == {BURIED[1].id: BURIED[1]}
        assert index.info()["kept_out"] == len(BURIED)
        assert index.sources() == {"a": "/photos/a"}
        assert list(index.ids(["price=3"])) == [entry.record.id for entry in entries]
        assert index.search(entries[3].vectors[:1], 1)[0].ids == [entries[3].record.id]
        assert index.verify() == []


@pytest.mark.parametrize("schema", FIELDS_SINCE)
def test_an_older_index_is_read_as_it_is_and_migrated_by_the_next_writer(
    schema: int, server: Address, name: str
) -> None:
    url = old_index(server, name, schema)
    before = stored(server, name)
    check(url, schema, ENTRIES)
    assert stored(server, name) == before
    with closing(open_index(url)) as reader:
        open_index(url, write=True).close()
        assert len(reader.tombstones()) == len(BURIED)  # it was opened before
    mapping, count = stored(server, name)
    assert mapping["_meta"]["cbir"]["schema"] == bodies.SCHEMA
    assert all(field in mapping["properties"] for field in FIELDS_SINCE[schema])
    assert count == len(ENTRIES) + len(BURIED) + 1  # and the sources
    check(url, schema, ENTRIES)
    with closing(open_index(url, write=True)) as index:
        given = frozenset({"price"})
        index.set_details({"a/0001": Detail("cat", {"price": 4}, given)})
        assert index.records(["a/0001"])[0].given == given
        index.set_run("a", SourceRun(7, finished=True))
        index.unbury([BURIED[0].id])
        index.bury([replace(BURIED[0], id="a/0002")])
        assert list(index.tombstones()) == ["a/0002", BURIED[1].id, BURIED[2].id]
        assert index.remove_source("a") == [e.record.id for e in ENTRIES if e.record.id != "a/0002"]
        assert index.info()["kept_out"] == 0


def test_an_interrupted_migration_is_completed_by_the_next_writer(
    server: Address, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = old_index(server, name, 2)

    def fail(*_: object) -> None:
        raise CbirError("the writer is killed here")

    for step in ("migrate", "write", "drop_old"):
        with monkeypatch.context() as patched:
            patched.setattr(tombstones, step, fail)
            with pytest.raises(CbirError, match="killed"):
                open_index(url, write=True)
        check(url, 2, ENTRIES)
    open_index(url, write=True).close()
    check(url, 2, ENTRIES)


def test_what_a_few_tombstones_cost_does_not_grow_with_their_number(
    server: Address, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in documents sent and read, not in seconds."""
    sent: list[int] = []
    call = Requests.call

    def counted(self: Requests, method: str, what: str, body: Any = None, **options: Any) -> Any:
        answer = call(self, method, what, body, **options)
        sent.append(len(body) if isinstance(body, bytes) else len(str(body)) + len(str(answer)))
        return answer

    many = [replace(BURIED[0], id=f"a/{n:05d}", location=f"{n:05d}") for n in range(12_000)]
    with closing(create_index(server.index_url(name), SPEC)) as index:
        index.register_source("a", "/photos/a")
        assert index.bury(many) == []
        monkeypatch.setattr(Requests, "call", counted)
        index.bury([replace(BURIED[0], id="a/new")])
        index.add([make_entry("a/00007", unit([[1.0] * 8])), make_entry("a/x", unit([[1.0] * 8]))])
        index.unbury(["a/00009", "a/none"])
        assert index.info()["kept_out"] == 11_999
        assert list(index.tombstones(["a/00007", "a/00008"])) == ["a/00008"]
        assert sum(sent) < 30_000, sent
        left = index.tombstones()
        assert list(left) == [*(t.id for t in many if t.id not in ("a/00007", "a/00009")), "a/new"]
        assert left["a/11999"] == many[-1]
        index.remove_source("a")
        assert index.tombstones() == {}


def test_the_next_writer_sees_what_another_has_just_removed(server: Address, name: str) -> None:
    url = server.index_url(name)
    with closing(create_index(url, SPEC)) as index:
        index.refresh()
    server.request("PUT", f"/{name}/_settings", {"index": {"refresh_interval": "1h"}})
    for number in range(3):
        with closing(open_index(url, write=True)) as index:
            assert len(index.tombstones()) == number
            index.bury([replace(BURIED[0], id=f"a/{number}")])
