"""Requests in several steps: batches of searches, pages of records, documents, small state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch.client import READING, WRITING, Client, Pauses, ServerError
from cbir.index.elasticsearch.server_errors import in_words, is_passing

_SEARCHES_AT_ONCE = 64
_GET_AT_ONCE = 1000
_CHANGES_OUTRUN = 50
_CONFLICT = 409

Body = Mapping[str, Any]
Change = Callable[[list[Any]], list[Any]]


def run_searches(client: Client, alias: str, bodies: Sequence[Body]) -> list[Mapping[str, Any]]:
    """The answers to search bodies, in their order; raises `ServerError` for one that fails.

    Every shard answers, or the search is tried again: what half an index says is no answer.
    """
    if len(bodies) == 1:
        path = f"/{alias}/_search?allow_partial_search_results=false"
        return [client.attempt("POST", path, bodies[0])]
    answers: list[Mapping[str, Any]] = []
    for start in range(0, len(bodies), _SEARCHES_AT_ONCE):
        answers += _searched(client, alias, bodies[start : start + _SEARCHES_AT_ONCE])
    return answers


def pages(
    client: Client,
    alias: str,
    size: int,
    fields: Mapping[str, Any],
    *,
    source: str | None = None,
    after: str = "",
) -> Iterator[list[Mapping[str, Any]]]:
    """All records (of `source`) with an id above `after`, `size` hits at a time, in id order."""
    while True:
        body = queries.page(after, size, source=source, fields=fields)
        path = f"/{alias}/_search?allow_partial_search_results=false"
        hits = client.request("POST", path, body)["hits"]["hits"]
        if hits:
            yield hits
        if len(hits) < size:
            return
        after = hits[-1]["sort"][0]


def documents_of(
    client: Client, alias: str, ids: Sequence[str], fields: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The documents of `ids` that there are, as last written, in that order."""
    for start in range(0, len(ids), _GET_AT_ONCE):
        wanted = [{"_id": record_id, **fields} for record_id in ids[start : start + _GET_AT_ONCE]]
        answer = client.request("POST", f"/{alias}/_mget", {"docs": wanted})
        yield from (found for found in answer["docs"] if found.get("found"))


def read_rows(client: Client, alias: str, name: str) -> list[Any]:
    """The rows kept in the document `name`, which is no record; none if it was never written."""
    for found in documents_of(client, alias, [name], {}):
        rows: list[Any] = found["_source"]["state"]["rows"]
        return rows
    return []


def change_rows(client: Client, url: str, alias: str, name: str, change: Change) -> list[Any]:
    """Replace the rows kept in the document `name` by what `change` makes of them; returns these.

    When somebody else was faster, `change` is asked again.
    """
    for _ in range(_CHANGES_OUTRUN):
        found = next(documents_of(client, alias, [name], {}), None)
        before = [] if found is None else found["_source"]["state"]["rows"]
        after = change(before)
        if after == before:
            return before
        condition = (
            "op_type=create"
            if found is None
            else f"if_seq_no={found['_seq_no']}&if_primary_term={found['_primary_term']}"
        )
        path = f"/{alias}/_doc/{quote(name, safe='')}?require_alias=true&{condition}"
        try:
            client.attempt("PUT", path, {"state": {"rows": after}}, patience=WRITING)
            return after
        except ServerError as refused:
            if refused.status != _CONFLICT:
                raise in_words(url, refused.status, refused.error) from None
    raise IndexStateError(f"{url} is being changed by too many others", "try again in a moment")


def _searched(client: Client, alias: str, bodies: Sequence[Body]) -> list[Mapping[str, Any]]:
    """One `_msearch`; what of it fails for the moment is asked again."""
    import orjson

    answers: dict[int, Mapping[str, Any]] = {}
    pauses = Pauses(READING)
    while waiting := [number for number in range(len(bodies)) if number not in answers]:
        lines = bytearray()
        for number in waiting:
            body = orjson.dumps(bodies[number], option=orjson.OPT_SERIALIZE_NUMPY)
            lines += b'{"allow_partial_search_results":false}\n' + body + b"\n"
        answer = client.attempt("POST", f"/{alias}/_msearch", bytes(lines))
        for number, found in zip(waiting, answer["responses"], strict=True):
            if "error" not in found:
                answers[number] = found
            elif not is_passing(found["status"], found["error"]):
                raise ServerError(found["status"], found["error"])
        if len(answers) < len(bodies) and not pauses.wait():
            failed = next(r for r in answer["responses"] if "error" in r)
            raise ServerError(failed["status"], failed["error"])
    return [answers[number] for number in range(len(bodies))]
