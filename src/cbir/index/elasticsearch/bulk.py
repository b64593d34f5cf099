"""Bulk requests: sent in chunks, retried on transient errors, refusals reported by id.

Every action names its document, so repeating one is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cbir.errors import IndexStateError
from cbir.index.elasticsearch.client import WRITING, Pauses, json_lines
from cbir.index.elasticsearch.requests import Requests
from cbir.index.elasticsearch.server_errors import in_words, is_missing, is_passing, reason_of

CHUNK_DOCUMENTS = 1000
CHUNK_BYTES = 8 << 20

_CONFLICT = 409
_NOT_FOUND = 404
_WHOLE_INDEX = (401, 403, 429)

Action = tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]
"""A document's id, its content (None deletes it), and conditions such as `if_seq_no`."""


@dataclass
class Outcome:
    """The failed actions: refused ids with reasons, and ids changed by another writer."""

    refused: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def send(requests: Requests, actions: Iterable[Action]) -> Outcome:
    """Execute `actions`; they are durable when this returns.

    Raises `CbirError` if the server stays unreachable, is read-only or rejects the credentials.
    """
    requests.unseen = True
    outcome = Outcome()
    for chunk in _chunks(actions):
        pauses = Pauses(WRITING)
        while chunk:
            chunk = _sent(requests, chunk, outcome)
            if chunk and not pauses.wait():
                raise IndexStateError(
                    f"{requests.client.url}: the server is too busy to take {len(chunk)} records",
                    "acknowledged records are kept; run the same command again later",
                )
    return outcome


def _sent(
    requests: Requests, chunk: list[tuple[str, bytes]], outcome: Outcome
) -> list[tuple[str, bytes]]:
    """Send a chunk once and return the actions to retry."""
    what = "_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error"
    lines = b"".join(lines for _, lines in chunk)
    answer = requests.call("POST", what, lines, patience=WRITING)
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
        elif status in _WHOLE_INDEX or is_missing(status, error):
            raise in_words(requests.client.url, status, error)
        else:
            outcome.refused[record_id] = reason_of(error)
    return again


def _chunks(actions: Iterable[Action]) -> Iterator[list[tuple[str, bytes]]]:
    chunk: list[tuple[str, bytes]] = []
    size = 0
    for record_id, document, conditions in actions:
        named = {"_id": record_id, **(conditions or {})}
        lines = (
            json_lines({"delete": named})
            if document is None
            else json_lines({"index": named}, document)
        )
        if chunk and (len(chunk) >= CHUNK_DOCUMENTS or size + len(lines) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((record_id, lines))
        size += len(lines)
    if chunk:
        yield chunk
