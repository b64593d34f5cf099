"""The Flask application around one `Searcher`."""

from __future__ import annotations

import io
from typing import IO

from flask import Flask, Request, Response

from cbir.search.searcher import Searcher
from cbir.web.failures import register_failures
from cbir.web.pages import register_pages
from cbir.web.showcase import Showcase
from cbir.web.views import views

MAX_UPLOAD = 20 * 1024 * 1024
"""Largest request (bytes); a larger one gets status 413."""

_CONTENT_SECURITY = "; ".join(
    [
        "default-src 'none'",
        "img-src 'self' data: blob:",  # data: the query's picture, blob: its preview before sending
        "style-src 'self'",
        "script-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class MemoryRequest(Request):
    """A request that keeps uploads in memory, so that no visitor's picture touches the disk."""

    def _get_file_stream(
        self,
        total_content_length: int | None,  # noqa: ARG002 - werkzeug's signature
        content_type: str | None,  # noqa: ARG002
        filename: str | None = None,  # noqa: ARG002
        content_length: int | None = None,  # noqa: ARG002
    ) -> IO[bytes]:
        return io.BytesIO()


def create_app(searcher: Searcher) -> Flask:
    """The page and the HTTP API over `searcher`, as a WSGI application.

    Only reads the index. Sets no cookies, contacts no other host, writes nothing to disk.
    """
    app = Flask("cbir.web")
    app.request_class = MemoryRequest
    app.config["MAX_CONTENT_LENGTH"] = MAX_UPLOAD
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # URLs hold ids unchanged; merged slashes would name another id.
    app.url_map.merge_slashes = False
    app.extensions["cbir.searcher"] = searcher
    app.extensions["cbir.showcase"] = Showcase(searcher.index)
    app.register_blueprint(views)
    app.after_request(_secure)
    register_failures(app)
    register_pages(app)
    return app


def _secure(response: Response) -> Response:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
