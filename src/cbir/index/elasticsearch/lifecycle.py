"""The life of an index on the server: created, loaded, finished, replaced by a new one, checked.

NAME is an alias of NAME-000001. A full re-index goes to NAME-000002, whose alias is NAME~next until
it is complete; then NAME is moved to it in one step. The mapping's `_meta`, created together with
the index, says what the index is and whether its load was finished.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import bodies
from cbir.index.elasticsearch.client import WRITING, Client
from cbir.index.elasticsearch.requests import Requests
from cbir.index.elasticsearch.server_errors import is_missing
from cbir.types import DescriptorSpec

_ALREADY = "resource_already_exists_exception"

UNFINISHED = "its load was never finished, or is still running"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server says of an index: its own name behind the alias, spec, type and state.

    `parts`: whether any record may have more than one vector. `metadata`: keys that records may
    have. `restore`: settings to set once it is loaded, None when that has been done.
    """

    index: str
    spec: DescriptorSpec
    kind: str
    parts: bool
    metadata: tuple[str, ...]
    restore: Mapping[str, Any] | None


def draft_name(name: str) -> str:
    """The alias of the index that will replace the one called `name`."""
    return f"{name}~next"


def read_facts(client: Client, alias: str, *, patience: float = WRITING) -> Facts | None:
    """The facts of the index that `alias` names; None if there is none.

    Raises `IndexStateError` if it was not made by cbir, or by a newer version of it.
    """
    path = f"/{alias}?filter_path=*.mappings"
    answer = client.request("GET", path, patience=patience, expected=is_missing)
    if answer is None:
        return None
    if len(answer) != 1:
        raise IndexStateError(f"{client.url} names {len(answer)} indices", "give the name of one")
    ((index, found),) = answer.items()
    mappings = found.get("mappings", {})
    said = mappings.get("_meta", {}).get("cbir")
    if said is None:
        raise IndexStateError(f"{client.url} was not made by cbir", "give another name")
    if said["schema"] > bodies.SCHEMA:
        raise IndexStateError(
            f"{client.url} has schema {said['schema']}; "
            f"this version of cbir reads up to {bodies.SCHEMA}",
            "upgrade cbir: pip install --upgrade cbir",
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
    )


def make(client: Client, alias: str, body: Mapping[str, Any]) -> Facts:
    """A new empty index known as `alias`, open for loading; `body`: see `bodies.creation`."""
    name = client.address.name
    number = max(_numbers(client, name), default=0) + 1
    while True:
        # A load must not begin before its replicas are there: they keep what is acknowledged.
        path = f"/{name}-{number:06d}?wait_for_active_shards=all&timeout=5s"
        if client.request("PUT", path, body, patience=WRITING, expected=_is_taken) is None:
            # Made by this very request, if its answer was lost; else by another process.
            number += 1
        found = read_facts(client, alias)
        if found is not None:
            return found


def draft(client: Client, spec: DescriptorSpec) -> Facts | None:
    """The interrupted re-index of this name, to be continued; None if there is none.

    One of another spec or type is dropped.
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
    """End the load: searchable, with its final settings, and under its name.

    Each step may be repeated; the next writer finishes a load that was interrupted here.
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
    """Records, vectors, labels, missing files, and bytes on disk without replicas."""
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
    """What is wrong with the index, one line each."""
    health = f"/_cluster/health/{requests.alias}?filter_path=status"
    if requests.client.request("GET", health)["status"] == "red":
        return ["a part of it is on no node that answers: start the missing nodes"]
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
        problems.append(f"its records say {counted} vectors, there are {there}")
    return problems


def _replace(client: Client, name: str, facts: Facts) -> None:
    """Move the name to the finished draft, and drop the index that had it."""
    old = read_facts(client, name)
    replaced = old.index if old is not None and old.index != facts.index else None
    body = bodies.swap(name, draft_name(name), facts.index, replaced)
    client.request("POST", "/_aliases", body, patience=WRITING)
    if replaced is not None:
        client.request("DELETE", f"/{replaced}?ignore_unavailable=true", patience=WRITING)


def _numbers(client: Client, name: str) -> list[int]:
    """The numbers of the indices behind `name`, drafts among them."""
    path = f"/{name}-*?filter_path=*.settings.index.uuid"
    answer = client.request(
        "GET", path, patience=WRITING, expected=lambda status, _error: status == 404
    )
    numbered = re.compile(re.escape(name) + r"-(\d{6})")
    return [int(match[1]) for index in answer or () if (match := numbered.fullmatch(index))]


def _is_taken(_status: int, error: Any) -> bool:
    return isinstance(error, Mapping) and error.get("type") == _ALREADY
