"""Looks an index over: counts for people, and what does not fit together."""

from __future__ import annotations

from typing import Any

from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch.client import Client
from cbir.index.elasticsearch.lifecycle import Facts

UNFINISHED = "its loading was never finished, or goes on now"


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
