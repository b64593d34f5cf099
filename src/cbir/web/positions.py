"""Where pictures were taken is for this machine only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from flask import Request, current_app

from cbir.errors import QueryError
from cbir.images.exif import POSITION
from cbir.index.filters import field_of

ON_LOOPBACK = "CBIR_ON_LOOPBACK"
_PROXIES = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def sees_positions(request: Request) -> bool:
    """Whether the server and the client are on loopback addresses.

    A proxy on this machine passes other clients on, and a page of another site may have its name
    resolved to this machine: neither counts.
    """
    local = current_app.config[ON_LOOPBACK] and is_loopback(request.remote_addr or "")
    proxied = any(name in request.headers for name in _PROXIES)
    return bool(local and not proxied and is_loopback(urlsplit(f"//{request.host}").hostname or ""))


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def without_positions(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` without latitude and longitude."""
    return {name: value for name, value in metadata.items() if name not in POSITION}


def refuse_positions(where: Sequence[str]) -> None:
    """Raise `QueryError` if a filter compares a position, which would give it away bit by bit."""
    for text in where:
        if name := field_of(text, POSITION):
            raise QueryError(
                f"filter '{text}': {name} can be searched only on the machine that serves it",
                "use another field",
            )
