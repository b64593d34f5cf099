"""Errors of the server: which of them a retry may cure, and what to tell a person in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cbir.errors import CbirError, IndexStateError, QueryError

PASSING = frozenset({429, 502, 503, 504})
"""Status codes of a server that is busy or losing or gaining a node; a retry may succeed."""

# When a node dies during a request, the others report it with status 500.
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


class IndexMissingError(IndexStateError):
    """There is no index, or no longer one, at a URL."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no index at {url}", f"cbir index FOLDER --into '{url}'")


def is_passing(status: int, error: Any) -> bool:
    """Whether a retry of a failed request may succeed; `error`: the server's own."""
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
    """The error as a person reads it, with what to do."""
    reason = reason_of(error) or f"status {status}"
    if status == 401:
        return IndexStateError(
            f"{url}: the server refuses the credentials",
            "set CBIR_ELASTICSEARCH_API_KEY, or CBIR_ELASTICSEARCH_USER and _PASSWORD",
        )
    if _is_read_only(error):
        return IndexStateError(
            f"{url} is read-only: {reason}",
            "free disk space on the server's nodes, or lift the block of the index",
        )
    if status == 403:
        return IndexStateError(
            f"{url}: these credentials may not do this: {reason}",
            "they need the index privileges read, write, view_index_metadata and manage",
        )
    if is_missing(status, error):
        return IndexMissingError(url)
    if any(any(sign in text for sign in _NO_SCRIPTS) for text in _reasons(error)):
        return QueryError(
            f"{url}: this server has no scripts, which exact search over HNSW needs",
            "search without exactness, or keep the vectors in an index made with ?type=flat",
        )
    if any(_TOO_MANY_WORDS in text for text in _reasons(error)):
        return QueryError(
            f"{url}: a query has more words than the server looks up at once: {reason}",
            "give its nodes a larger heap, or keep the vectors in an index made with ?type=flat",
        )
    if status in PASSING:
        return IndexStateError(
            f"{url}: the server cannot answer at the moment: {reason}",
            "look at its nodes and its log, then try again",
        )
    return IndexStateError(f"{url}: the server answered with {status}: {reason}")


def reason_of(error: Any) -> str:
    """The innermost reason that the server gives, in one line."""
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
    """The error and what caused it, the outermost first."""
    if not isinstance(error, Mapping):
        return
    yield error
    for shard in error.get("failed_shards", ())[:1]:
        yield from _causes(shard.get("reason"))
    yield from _causes(error.get("caused_by"))
