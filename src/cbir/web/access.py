"""Who may use the server: the names it answers to, the token, and no pages of other sites."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from cbir.errors import CbirError
from cbir.web.positions import is_loopback
from cbir.web.questions import RequestError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
"""Hosts that stand for all addresses of this machine."""
SHORTEST_TOKEN = 16

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_OPEN = frozenset({"static", "views.healthz"})
"""What is answered without the token: the index shows only its number of images and descriptor."""


@dataclass(frozen=True, slots=True)
class Access:
    """`hosts`: the only names and addresses (lower case) that the server answers to, None for any;
    `any_address` adds every IP address. `token`: who does not know it is refused; "" for no token.
    """

    hosts: frozenset[str] | None = None
    any_address: bool = False
    token: str = ""

    def link(self, address: str) -> str:
        """`address` as a link that works once it is opened in a browser."""
        return f"{address}?token={self.token}" if self.token else address

    @property
    def exposure(self) -> str:
        """What others can do, in a sentence."""
        who = "whoever has the link" if self.token else "everybody who reaches this server"
        return (
            f"{who} can search the index and see its pictures, labels and metadata; "
            "nothing is encrypted"
        )

    def is_known(self, host: str) -> bool:
        """Whether the server answers to this name or address."""
        if self.hosts is None or host in self.hosts:
            return True
        return self.any_address and _is_address(host)


def access_to(
    host: str, names: Collection[str] = (), token: str | None = None, without_token: bool = False
) -> Access:
    """The access to a server that listens on `host` and also answers to `names`.

    If others than this machine reach it, it has a token: `token`, or a new one, unless
    `without_token`. Raises `CbirError` for a token that can be guessed or is no header's value, and
    for a name that is none.
    """
    for name in names:
        found = _HOST.fullmatch(name)
        if found is None or found[2]:
            raise CbirError(
                f"'{name}' is not a host name", "give the name alone, such as photos.example.org"
            )
    if token is not None and not re.fullmatch(rf"[!-~]{{{SHORTEST_TOKEN},}}", token):
        raise CbirError(
            f"the token is shorter than {SHORTEST_TOKEN} characters, or has others than ASCII's",
            "make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    hosts = {_as_sent(name) for name in (host, *names)} | {"localhost", "127.0.0.1", "::1"}
    if token is None and not is_loopback(host) and not without_token:
        token = secrets.token_urlsafe(24)
    return Access(frozenset(hosts), host in EVERYWHERE, token or "")


def guard(app: Flask, access: Access) -> None:
    """Refuse what `access` does not allow, before anything else is done."""
    app.wsgi_app = _known_hosts_only(app.wsgi_app, access)  # type: ignore[assignment,method-assign]
    app.before_request(lambda: _refuse_other_sites(access))
    app.before_request(lambda: _ask_for_token(access))
    app.jinja_env.globals["has_token"] = bool(access.token)


def _known_hosts_only(application: WSGIApplication, access: Access) -> WSGIApplication:
    """Before Flask, whose routing fails for some values of `Host`."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        refused = _wrong_host(environ.get("HTTP_HOST", ""), access)
        return (refused or application)(environ, start_response)

    return answer


def _wrong_host(host: str, access: Access) -> Response | None:
    found = _HOST.fullmatch(host)
    if found is None:
        return _plain("The Host header of the request is not the name of a server.", 400)
    name = _as_sent(found[1])
    if access.is_known(name):
        return None
    said = f"This server does not answer to the name '{name}'; cbir serve --allow-host {name}"
    return _plain(f"{said} allows it.", 421)


def _plain(sentence: str, status: int) -> Response:
    response = Response(f"{sentence}\n", status, mimetype="text/plain")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def _refuse_other_sites(access: Access) -> None:
    """Refuse what the page of another site sends or embeds; its links may lead here."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    follows_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    follows_link &= request.headers.get("Sec-Fetch-Dest", "document") == "document"
    origin = request.headers.get("Origin")
    foreign = origin is not None and not _is_own(origin, access)
    if (site not in ("none", "same-origin") and not follows_link) or (
        foreign and request.method != "GET"
    ):
        raise RequestError(
            403,
            "A page of another site sent this request",
            "Open this server's own page. Behind a proxy, name the page's host with --allow-host.",
        )


def _is_own(origin: str, access: Access) -> bool:
    try:
        sent = urlsplit(origin)
        name, place = sent.hostname, sent.netloc.lower()
    except ValueError:
        return False
    named = (access.hosts or frozenset()) - {"localhost"}
    proxied = name in named and not is_loopback(name)
    return proxied or place == request.headers.get("Host", "").lower()


def _ask_for_token(access: Access) -> AnyResponse | None:
    if not access.token or request.endpoint in _OPEN:
        return None
    cookie = "cbir-" + sha256(access.token.encode()).hexdigest()[:8]  # ports share cookies
    given = request.args.get("token")
    if given is not None and _same(given, access.token) and request.method == "GET":
        rest = [(name, value) for name, value in request.args.items(multi=True) if name != "token"]
        path = "/" + quote(request.path.lstrip("/"))  # two slashes would name another host
        response = redirect(f"{path}?{urlencode(rest)}" if rest else path, 303)
        response.headers["Cache-Control"] = "no-store"
        # Not "Strict": a browser would not send it after a link in a mail or on another page.
        response.set_cookie(cookie, access.token, httponly=True, samesite="Lax")
        return response
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(bearer.strip(), access.token):
        return None
    if _same(request.cookies.get(cookie, ""), access.token):
        return None
    raise RequestError(
        401,
        "This server asks for its token",
        "Open the link that cbir serve printed; programs send 'Authorization: Bearer TOKEN'.",
    )


def _same(given: str, token: str) -> bool:
    """In a time that does not depend on how many characters are right."""
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _as_sent(host: str) -> str:
    """A name in lower case, and an address in its shortest form, as browsers send them."""
    name = host.strip("[]").lower()
    return str(ip_address(name)) if _is_address(name) else name


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
