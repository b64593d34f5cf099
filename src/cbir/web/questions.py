"""Reads a request: the query, the search options, and the name to show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flask import Request, g

from cbir.errors import CbirError, ImageError, QueryError
from cbir.images.decode import decode
from cbir.search.query import IndexedId, Query, SearchOptions
from cbir.types import RgbImage

MAX_K = 100


class RequestError(CbirError):
    """A bad request, with its HTTP status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its options; `data` holds an upload's bytes (else empty).

    `name`, for display, is the picture's; for words alone, it is their text.
    """

    query: Query
    options: SearchOptions
    data: bytes
    name: str


def wants_json(request: Request) -> bool:
    """Whether the client prefers JSON to the page."""
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def as_fields(options: SearchOptions) -> dict[str, Any]:
    """The fields of a request with these options; None for what is left out of an address."""
    default = SearchOptions()
    return {
        "k": options.k,
        "where": options.where,
        "verify": 1 if options.verify else None,
        "any_orientation": 1 if options.any_orientation else None,
        "text_weight": None if options.text_weight == default.text_weight else options.text_weight,
    }


def read_question(request: Request, has_text: bool) -> Question:
    """Reads the fields `image` or `id`, `text`, `text_weight`, `k`, `where` and the switches.

    `has_text`: whether the index can be searched by words. Raises `RequestError`, or `QueryError`
    for a text that is too long; `g.options` and `g.text` then hold what could be read, to fill in
    the form again.
    """
    # The form sends an empty field where nothing was written.
    g.text = text = request.values.get("text", "").strip()
    where = tuple(w.strip() for w in request.values.getlist("where") if w.strip())
    g.options = options = SearchOptions(where=where)
    g.options = options = replace(options, k=_read_k(request.values.get("k", str(options.k))))
    g.options = options = replace(
        options,
        verify=_read_switch(request, "verify"),
        any_orientation=_read_switch(request, "any_orientation"),
    )
    g.options = options = _with_weight(options, request)
    words = text or None
    upload = request.files.get("image")
    record_id = request.values.get("id", "")
    if upload is not None and upload.filename:
        if record_id:
            raise RequestError(400, "Both 'image' and 'id' were given", "Send one of the two.")
        data, name = upload.stream.read(), _file_name(upload.filename)
        return Question(Query(_decode(data, name), text=words), options, data, name)
    if record_id:
        return Question(Query(IndexedId(record_id), text=words), options, b"", record_id)
    if words:
        return Question(Query(text=words), options, b"", words)
    if has_text:
        raise RequestError(
            400,
            "No picture was chosen, and no words were given",
            "Choose a picture or describe one; programs send a file 'image', or 'text'.",
        )
    raise RequestError(
        400,
        "No picture was chosen",
        "Choose a picture; programs send it as the multipart file field 'image'.",
    )


def _read_k(text: str) -> int:
    try:
        k = int(text)
    except ValueError:
        k = 0
    if not 1 <= k <= MAX_K:
        raise RequestError(
            400,
            f"'{text[:40]}' is not a valid number of results",
            f"Use a whole number from 1 to {MAX_K}.",
        )
    return k


def _with_weight(options: SearchOptions, request: Request) -> SearchOptions:
    text = request.values.get("text_weight", str(options.text_weight))
    try:
        return replace(options, text_weight=float(text))
    except (ValueError, QueryError) as error:
        raise RequestError(
            400, f"'{text[:40]}' is not valid for 'text_weight'", "Use a number from 0 to 1."
        ) from error


def _read_switch(request: Request, name: str) -> bool:
    text = request.values.get(name, "0")
    if text not in ("0", "1"):
        raise RequestError(400, f"'{text[:40]}' is not valid for '{name}'", "Use 1, or omit it.")
    return text == "1"


def _decode(data: bytes, name: str) -> RgbImage:
    try:
        return decode(data)
    except ImageError as error:
        hint = error.hint or "Choose a JPEG, PNG, WebP, HEIC or another common image file."
        raise RequestError(400, f"{name}: {error.message}", hint) from error


def _file_name(sent: str) -> str:
    """The last part of the name that the browser sent, for display only."""
    return sent.rsplit("/", 1)[-1] or sent
