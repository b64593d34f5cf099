"""How an index on the server comes to be: made, loaded, finished, replaced by a new one.

NAME is an alias of NAME-000001. A full re-index goes to NAME-000002, known as NAME~next until it is
complete; then NAME is moved to it in one step. What an index is and whether its loading was
finished stands in its mapping's `_meta`, written with the index itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch.address import Address
from cbir.index.elasticsearch.client import WRITING, Client, ServerError
from cbir.index.elasticsearch.server_errors import in_words, is_missing
from cbir.types import DescriptorSpec

_FIRST = 1
_ALREADY = "resource_already_exists_exception"

UNFINISHED = "its loading was never finished, or goes on now"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server says of an index: its own name behind the alias, spec, type and state.

    `parts`: whether any record may have more than one vector. `metadata`: keys that records may
    have. `restore`: settings that are to be set once it is loaded, None when it has been.
    """

    index: str
    spec: DescriptorSpec
    kind: str
    parts: bool
    metadata: tuple[str, ...]
    restore: Mapping[str, Any] | None


def draft_name(name: str) -> str:
    """The alias of the index that is to replace the one called `name`."""
    return f"{name}~next"


def read_facts(client: Client, url: str, alias: str, *, patience: float) -> Facts | None:
    """The facts of the index that `alias` names; None if there is none.

    Raises `IndexStateError` if it was not made by cbir, or by a newer version of it.
    """
    try:
        answer = client.attempt("GET", f"/{alias}?filter_path=*.mappings", patience=patience)
    except ServerError as refused:
        if is_missing(refused.status, refused.error):
            return None
        raise in_words(url, refused.status, refused.error) from None
    if len(answer) != 1:
        raise IndexStateError(f"{url} names {len(answer)} indices", "give the name of one")
    ((index, found),) = answer.items()
    mappings = found.get("mappings", {})
    said = mappings.get("_meta", {}).get("cbir")
    if said is None:
        raise IndexStateError(f"{url} was not made by cbir", "give another name")
    if said["schema"] > queries.SCHEMA:
        raise IndexStateError(
            f"{url} has schema {said['schema']}; this version of cbir reads up to {queries.SCHEMA}",
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
        metadata=tuple(sorted(queries.metadata_name(name) for name in fields)),
        restore=said["load"]["restore"] if "load" in said else None,
    )


def make(
    client: Client,
    address: Address,
    spec: DescriptorSpec,
    alias: str,
    *,
    version: tuple[int, int] | None,
    fast_load: bool,
) -> Facts:
    """A new empty index known as `alias`, open for loading."""
    body = queries.creation(spec, address.options, [alias], version=version, fast_load=fast_load)
    number = max(_numbers(client, address), default=_FIRST - 1) + 1
    while True:
        name = f"{address.name}-{number:06d}"
        try:
            # A load must not begin before its copies are there: they keep what is acknowledged.
            path = f"/{name}?wait_for_active_shards=all&timeout=5s"
            client.attempt("PUT", path, body, patience=WRITING)
        except ServerError as refused:
            kind = refused.error.get("type") if isinstance(refused.error, Mapping) else None
            if kind != _ALREADY:
                raise in_words(address.url, refused.status, refused.error) from None
            # Made by this very request, if its answer was lost; else the name is taken.
            number += 1
        found = read_facts(client, address.url, alias, patience=WRITING)
        if found is not None:
            return found


def draft(
    client: Client,
    address: Address,
    spec: DescriptorSpec,
    *,
    version: tuple[int, int] | None,
    fast_load: bool,
) -> Facts:
    """The index that is to replace the one of this name: a new one, or one broken off before."""
    alias = draft_name(address.name)
    found = read_facts(client, address.url, alias, patience=WRITING)
    if found is not None:
        kind = address.options.type or found.kind
        if found.spec.fingerprint == spec.fingerprint and found.kind == kind:
            return found
        client.request("DELETE", f"/{found.index}", patience=WRITING)
    return make(client, address, spec, alias, version=version, fast_load=fast_load)


def finish(client: Client, address: Address, alias: str, facts: Facts) -> None:
    """End the loading: searchable, with the settings it is to have, and under its name.

    Each step may be repeated; a load that is broken off here is finished by the next writer.
    """
    client.request("POST", f"/{alias}/_refresh", patience=WRITING)
    if facts.restore is not None:
        settings = {"index": dict(facts.restore)}
        client.request("PUT", f"/{alias}/_settings", settings, patience=WRITING)
        said = {"_meta": queries.meta(facts.spec, facts.kind, None)}
        client.request("PUT", f"/{alias}/_mapping", said, patience=WRITING)
    if alias == draft_name(address.name):
        _replace(client, address, facts)


def counts(client: Client, alias: str) -> dict[str, Any]:
    """Records, vectors, labels, missing files, and bytes on disk without the copies."""
    path = f"/{alias}/_search?allow_partial_search_results=false"
    answer = client.request("POST", path, queries.summary())
    sums = answer["aggregations"]
    stored = f"/{alias}/_stats/store?filter_path=_all.primaries.store.size_in_bytes"
    return {
        "count": answer["hits"]["total"]["value"],
        "vectors": int(sums["vectors"]["value"]),
        "labels": sums["labels"]["value"],
        "missing": sums["missing"]["doc_count"],
        "bytes": client.request("GET", stored)["_all"]["primaries"]["store"]["size_in_bytes"],
    }


def check(client: Client, alias: str, field: str, facts: Facts) -> list[str]:
    """What is wrong with the index, one line each; `field` holds its vectors."""
    problems = []
    health = client.request("GET", f"/_cluster/health/{alias}?filter_path=status")
    if health["status"] == "red":
        return ["a part of it is on no node that answers: start the missing nodes"]
    found_by = queries.searched_field(field, facts.kind)
    lacking = client.request("POST", f"/{alias}/_count", queries.without(found_by))["count"]
    if lacking:
        problems.append(f"{lacking} records have no vector: index their sources again")
    answer = client.request("POST", f"/{alias}/_search", queries.summary())
    sums = answer["aggregations"]
    there = answer["hits"]["total"]["value"] + sums["parts"]["doc_count"] * facts.parts
    counted = int(sums["vectors"]["value"])
    if there != counted:
        problems.append(f"its records say {counted} vectors, there are {there}")
    return problems


def _replace(client: Client, address: Address, facts: Facts) -> None:
    """Move the name to the finished draft, and drop the index that had it."""
    old = read_facts(client, address.url, address.name, patience=WRITING)
    replaced = old.index if old is not None and old.index != facts.index else None
    body = queries.swap(address.name, draft_name(address.name), facts.index, replaced)
    client.request("POST", "/_aliases", body, patience=WRITING)
    if replaced is not None:
        client.request("DELETE", f"/{replaced}?ignore_unavailable=true", patience=WRITING)


def _numbers(client: Client, address: Address) -> list[int]:
    """The numbers of the indices that bear this name."""
    try:
        answer = client.attempt(
            "GET", f"/{address.name}-*?filter_path=*.settings.index.uuid", patience=WRITING
        )
    except ServerError as refused:
        if refused.status == 404:
            return []
        raise in_words(address.url, refused.status, refused.error) from None
    numbered = re.compile(re.escape(address.name) + r"-(\d{6})")
    return [int(match[1]) for index in answer if (match := numbered.fullmatch(index))]
