"""The Flask application around one `Searcher`."""

from __future__ import annotations

import io
from typing import IO

from flask import Flask, Request, Response, g, request

from cbir.search.searcher import Searcher
from cbir.web.access import Access, guard
from cbir.web.admission import register_admission
from cbir.web.failures import register_failures
from cbir.web.opened import use_searcher
from cbir.web.pages import register_pages
from cbir.web.positions import ON_LOOPBACK
from cbir.web.questions import MAX_UPLOAD, RequestError
from cbir.web.uploads import Uploads
from cbir.web.views import views

MAX_BODY = 64 * 1024 * 1024
"""Largest request (bytes) that is read. It is more than a picture may have, so that a picture that
is too large can be told from other causes."""
MAX_PLAIN_BODY = 1024 * 1024
"""The same for a request that cannot hold a picture."""
MAX_PARTS = 1000

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
    # What an index holds is private; views that may be kept for longer say so.
    "Cache-Control": "private, no-cache",
}


class _Picture(io.BytesIO):
    """An upload in memory; raises `RequestError` as soon as it is too large."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.tell() + len(data) > MAX_UPLOAD:
            raise RequestError(
                413,
                f"The picture is larger than {MAX_UPLOAD // 2**20} MB",
                "Choose a smaller file, or save it at a lower resolution.",
            )
        return super().write(data)


class MemoryRequest(Request):
    """A request that keeps uploads in memory, so that no visitor's picture touches the disk."""

    def _get_file_stream(
        self,
        total_content_length: int | None,  # noqa: ARG002 - werkzeug's signature
        content_type: str | None,  # noqa: ARG002
        filename: str | None = None,  # noqa: ARG002
        content_length: int | None = None,  # noqa: ARG002
    ) -> IO[bytes]:
        return _Picture()


def create_app(
    searcher: Searcher, *, on_loopback: bool = False, access: Access | None = None
) -> Flask:
    """The page and the HTTP API over `searcher`, as a WSGI application.

    `on_loopback`: the server listens on a loopback address only. Then clients on this machine also
    get the positions of pictures (see `web.positions`), and what excludes a picture. `access`: who
    may use it; by default everybody, under any name.

    Only reads the index. Sets no cookie but that of a token, contacts no other host, writes nothing
    to disk; uploads stay in memory (see `Uploads`).
    """
    app = Flask("cbir.web")
    app.request_class = MemoryRequest
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    # `read_question` limits fields and names the one that is too long.
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    app.config["MAX_FORM_PARTS"] = MAX_PARTS
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # URLs hold ids unchanged; merged slashes would name another id.
    app.url_map.merge_slashes = False
    app.config[ON_LOOPBACK] = on_loopback
    use_searcher(app, searcher)
    app.extensions["cbir.uploads"] = Uploads()
    guard(app, access or Access())
    app.before_request(_limit)
    register_admission(app)
    app.register_blueprint(views)
    app.after_request(_secure)
    register_failures(app)
    register_pages(app)
    return app


def _limit() -> None:
    """Forms without a file are short, and slow to take apart if they are not."""
    if request.mimetype != "multipart/form-data":
        request.max_content_length = MAX_PLAIN_BODY


def _secure(response: Response) -> Response:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if g.get("varies"):
        response.vary.add("Accept")
    return response
