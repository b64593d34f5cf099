"""The address of a server, and plain requests that do not use the project's own client."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """The URLs of a server's nodes, and its credentials; `ca` is a certificate file."""

    urls: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None

    @property
    def url(self) -> str:
        """The URL of the first node."""
        return self.urls[0]

    def index_url(self, name: str) -> str:
        """The URL of the index `name` for `cbir`, without credentials."""
        scheme = "elasticsearch+https" if self.url.startswith("https") else "elasticsearch"
        return f"{scheme}://{','.join(urlsplit(url).netloc for url in self.urls)}/{name}"

    def environment(self) -> dict[str, str]:
        """The environment variables that give `cbir` access."""
        known = {"USER": self.user, "PASSWORD": self.password, "CA_FILE": self.ca}
        return {f"CBIR_ELASTICSEARCH_{name}": value for name, value in known.items() if value}

    def request(self, method: str, path: str, body: Any = None, node: int = 0) -> Any:
        """The JSON response of one node to a request; raises `OSError` unless the status is 2xx."""
        where = urlsplit(self.urls[node])
        headers = {"Content-Type": "application/json"}
        if self.user:
            pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        assert where.hostname is not None
        connection: http.client.HTTPConnection
        if where.scheme == "https":
            trust = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection(
                where.hostname, where.port, timeout=60, context=trust
            )
        else:
            connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text or b"null")
