"""Requests to Elasticsearch: credentials from the environment, retries, one-line errors."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cbir.errors import CbirError, IndexClosedError, IndexStateError, MissingExtraError
from cbir.index.elasticsearch.address import Address
from cbir.index.elasticsearch.server_errors import in_words, is_passing

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

OLDEST = (8, 19)

READING = 30.0
"""How long, in seconds, to retry a search while nodes are unreachable or busy."""
WRITING = 300.0
"""The same for a bulk load, which should survive a node restart."""
OPENING = 3.0
"""The same for the first request, so that a wrong address is reported soon."""

_TIMEOUT = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_ENVIRONMENT = "CBIR_ELASTICSEARCH_"
_JSON, _LINES = "application/json", "application/x-ndjson"


Expected = Callable[[int, Any], bool]
"""Whether the caller expects an error response, given its status and error body."""


class Client:
    """Requests to the nodes of one address; thread-safe."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.url = address.url
        self._client = _connected(address)
        self._closed = False

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        patience: float = READING,
        expected: Expected | None = None,
    ) -> Any:
        """The server's response, parsed from JSON; None for an `expected` error.

        A `body` of bytes holds JSON lines. Transient errors (busy, node lost, no connection) are
        retried for `patience` seconds, on another node if there is one. Raises `CbirError` after
        that, and immediately for any other error.
        """
        from elastic_transport import ConnectionError, TlsError, TransportError
        from elasticsearch import ApiError, UnsupportedProductError

        if self._closed:
            raise IndexClosedError(self.url)
        pauses = Pauses(patience)
        headers = {"accept": _JSON}
        if body is not None:
            headers["content-type"] = _LINES if isinstance(body, bytes) else _JSON
        while True:
            try:
                answer = self._client.perform_request(method, path, headers=headers, body=body)
                return answer.body
            except UnsupportedProductError:
                raise self._not_elasticsearch() from None
            except ApiError as error:
                status, problem = error.status_code, error.body
                if status == 404 and "x-elastic-product" not in error.meta.headers:
                    raise self._not_elasticsearch() from None  # a proxy's answer to a wrong path
                if isinstance(problem, dict):
                    problem = problem.get("error")
                if is_passing(status, problem) and pauses.wait():
                    continue
                if expected is not None and expected(status, problem):
                    return None
                raise in_words(self.url, status, problem) from None
            except TlsError as error:
                raise IndexStateError(
                    f"{self.address.shown_nodes}: the TLS connection fails or is not trusted",
                    "set CBIR_ELASTICSEARCH_CA_FILE to the server's CA certificate, or "
                    "CBIR_ELASTICSEARCH_FINGERPRINT to its SHA-256 fingerprint",
                ) from error
            except TransportError as error:
                if not pauses.wait():
                    raise self._unreachable(error, isinstance(error, ConnectionError)) from error

    def version(self) -> tuple[int, int] | None:
        """The server's major and minor version; None if the credentials do not allow reading it."""
        path = "/_nodes/_local?filter_path=nodes.*.version"
        answer = self.request(
            "GET", path, patience=OPENING, expected=lambda status, _error: status == 403
        )
        if answer is None:
            return None
        (node,) = answer["nodes"].values()
        major, minor = (int(part) for part in node["version"].split(".")[:2])
        if (major, minor) < OLDEST:
            raise IndexStateError(
                f"{self.address.shown_nodes} is Elasticsearch {node['version']}",
                f"cbir needs {OLDEST[0]}.{OLDEST[1]} or newer",
            )
        return major, minor

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._client.close()

    def _not_elasticsearch(self) -> CbirError:
        return CbirError(
            f"{self.address.shown_nodes} is not Elasticsearch",
            "check the host, the port, and the path before the index name",
        )

    def _unreachable(self, error: Exception, away: bool) -> CbirError:
        what = "cannot be reached" if away else f"did not answer within {_TIMEOUT:.0f} s"
        return IndexStateError(
            f"{self.address.shown_nodes} {what}{_system_words(error) if away else ''}",
            "check that Elasticsearch is running, and the host and port in the URL",
        )


class Pauses:
    """Retry schedule: immediately, then with randomised exponential backoff until a deadline."""

    def __init__(self, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._next = 0.0

    def wait(self) -> bool:
        """Sleep until the next attempt; False once the deadline has passed."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, self._next * random.uniform(0.5, 1.0)))
        self._next = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._next))
        return True


def json_lines(*values: Mapping[str, Any]) -> bytes:
    """Values, including vectors, as lines of JSON."""
    import orjson

    return b"".join(
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        for value in values
    )


def _connected(address: Address) -> Elasticsearch:
    try:
        from elasticsearch import Elasticsearch, OrjsonSerializer
    except ImportError:
        raise MissingExtraError("an Elasticsearch index", "elasticsearch") from None

    options: dict[str, Any] = {**_credentials(), **(_trust() if address.encrypted else {})}
    json = OrjsonSerializer()
    return Elasticsearch(
        list(address.nodes),
        serializers={_JSON: json, "application/vnd.elasticsearch+json": json},
        request_timeout=_TIMEOUT,
        max_retries=0,
        retry_on_timeout=False,
        **options,
    )


def _credentials() -> dict[str, Any]:
    key, user, password = (_secret(name) for name in ("API_KEY", "USER", "PASSWORD"))
    if key:
        return {"api_key": key}
    if bool(user) != bool(password):
        there, absent = ("USER", "PASSWORD") if user else ("PASSWORD", "USER")
        raise CbirError(
            f"{_ENVIRONMENT}{there} is set, but not {_ENVIRONMENT}{absent}", "set both, or neither"
        )
    return {"basic_auth": (user, password)} if user else {}


def _trust() -> dict[str, Any]:
    authority, fingerprint = _secret("CA_FILE"), _secret("FINGERPRINT")
    if authority and not os.access(authority, os.R_OK):
        raise CbirError(f"{_ENVIRONMENT}CA_FILE: {authority} cannot be read", "check the path")
    given: dict[str, Any] = {"ca_certs": authority} if authority else {}
    if fingerprint:
        given["ssl_assert_fingerprint"] = fingerprint.replace(":", "").lower()
    return given


def _secret(name: str) -> str:
    return os.environ.get(_ENVIRONMENT + name, "").strip()


def _system_words(error: Exception) -> str:
    """The operating system's reason for a failed connection."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return f": {seen.strerror}"
        inner = [e for e in getattr(seen, "errors", ()) if isinstance(e, BaseException)]
        cause: Any = inner[0] if inner else seen.__cause__ or seen.__context__
        with suppress(AttributeError):
            cause = cause or seen.reason  # type: ignore[attr-defined]  # urllib3 keeps it there
        seen = cause if cause is not seen else None
    return ""
