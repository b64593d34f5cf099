"""Server errors: which ones to retry, and their one-line messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cbir.errors import CbirError, IndexStateError, QueryError

PASSING = frozenset({429, 502, 503, 504})
"""Transient status codes: the server is busy, or a node is leaving or joining."""

# If a node dies during a request, the other nodes report it with status 500.
_LOST_NODE = (
    "node_disconnected_exception",
    "node_not_connected_exception",
    "connect_transport_exception",
    "node_closed_exception",
    "no_shard_available_action_exception",
    "shard_not_found_exception",
    "illegal_index_shard_state_exception",
)
_NO_SCRIPTS = ("script_lang not supported", "cannot execute [inline] scripts", "[script_score]")

_TOO_MANY_WORDS = "maxClauseCount"
_TOO_COMPLEX = "Determinizing automaton"


class IndexMissingError(IndexStateError):
    """The URL has no index, or no longer has one."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no index at {url}", f"cbir index FOLDER --into '{url}'")


def is_passing(status: int, error: Any) -> bool:
    """Whether to retry a failed request; `error`: the server's error object."""
    if _is_read_only(error):
        return False
    return status in PASSING or (
        status >= 500 and any(cause.get("type") in _LOST_NODE for cause in _causes(error))
    )


def is_missing(status: int, error: Any) -> bool:
    """Whether the index, or the alias, does not exist."""
    return status == 404 and any(
        cause.get("type") == "index_not_found_exception" for cause in _causes(error)
    )


def in_words(url: str, status: int, error: Any) -> CbirError:
    """The error as a message with a hint."""
    reason = reason_of(error) or f"status {status}"
    if status == 401:
        return IndexStateError(
            f"{url}: the server rejects the credentials",
            "set CBIR_ELASTICSEARCH_API_KEY, or CBIR_ELASTICSEARCH_USER and _PASSWORD",
        )
    if _is_read_only(error):
        return IndexStateError(
            f"{url} is read-only: {reason}",
            "free disk space on the server's nodes, or remove the index block",
        )
    if status == 403:
        return IndexStateError(
            f"{url}: the credentials do not allow this: {reason}",
            "they need the index privileges read, write, view_index_metadata and manage",
        )
    if is_missing(status, error):
        return IndexMissingError(url)
    if any(any(sign in text for sign in _NO_SCRIPTS) for text in _reasons(error)):
        return QueryError(
            f"{url}: scripts are disabled on this server; exact search over HNSW needs them",
            "search without --exact, or create the index with ?type=flat",
        )
    if any(_TOO_MANY_WORDS in text for text in _reasons(error)):
        return QueryError(
            f"{url}: a query has more words than the server's limit: {reason}",
            "give its nodes a larger heap, or create the index with ?type=flat",
        )
    if any(_TOO_COMPLEX in text for text in _reasons(error)):
        return QueryError(
            f"{url}: a filter is too complex for the server", "write fewer * and ? in it"
        )
    if status in PASSING:
        return IndexStateError(
            f"{url}: the server is temporarily unavailable: {reason}",
            "check its nodes and log, then try again",
        )
    return IndexStateError(f"{url}: the server returned {status}: {reason}")


def reason_of(error: Any) -> str:
    """The server's innermost reason, in one line."""
    reasons = list(_reasons(error))
    return " ".join(reasons[-1].split())[:400] if reasons else ""


def _is_read_only(error: Any) -> bool:
    return any(
        cause.get("type") == "cluster_block_exception"
        and any(sign in str(cause.get("reason")) for sign in ("read-only", "index write (api)"))
        for cause in _causes(error)
    )


def _reasons(error: Any) -> Iterator[str]:
    for cause in _causes(error):
        if isinstance(cause.get("reason"), str):
            yield cause["reason"]
    if isinstance(error, str):
        yield error


def _causes(error: Any) -> Iterator[Mapping[str, Any]]:
    """The error and its causes, outermost first."""
    if not isinstance(error, Mapping):
        return
    yield error
    for shard in error.get("failed_shards", ())[:1]:
        yield from _causes(shard.get("reason"))
    yield from _causes(error.get("caused_by"))
