"""Bulk requests: streamed in chunks, what passes tried again, what is refused told of by id.

Every action names its document, so that sending one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cbir.errors import IndexStateError
from cbir.index.elasticsearch.client import WRITING, Client, Pauses
from cbir.index.elasticsearch.server_errors import in_words, is_passing, reason_of

CHUNK_DOCUMENTS = 1000
CHUNK_BYTES = 8 << 20

_CONFLICT = 409
_NOT_FOUND = 404
_WHOLE_INDEX = (401, 403, 429)

Action = tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]
"""A document's id; the document, None to delete it; conditions such as `if_seq_no`."""


class Outcome:
    """What became of the actions: ids and reasons of those refused, ids that had changed since."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.conflicts: list[str] = []


def send(client: Client, url: str, alias: str, actions: Iterable[Action]) -> Outcome:
    """Carry out `actions` on the index that `alias` names; what comes back is durable.

    Raises `CbirError` when the server stays away, is read-only, or refuses the credentials.
    """
    outcome = Outcome()
    for chunk in _chunks(actions):
        pauses = Pauses(WRITING)
        while chunk:
            chunk = _sent(client, url, alias, chunk, outcome)
            if chunk and not pauses.wait():
                raise IndexStateError(
                    f"{url}: the server is too busy to take {len(chunk)} records",
                    "what was acknowledged is kept; run the same command again later",
                )
    return outcome


def _sent(
    client: Client, url: str, alias: str, chunk: list[tuple[str, bytes]], outcome: Outcome
) -> list[tuple[str, bytes]]:
    """Send a chunk once; returns what of it is to be sent again."""
    path = f"/{alias}/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error"
    answer = client.request("POST", path, b"".join(lines for _, lines in chunk), patience=WRITING)
    if not answer["errors"]:
        return []
    again = []
    for (record_id, lines), item in zip(chunk, answer["items"], strict=True):
        (result,) = item.values()
        status, error = result["status"], result.get("error")
        if error is None or (status == _NOT_FOUND and not error):
            continue
        if is_passing(status, error):
            again.append((record_id, lines))
        elif status == _CONFLICT:
            outcome.conflicts.append(record_id)
        elif status in _WHOLE_INDEX or _is_gone(error):
            raise in_words(url, status, error)
        else:
            outcome.refused[record_id] = reason_of(error)
    return again


def _chunks(actions: Iterable[Action]) -> Iterator[list[tuple[str, bytes]]]:
    chunk: list[tuple[str, bytes]] = []
    size = 0
    for action in actions:
        lines = _lines(action)
        if chunk and (len(chunk) >= CHUNK_DOCUMENTS or size + len(lines) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((action[0], lines))
        size += len(lines)
    if chunk:
        yield chunk


def _lines(action: Action) -> bytes:
    import orjson

    record_id, document, conditions = action
    named = {"_id": record_id, **(conditions or {})}
    if document is None:
        return orjson.dumps({"delete": named}) + b"\n"
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.dumps({"index": named}) + b"\n" + body + b"\n"


def _is_gone(error: Mapping[str, Any]) -> bool:
    """Whether the alias is not there (any more): nothing may be written beside it."""
    return error.get("type") == "index_not_found_exception"
