"""Talks to Elasticsearch: credentials from the environment, patience, one-line errors."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cbir.errors import CbirError, IndexStateError, MissingExtraError
from cbir.index.elasticsearch.address import Address
from cbir.index.elasticsearch.server_errors import in_words, is_passing

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

OLDEST = (8, 19)

READING = 30.0
"""Seconds that a search goes on asking when nodes are away or busy."""
WRITING = 300.0
"""The same for a bulk load, which should outlast the restart of a node."""
OPENING = 3.0
"""The same for the first contact: an address that is wrong is told of soon."""

_TIMEOUT = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_ENVIRONMENT = "CBIR_ELASTICSEARCH_"
_JSON, _LINES = "application/json", "application/x-ndjson"


class ServerError(Exception):
    """An answer that says no: its status and the server's own error."""

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.error = error


class Client:
    """Requests to the nodes of one address; thread-safe."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = _connected(address)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        patience: float = READING,
    ) -> Any:
        """The server's answer, read from JSON; `body` as bytes is a sequence of JSON lines.

        What passes (busy, node lost, no connection) is tried again for `patience` seconds, at
        another node where there is one. Raises `CbirError` in the end, and at once for the rest.
        """
        try:
            return self.attempt(method, path, body, patience=patience)
        except ServerError as refused:
            raise in_words(self._address.url, refused.status, refused.error) from None

    def attempt(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        patience: float = READING,
    ) -> Any:
        """As `request`, but an answer that says no is a `ServerError`: its caller expects it."""
        from elastic_transport import ConnectionError, TlsError, TransportError
        from elasticsearch import ApiError, UnsupportedProductError

        pauses = Pauses(patience)
        headers = {"accept": _JSON}
        if body is not None:
            headers["content-type"] = _LINES if isinstance(body, bytes) else _JSON
        while True:
            try:
                answer = self._client.perform_request(method, path, headers=headers, body=body)
                return answer.body
            except UnsupportedProductError:
                raise CbirError(
                    f"{self._address.shown_nodes} is not Elasticsearch", "check host and port"
                ) from None
            except ApiError as error:
                problem = error.body.get("error") if isinstance(error.body, dict) else error.body
                if not (is_passing(error.status_code, problem) and pauses.wait()):
                    raise ServerError(error.status_code, problem) from None
            except TlsError as error:
                raise self._untrusted(error) from error
            except TransportError as error:
                away = isinstance(error, ConnectionError)
                if not pauses.wait():
                    raise self._unreachable(error, away) from error

    def version(self) -> tuple[int, int] | None:
        """Major and minor version of the server; None where the credentials may not ask for it."""
        path = "/_nodes/_local?filter_path=nodes.*.version"
        try:
            answer = self.attempt("GET", path, patience=OPENING)
        except ServerError as refused:
            if refused.status == 403:
                return None
            raise in_words(self._address.url, refused.status, refused.error) from None
        (node,) = answer["nodes"].values()
        major, minor = (int(part) for part in node["version"].split(".")[:2])
        if (major, minor) < OLDEST:
            raise IndexStateError(
                f"{self._address.shown_nodes} is Elasticsearch {node['version']}",
                f"cbir needs {OLDEST[0]}.{OLDEST[1]} or newer",
            )
        return major, minor

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _unreachable(self, error: Exception, away: bool) -> CbirError:
        what = "cannot be reached" if away else f"did not answer within {_TIMEOUT:.0f} s"
        return IndexStateError(
            f"{self._address.shown_nodes} {what}{_system_words(error) if away else ''}",
            "check that Elasticsearch runs there, and host and port of the URL",
        )

    def _untrusted(self, error: Exception) -> CbirError:
        del error  # its words are OpenSSL's
        return IndexStateError(
            f"{self._address.shown_nodes}: the encrypted connection fails, or is not to be trusted",
            "set CBIR_ELASTICSEARCH_CA_FILE to the server's CA certificate, or "
            "CBIR_ELASTICSEARCH_FINGERPRINT to its SHA-256 fingerprint",
        )


class Pauses:
    """When to try again: at once, then ever later, with some chance in it, until a deadline."""

    def __init__(self, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._next = 0.0

    def wait(self) -> bool:
        """Sleep until the next attempt; False where it is time to give up."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, self._next * random.uniform(0.5, 1.0)))
        self._next = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._next))
        return True


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
        raise CbirError(f"{_ENVIRONMENT}CA_FILE: {authority} cannot be read", "check the name")
    given: dict[str, Any] = {"ca_certs": authority} if authority else {}
    if fingerprint:
        given["ssl_assert_fingerprint"] = fingerprint.replace(":", "").lower()
    return given


def _secret(name: str) -> str:
    return os.environ.get(_ENVIRONMENT + name, "").strip()


def _system_words(error: Exception) -> str:
    """Why there is no connection, as the operating system says it."""
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
