"""Errors as responses: JSON for programs, a page for people."""

from __future__ import annotations

from flask import Flask, Response, current_app, jsonify, make_response, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from cbir.errors import CbirError, ImageError, IndexReplacedError, QueryError, RecordGoneError
from cbir.images.limits import NoRoomError
from cbir.machine import is_out_of_memory
from cbir.web.opened import reopen
from cbir.web.pages import failure_page, refused_page
from cbir.web.questions import MAX_UPLOAD, RequestError, wants_json

Answer = AnyResponse

_HTTP = {
    404: ("There is nothing at this address", "Go back to the start page."),
    405: ("This address does not accept that kind of request", "Go back to the start page."),
    500: (
        "Something went wrong on the server",
        "Try again in a moment. The server's log has details.",
    ),
}
_NO_MEMORY = ("The server needs more memory for this", "Try again in a moment.")

_STRANGERS = frozenset({401, 403})
"""Answers to those who may not see anything of the index."""
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "10"}}


def register_failures(app: Flask) -> None:
    """Turn every error of the application into a response."""
    app.register_error_handler(CbirError, _from_cbir_error)
    app.register_error_handler(HTTPException, _from_http_error)


def what_failed(error: Exception) -> str:
    """What to say on a page that is on its way already, and can have no other status any more."""
    if isinstance(error, CbirError):
        _, message, hint = _reason(error)
    else:
        current_app.logger.error("a page could not be completed", exc_info=error)
        message, hint = _NO_MEMORY if is_out_of_memory(error) else _HTTP[500]
    return f"{message}. {hint}"


def _from_cbir_error(error: CbirError) -> Answer:
    field = error.field if isinstance(error, RequestError) else ""
    return _answer(*_reason(error), field)


def _reason(error: CbirError) -> tuple[int, str, str]:
    """The HTTP status, the message and the hint for an error.

    Logs what visitors are not told, and opens an index again that was replaced.
    """
    if isinstance(error, RequestError):
        return error.status, error.message, error.hint
    if isinstance(error, RecordGoneError):
        message = f"There is no picture '{error.record_id}' in this index"
        return 404, message, "It may have been removed; search again for current ids."
    if isinstance(error, ImageError | QueryError):
        return 400, _sentence(error.message), error.hint
    if isinstance(error, IndexReplacedError):
        try:
            reopen()
        except CbirError as still:
            error = still
        else:
            current_app.logger.warning("%s; it was opened again", error.message)
            return 503, "The index was just replaced", "Ask again: the new one is open."
    if isinstance(error, NoRoomError):
        return 503, "The server is busy with other large pictures", _sentence(error.hint)
    # Anything else is about this installation; its message may hold paths of the server.
    current_app.logger.error("%s", error)
    return 503, "The index cannot be searched now", "The server's log has the reason."


def _from_http_error(error: HTTPException) -> Answer:
    if error.response is not None or error.code is None or error.code < 400:
        return error.get_response()
    if is_out_of_memory(getattr(error, "original_exception", None)):
        return _answer(503, *_NO_MEMORY)
    message, hint = _HTTP.get(error.code, (error.name, error.description or ""))
    if error.code == 413:
        message, hint = _too_large()
    return _answer(error.code, message, hint)


def _sentence(message: str) -> str:
    """`message` with a capital letter, unless it begins with a name such as `classic@da55cc59`."""
    first = message.split(maxsplit=1)[0]
    return first.capitalize() + message[len(first) :] if first.isalpha() else message


def _too_large() -> tuple[str, str]:
    """Why the request itself was refused; pictures and fields have messages of their own."""
    length, limit = request.content_length, request.max_content_length
    if limit is not None and (length is None or length > limit):
        return (
            f"The request is larger than {limit // 2**20} MB",
            f"Send one picture of at most {MAX_UPLOAD // 2**20} MB, as a multipart file field.",
        )
    return (
        f"The request has more than {request.max_form_parts:,} parts",
        "Send one picture, and each field or filter once.",
    )


def _answer(status: int, message: str, hint: str, field: str = "") -> Answer:
    response = make_response(_body(status, message, hint, field), status)
    response.headers.update(_HEADERS.get(status, {}))
    return response


def _body(status: int, message: str, hint: str, field: str) -> str | Response:
    if wants_json(request):
        return jsonify({"error": {"message": message, "hint": hint}})
    searches = request.endpoint in {"views.search", "views.search_indexed"}
    if searches and status < 500 and status not in _STRANGERS:
        return refused_page(message, hint, field)
    return failure_page(status, message, hint)
