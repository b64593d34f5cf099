"""Reads a request: the query, the search options, and the name to show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flask import Request, g

from cbir.errors import CbirError, ImageError, QueryError
from cbir.images.decode import decode_file
from cbir.images.limits import Limits, keep
from cbir.search.query import IndexedId, Query, SearchOptions
from cbir.types import Box, RgbImage
from cbir.web.uploads import MINUTES, Upload, Uploads

MAX_K = 100
MAX_UPLOAD = 20 * 1024 * 1024
"""Largest picture (bytes); a larger one gets status 413."""
MAX_FIELD = 500_000
"""Longest field that is not a picture (characters); a longer one gets status 413."""
LIMITS = Limits(seconds=10, wait=10)


class RequestError(CbirError):
    """A bad request, with its HTTP status.

    `field` names the field of the form that is wrong, "" if it is none of them; filters are
    numbered from 1: "where-1".
    """

    def __init__(self, status: int, message: str, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint)
        self.status = status
        self.field = field


@dataclass(frozen=True, slots=True)
class Asked:
    """What to search with: an uploaded picture, an indexed image, or (None) words alone.

    `name` is for display. `upload` holds the file of an upload, and `token` gets it again where
    it is kept (else "").
    """

    of: RgbImage | IndexedId | None
    name: str
    upload: Upload | None = None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its options, and what it was made from."""

    query: Query
    options: SearchOptions
    asked: Asked


def wants_json(request: Request) -> bool:
    """Whether the client prefers JSON to the page, or asks for what has no page.

    `g.varies` then tells that the response depends on what it accepts.
    """
    if request.endpoint == "views.explanation":
        return True
    g.varies = True
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


def read_question(request: Request, uploads: Uploads, has_text: bool) -> Question:
    """Reads what to search with (`image`, `upload`, `id`, `text`), and the options.

    The options are `region`, `text_weight`, `k`, `where` and the switches. `has_text`: whether the
    index can be searched by words. Raises `RequestError`, or `QueryError` for a text that is too
    long. `g.asked`, `g.options`, `g.text` and `g.region` then hold what could be read, to show the
    query and to fill in the form again.
    """
    _check_lengths(request)
    # The form sends an empty field where nothing was written.
    g.text = request.values.get("text", "").strip()
    g.region = request.values.get("region", "").strip()
    wrong = None
    try:
        region = _read_options(request)
    except RequestError as error:
        wrong = error  # raised once the picture is read, so that the page keeps it
    g.asked = asked = _read_asked(request, uploads, has_text)
    if wrong is not None:
        raise wrong
    return Question(Query(asked.of, region, g.text or None), g.options, asked)


def _check_lengths(request: Request) -> None:
    for name, text in request.values.items(multi=True):
        if len(text) > MAX_FIELD:
            raise RequestError(
                413,
                f"The field '{name[:40]}' has {len(text):,} characters",
                f"At most {MAX_FIELD:,} are accepted; a picture is sent as a file.",
            )


def _read_options(request: Request) -> Box | None:
    """Set `g.options`, as far as they can be read; returns the region."""
    where = tuple(w.strip() for w in request.values.getlist("where") if w.strip())
    g.options = options = SearchOptions(where=where)
    g.options = options = replace(options, k=_read_k(request.values.get("k", str(options.k))))
    g.options = options = replace(
        options,
        verify=_read_switch(request, "verify"),
        any_orientation=_read_switch(request, "any_orientation"),
    )
    g.options = _with_weight(options, request)
    return _read_region(g.region)


def _read_asked(request: Request, uploads: Uploads, has_text: bool) -> Asked:
    image = request.files.get("image")
    record_id, token = request.values.get("id", ""), request.values.get("upload", "")
    given = [name for name, value in (("upload", token), ("id", record_id)) if value]
    if image is not None and image.filename:
        given.insert(0, "image")
    if len(given) > 1:
        message = f"Both '{given[0]}' and '{given[1]}' were given"
        raise RequestError(400, message, "Send one of the two.")
    if image is not None and image.filename:
        upload = Upload(_file_name(image.filename), image.stream.read())
        pixels = _decode(upload)
        # Programs rarely search twice with a picture, and would push out those of visitors.
        keep = not wants_json(request) or _read_switch(request, "keep")
        return Asked(pixels, upload.name, upload, uploads.keep(upload) if keep else "")
    if token:
        kept = uploads.get(token)
        if kept is None:
            raise RequestError(
                410,
                "The uploaded picture is no longer here",
                f"Choose it again. Pictures are kept for {MINUTES} minutes after their last use, "
                "and until the server restarts.",
            )
        return Asked(_decode(kept), kept.name, kept, token)
    if record_id:
        return Asked(IndexedId(record_id), record_id)
    if g.text:
        return Asked(None, g.text)
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
            "k",
        )
    return k


def _read_region(text: str) -> Box | None:
    """The part of the picture to search with, None for all of it."""
    if not text:
        return None
    try:
        left, top, right, bottom = (float(edge) for edge in text.split(","))
    except ValueError:
        left = top = right = bottom = 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise RequestError(
            400,
            f"'{text[:40]}' is not a part of a picture",
            "Use left,top,right,bottom as fractions from 0 to 1, such as 0,0,0.5,0.5.",
            "region",
        )
    return (left, top, right, bottom)


def _with_weight(options: SearchOptions, request: Request) -> SearchOptions:
    text = request.values.get("text_weight", str(options.text_weight))
    try:
        return replace(options, text_weight=float(text))
    except (ValueError, QueryError) as error:
        raise RequestError(
            400,
            f"'{text[:40]}' is not valid for 'text_weight'",
            "Use a number from 0 to 1.",
            "text",
        ) from error


def _read_switch(request: Request, name: str) -> bool:
    text = request.values.get(name, "0")
    if text not in ("0", "1"):
        raise RequestError(400, f"'{text[:40]}' is not valid for '{name}'", "Use 1, or omit it.")
    return text == "1"


def _decode(upload: Upload) -> RgbImage:
    try:
        pixels = decode_file(upload.data, LIMITS).pixels
    except ImageError as error:
        hint = error.hint or "Choose a JPEG, PNG, WebP, HEIC or another common image file."
        raise RequestError(400, f"{upload.name}: {error.message}", hint) from error
    keep(pixels)
    return pixels


def _file_name(sent: str) -> str:
    """The last part of the name that the browser sent, for display only."""
    return sent.rsplit("/", 1)[-1] or sent
