"""Where a server answers, and one plain request to it (the project's own client is not used)."""

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
    """Where a server answers, and what it wants to see; `ca` is a certificate file."""

    urls: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None

    @property
    def url(self) -> str:
        """The first node's."""
        return self.urls[0]

    def index_url(self, name: str) -> str:
        """The index `name` there, as `cbir` names it; credentials are not in it."""
        scheme = "elasticsearch+https" if self.url.startswith("https") else "elasticsearch"
        return f"{scheme}://{','.join(urlsplit(url).netloc for url in self.urls)}/{name}"

    def environment(self) -> dict[str, str]:
        """The variables by which `cbir` is let in."""
        known = {"USER": self.user, "PASSWORD": self.password, "CA_FILE": self.ca}
        return {f"CBIR_ELASTICSEARCH_{name}": value for name, value in known.items() if value}

    def request(self, method: str, path: str, body: Any = None, node: int = 0) -> Any:
        """The JSON answer of one node to one request; raises `OSError` if it is not 2xx."""
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
