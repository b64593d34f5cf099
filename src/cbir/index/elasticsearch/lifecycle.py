"""The lifecycle of a server index: create, load, finish, replace and check.

NAME is an alias of NAME-000001. A full rebuild goes to NAME-000002 under the alias NAME~next; once
it is complete, NAME moves to it atomically. The mapping's `_meta`, created with the index, holds
its spec and whether its load is complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cbir.errors import HOW_TO_UPDATE, IndexStateError
from cbir.index.elasticsearch import bodies, tombstones
from cbir.index.elasticsearch.client import WRITING, Client
from cbir.index.elasticsearch.requests import Requests
from cbir.index.elasticsearch.server_errors import is_missing
from cbir.types import DescriptorSpec

_ALREADY = "resource_already_exists_exception"

UNFINISHED = "its load is incomplete or still running"


@dataclass(frozen=True, slots=True)
class Facts:
    """The server's facts about an index: its name behind the alias, spec, type and state.

    `parts`: whether a record may have more than one vector. `metadata`: the metadata keys.
    `restore`: settings to apply after the load, None once applied. `schema`: see `bodies.SCHEMA`.
    """

    index: str
    spec: DescriptorSpec
    kind: str
    parts: bool
    metadata: tuple[str, ...]
    restore: Mapping[str, Any] | None
    schema: int


def draft_name(name: str) -> str:
    """The alias of the future replacement of `name`."""
    return f"{name}~next"


def read_facts(client: Client, alias: str, *, patience: float = WRITING) -> Facts | None:
    """The facts about the index behind `alias`; None if there is none.

    Raises `IndexStateError` if it was created by another program or a newer version of cbir.
    """
    path = f"/{alias}?filter_path=*.mappings"
    answer = client.request("GET", path, patience=patience, expected=is_missing)
    if answer is None:
        return None
    if len(answer) != 1:
        raise IndexStateError(f"{client.url} names {len(answer)} indices", "name a single index")
    ((index, found),) = answer.items()
    mappings = found.get("mappings", {})
    said = mappings.get("_meta", {}).get("cbir")
    if said is None:
        raise IndexStateError(f"{client.url} was not created by cbir", "choose another name")
    if said["schema"] > bodies.SCHEMA:
        raise IndexStateError(
            f"{client.url} has schema {said['schema']}; "
            f"this version of cbir reads up to {bodies.SCHEMA}",
            HOW_TO_UPDATE,
        )
    properties = mappings["properties"]
    groups = properties["metadata"].get("properties", {}).values()
    fields = {name for group in groups for name in group.get("properties", {})}
    return Facts(
        index=index,
        spec=DescriptorSpec(**said["spec"]),
        kind=said["type"],
        parts="parts" in properties,
        metadata=tuple(sorted(bodies.metadata_name(name) for name in fields)),
        restore=said["load"]["restore"] if "load" in said else None,
        schema=said["schema"],
    )


def migrate(requests: Requests, facts: Facts) -> None:
    """Bring the index to today's schema; its records stay as they are.

    The new schema is stated when its documents are there, and the old ones go after that. So
    readers see every tombstone, and the next writer completes what was interrupted before.
    """
    if facts.schema < bodies.SCHEMA:
        requests.call("PUT", "_mapping", bodies.migration(), patience=WRITING)
        tombstones.migrate(requests)
        requests.refresh()
        said = {"_meta": bodies.meta(facts.spec, facts.kind, facts.restore)}
        requests.call("PUT", "_mapping", said, patience=WRITING)
        tombstones.drop_old(requests)


def make(client: Client, alias: str, body: Mapping[str, Any]) -> Facts:
    """Create an empty index under `alias`, open for loading; `body`: see `bodies.creation`."""
    name = client.address.name
    number = max(_numbers(client, name), default=0) + 1
    while True:
        # Wait for the replicas before loading: they protect acknowledged records.
        path = f"/{name}-{number:06d}?wait_for_active_shards=all&timeout=5s"
        if client.request("PUT", path, body, patience=WRITING, expected=_is_taken) is None:
            # Created by this request, if the response was lost, or by another process.
            number += 1
        found = read_facts(client, alias)
        if found is not None:
            return found


def draft(client: Client, spec: DescriptorSpec) -> Facts | None:
    """The interrupted rebuild of this index, to be resumed; None if there is none.

    Deletes a rebuild with another spec or type.
    """
    found = read_facts(client, draft_name(client.address.name))
    if found is None:
        return None
    same_type = client.address.options.type in (None, found.kind)
    if same_type and found.spec.fingerprint == spec.fingerprint:
        return found
    client.request("DELETE", f"/{found.index}", patience=WRITING)
    return None


def finish(requests: Requests, facts: Facts) -> None:
    """Finish the load: make the index searchable, apply its final settings, move the alias.

    All steps are idempotent; the next writer completes an interrupted finish.
    """
    requests.refresh()
    if facts.restore is not None:
        settings = {"index": dict(facts.restore)}
        requests.call("PUT", "_settings", settings, patience=WRITING)
        said = {"_meta": bodies.meta(facts.spec, facts.kind, None)}
        requests.call("PUT", "_mapping", said, patience=WRITING)
    name = requests.client.address.name
    if requests.alias == draft_name(name):
        _replace(requests.client, name, facts)
        requests.alias = name


def counts(requests: Requests) -> dict[str, Any]:
    """Counts of records, vectors, labels and missing files; bytes on disk without replicas."""
    answer = requests.search(bodies.summary())
    sums = answer["aggregations"]
    stored = requests.call("GET", "_stats/store?filter_path=_all.primaries.store.size_in_bytes")
    return {
        "count": answer["hits"]["total"]["value"],
        "vectors": int(sums["vectors"]["value"]),
        "labels": sums["labels"]["value"],
        "missing": sums["missing"]["doc_count"],
        "bytes": stored["_all"]["primaries"]["store"]["size_in_bytes"],
    }


def check(requests: Requests, facts: Facts) -> list[str]:
    """The problems of the index, one line each."""
    health = f"/_cluster/health/{requests.alias}?filter_path=status"
    if requests.client.request("GET", health)["status"] == "red":
        return ["some of its shards are on no reachable node: start the missing nodes"]
    problems = []
    field = bodies.searched_field(bodies.vector_field(facts.spec), facts.kind)
    lacking = requests.count(bodies.without(field))
    if lacking:
        problems.append(f"{lacking} records have no vector: index their sources again")
    answer = requests.search(bodies.summary())
    sums = answer["aggregations"]
    there = answer["hits"]["total"]["value"] + sums["parts"]["doc_count"] * facts.parts
    counted = int(sums["vectors"]["value"])
    if there != counted:
        problems.append(f"its records list {counted} vectors, but it holds {there}")
    return problems


def _replace(client: Client, name: str, facts: Facts) -> None:
    """Move the alias to the finished draft and delete the old index."""
    old = read_facts(client, name)
    replaced = old.index if old is not None and old.index != facts.index else None
    body = bodies.swap(name, draft_name(name), facts.index, replaced)
    client.request("POST", "/_aliases", body, patience=WRITING)
    if replaced is not None:
        client.request("DELETE", f"/{replaced}?ignore_unavailable=true", patience=WRITING)


def _numbers(client: Client, name: str) -> list[int]:
    """The numbers of the indices behind `name`, including drafts."""
    path = f"/{name}-*?filter_path=*.settings.index.uuid"
    answer = client.request(
        "GET", path, patience=WRITING, expected=lambda status, _error: status == 404
    )
    numbered = re.compile(re.escape(name) + r"-(\d{6})")
    return [int(match[1]) for index in answer or () if (match := numbered.fullmatch(index))]


def _is_taken(_status: int, error: Any) -> bool:
    return isinstance(error, Mapping) and error.get("type") == _ALREADY
