"""Reads a request: the query, the search options, the name of the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flask import Request, g

from cbir.errors import CbirError, ImageError
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
    """A query with its options; `name` is for display, `data` an upload's bytes (else empty)."""

    query: Query
    options: SearchOptions
    data: bytes
    name: str


def wants_json(request: Request) -> bool:
    """Whether the client prefers JSON to the page."""
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def read_question(request: Request) -> Question:
    """Reads the fields `image` or `id`, `k`, `where`, `verify`, `any_orientation`.

    Raises `RequestError`; `g.options` then holds what could be read, to fill in the form again.
    """
    where = tuple(w.strip() for w in request.values.getlist("where") if w.strip())
    g.options = options = SearchOptions(where=where)
    g.options = options = replace(options, k=_read_k(request.values.get("k", str(options.k))))
    g.options = options = replace(
        options,
        verify=_read_switch(request, "verify"),
        any_orientation=_read_switch(request, "any_orientation"),
    )
    upload = request.files.get("image")
    record_id = request.values.get("id", "")
    if upload is not None and upload.filename:
        if record_id:
            raise RequestError(400, "Both 'image' and 'id' were given", "Send one of the two.")
        data, name = upload.stream.read(), _file_name(upload.filename)
        return Question(Query(_decode(data, name)), options, data, name)
    if record_id:
        return Question(Query(IndexedId(record_id)), options, b"", record_id)
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
