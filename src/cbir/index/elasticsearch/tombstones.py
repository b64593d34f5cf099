"""Tombstones: one document each, found by the fields `tombstone` (the id) and `source`.

Before schema 4, all were rows of one document, which was read and written as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple
from typing import Any

from cbir.errors import RecordsRefusedError
from cbir.index.base import Tombstone
from cbir.index.elasticsearch import bodies, bulk
from cbir.index.elasticsearch.requests import Requests

SCHEMA = 4
"""The first schema with a document for each."""
OLD = "cbir tombstones"
"""The id of the document of older schemas."""

_FIELD = "tombstone"
_STATE: dict[str, Any] = {"_source": True}


def read(requests: Requests, schema: int, ids: Iterable[str] | None = None) -> dict[str, Tombstone]:
    """Id -> tombstone, in id order: all, or those of `ids`."""
    wanted = None if ids is None else set(ids)
    if schema < SCHEMA:
        rows = (row for row in requests.rows(OLD) if wanted is None or row[0] in wanted)
    elif wanted is None:
        rows = (_row(hit) for hit in requests.hits(bodies.LIMIT, _STATE, key=_FIELD))
    else:
        rows = (_row(hit) for hit in requests.documents([*map(_name, wanted)], _STATE))
    found = {row[0]: Tombstone(*row) for row in rows}
    return dict(sorted(found.items()))


def count(requests: Requests, schema: int) -> int:
    """The number of tombstones."""
    if schema < SCHEMA:
        return len(requests.rows(OLD))
    return requests.count(bodies.having(_FIELD))


def write(requests: Requests, tombstones: Iterable[Tombstone]) -> None:
    """Add tombstones, or replace them by id."""
    outcome = bulk.send(requests, ((_name(one.id), _document(one), None) for one in tombstones))
    if outcome.refused:
        raise RecordsRefusedError(outcome.refused)


def drop(requests: Requests, ids: Collection[str]) -> None:
    """Delete the tombstones of `ids`; most of them may have none."""
    there = requests.documents([*map(_name, ids)], {"_source": False})
    _delete(requests, [found["_id"] for found in there])


def drop_source(requests: Requests, source: str, kept: Iterable[Tombstone] = ()) -> None:
    """Delete the tombstones of a source, except `kept`."""
    names = {_name(one.id) for one in kept}
    hits = requests.hits(bodies.LIMIT, {"_source": False}, key=_FIELD, source=source)
    _delete(requests, [hit["_id"] for hit in hits if hit["_id"] not in names])


def migrate(requests: Requests) -> None:
    """Write the rows of an older schema as documents."""
    write(requests, [Tombstone(*row) for row in requests.rows(OLD)])


def drop_old(requests: Requests) -> None:
    """Delete the document of an older schema."""
    _delete(requests, [OLD])


def _delete(requests: Requests, names: Sequence[str]) -> None:
    if names:
        bulk.send(requests, [(name, None, None) for name in names])


def _name(record_id: str) -> str:
    """The id of the document: it is not a record's, and as short as the server wants it."""
    return f"cbir tombstone {hashlib.sha256(record_id.encode()).hexdigest()}"


def _document(tombstone: Tombstone) -> dict[str, Any]:
    row = list(astuple(tombstone))
    return {_FIELD: tombstone.id, "source": tombstone.source, "state": {"rows": [row]}}


def _row(found: Any) -> list[Any]:
    (row,) = found["_source"]["state"]["rows"]
    return list(row)
