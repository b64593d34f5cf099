"""The routes of the application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from flask import (
    Blueprint,
    Response,
    current_app,
    jsonify,
    redirect,
    request,
    stream_with_context,
    url_for,
)
from werkzeug.wrappers import Response as AnyResponse

from cbir.errors import ImageError, QueryError
from cbir.images.exif import POSITION
from cbir.images.formats import sniff
from cbir.images.position_removal import without_position
from cbir.index import filters
from cbir.search.near_misses import near_misses
from cbir.search.originals import OriginalError, OriginalState
from cbir.search.why import why
from cbir.types import Hit, ImageRecord, Verification
from cbir.web.admission import GoOn, verified
from cbir.web.failures import what_failed
from cbir.web.image_responses import file_name, picture_response, png, version_of
from cbir.web.opened import searcher
from cbir.web.pages import (
    Found,
    gone_page,
    home_page,
    known_classes,
    results_in_turn,
    results_page,
)
from cbir.web.positions import refuse_positions, sees_positions, without_positions
from cbir.web.questions import LIMITS, Question, RequestError, as_fields, read_question, wants_json
from cbir.web.uploads import Uploads

T = TypeVar("T")

views = Blueprint("views", __name__)

_PUBLIC_INFO = (
    *("count", "vectors", "dim", "engine", "descriptor"),
    *("labels", "fields", "missing", "failed"),
)
"""The fields of `Index.info()` that `GET /info` returns: none reveals a path of the server."""


_ABSENCE: Mapping[OriginalState, str] = {
    "gone": "is gone",
    "changed": "has changed since it was indexed",
    "unconfirmed": "is not opened: its source is not confirmed on this server",
}


@views.get("/")
def home() -> str:
    """The start page; `draw` selects the sample pictures."""
    return home_page(draw=request.args.get("draw", 0, type=int))


@views.get("/search")
def search_indexed() -> AnyResponse | str:
    """Search with an indexed picture (`id`) or by words (`text`), at a URL that can be shared."""
    asked = request.args.get("id") or request.args.get("text", "").strip()
    if not asked and not wants_json(request):
        return redirect(url_for("views.home"))
    return search()


@views.post("/search")
def search() -> AnyResponse | str:
    """Search with a picture (`image`, a kept `upload`, or an indexed `id`), by words, or both."""
    started = time.perf_counter()
    question = _question()
    asked, text = question.asked, question.query.text
    if asked.of is None and request.method == "POST" and not wants_json(request):
        fields = as_fields(question.options)
        return redirect(url_for("views.search_indexed", text=text, **fields), 303)
    json = wants_json(request)
    if question.options.verify and not json:
        return _shown_in_turn(question, started)
    hits, verification = _hits(question)
    took_ms = _ms_since(started)
    if json:
        found: dict[str, Any] = {"query": asked.name}
        found |= {} if text is None else {"text": text}
        found |= {"hits": [_hit_json(hit) for hit in hits], "took_ms": took_ms}
        found |= {"upload": asked.token} if asked.token else {}
        found |= {"verification": verification.to_json()} if verification else {}
        if not hits and question.options.where:
            missed = near_misses(searcher().index, question.options.where)
            found["notes"] = [miss.sentence() for miss in missed]
        return jsonify(found)
    return results_page(asked, text, Found(hits, took_ms))


@views.get("/why")
@views.post("/why")
def explanation() -> Response:
    """Why the picture `target` is, or is not, among the hits of this search: always JSON."""
    question = _question()
    target = request.values.get("target", "")
    if not target:
        raise RequestError(400, "No picture was named", "Send its id in the field 'target'.")
    opened, query, options = searcher(), question.query, question.options
    look = sees_positions(request)  # visitors do not learn what else is on the disk
    found = _answered(
        question, lambda go_on: why(opened, query, target, options=options, go_on=go_on, look=look)
    ).to_json()
    if found["picture"]:
        found["picture"] |= {"path": None, "reason": None}  # they name paths of the server
    return jsonify({"query": question.asked.name, **found, "reason": None})


@views.get("/thumb/<path:record_id>")
def thumb(record_id: str) -> Response:
    """The thumbnail of an indexed image, at most 256 px."""
    record = _record(record_id)
    data = searcher().index.thumbnail(record_id)
    if data is None:
        raise RequestError(404, f"{record_id} has no thumbnail", "Index it again.")
    return _picture(record, data)


@views.get("/image/<path:record_id>")
def image(record_id: str) -> Response | tuple[str, int]:
    """The original of an indexed image, read from its source."""
    record = _record(record_id)
    try:
        return _picture(record, _original(record))
    except OriginalError as error:
        # The message holds a path: it is for the log, not for visitors.
        current_app.logger.warning("%s", error)
        if wants_json(request):
            absence = f"The original of {record_id} {_ABSENCE[error.state]}"
            raise RequestError(404, absence, "Its thumbnail is still here.") from error
        return gone_page(record, error.state), 404


@views.get("/healthz")
def healthz() -> Response:
    """A health check: whether the index responds, and its size."""
    index = searcher().index
    response = jsonify({"status": "ok", "count": index.count(), "descriptor": index.spec.short})
    response.headers["Cache-Control"] = "no-store"
    return response


@views.get("/info")
def info() -> Response:
    """Facts about the index, without paths of the server."""
    index = searcher().index
    known: dict[str, Any] = index.info()
    public = {name: known[name] for name in _PUBLIC_INFO if name in known}
    if not sees_positions(request):
        public["fields"] = [f for f in known["fields"] if f["name"] not in POSITION]
    public["text"] = searcher().has_text
    public["knows"] = [
        {"name": card.name, "classes": card.classes, "trained_on": card.trained_on}
        for card in known_classes(searcher())
    ]
    return jsonify({**public, "sources": sorted(index.sources())})


def _question() -> Question:
    uploads: Uploads = current_app.extensions["cbir.uploads"]
    question = read_question(request, uploads, searcher().has_text)
    if not sees_positions(request):
        with _refusals(question):
            refuse_positions(question.options.where)
    return question


def _shown_in_turn(question: Question, started: float) -> AnyResponse | str:
    """The page of a verified search: the hits by score at once, then the verified ones."""
    asked, query, options = question.asked, question.query, question.options
    opened = searcher()
    with _refusals(question):
        options.check_for(query)
        unverified = replace(options, verify=False, k=opened.looked_at(options))
        hits = opened.search(query, options=unverified, warn=False)
    first = Found(hits[: options.k], _ms_since(started), comparing=len(hits))
    if not hits:
        return results_page(asked, query.text, first)

    def later() -> Found:
        try:
            hits, verification = _hits(question)
        except Exception as error:  # noqa: BLE001 - the page is on its way: this is the edge
            return replace(first, comparing=0, uncompared=what_failed(error))
        return Found(hits, _ms_since(started), verification)

    page = results_in_turn(asked, query.text, first, later)
    response = Response(stream_with_context(page), mimetype="text/html")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would wait for the rest
    return response


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _hits(question: Question) -> tuple[list[Hit], Verification | None]:
    """The hits of a search, and what verification did with them if it was requested."""
    counts: list[Verification] = []
    opened, query, options = searcher(), question.query, question.options
    hits = _answered(
        question,
        lambda go_on: opened.search(
            query, options=options, on_verified=counts.append, go_on=go_on, warn=False
        ),
    )
    return hits, counts[0] if counts else None


def _answered(question: Question, ask: Callable[[GoOn], T]) -> T:
    """What `ask` finds; it is given the `go_on` of verification."""
    with _refusals(question):
        return verified(ask) if question.options.verify else ask(lambda: True)


@contextmanager
def _refusals(question: Question) -> Iterator[None]:
    """Name the wrong filter, and keep paths of the server out of errors."""
    try:
        yield
    except ImageError as error:
        # The message holds a path: it is for the log, not for visitors.
        current_app.logger.warning("%s", error)
        absence = "cannot be decoded within the limits of a query"
        if isinstance(error, OriginalError):
            absence = _ABSENCE[error.state]
        raise RequestError(
            404,
            f"The original of {question.asked.name} {absence}",
            "Search with all of the picture, without verification and in one orientation: "
            "that needs no original.",
        ) from error
    except QueryError as error:
        wrong = _wrong_filter(question.options.where)
        if wrong is None:
            raise
        message = error.message[0].upper() + error.message[1:]
        raise RequestError(400, message, error.hint, f"where-{wrong}") from error


def _wrong_filter(where: Sequence[str]) -> int | None:
    """The number, from 1, of the first filter that is refused by itself."""
    fields = searcher().index.metadata_fields()
    for number, text in enumerate(where, 1):
        try:
            filters.parse([text], fields)
        except QueryError:
            return number
    return None


def _record(record_id: str) -> ImageRecord:
    return searcher().index.records([record_id])[0]


def _original(record: ImageRecord) -> bytes:
    """The original as an image file's bytes; raises `OriginalError`."""
    found = searcher().original(record.id)
    data = found if isinstance(found, bytes) else png(found)
    if not sniff(data):
        raise OriginalError(f"the original of {record.id} is no image", "", "gone")
    return data


def _picture(record: ImageRecord, data: bytes) -> Response:
    version = version_of(record)  # empty if a repair has marked the record
    kept = bool(version) and request.args.get("v") == version
    name = file_name(record.location)
    if not sees_positions(request):
        kind, data = sniff(data), _without_position(record, data)
        name += "" if sniff(data) == kind else ".jpg"
    return picture_response(request, data, name, versioned=kept)


def _without_position(record: ImageRecord, data: bytes) -> bytes:
    try:
        return without_position(data, LIMITS)
    except ImageError as error:
        current_app.logger.warning("%s: %s", record.id, error)
        raise RequestError(
            403,
            f"{record.id} says where it was taken, and cannot be shown without that",
            "Open it on the machine that serves it.",
        ) from error


def _hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as `cbir search --json` prints it, with URLs in place of the server's paths."""
    version = version_of(hit.record)
    told = hit.to_json()
    if not sees_positions(request):
        told["metadata"] = without_positions(told["metadata"])
    return {
        **told,
        "path": None,
        "thumbnail_url": url_for("views.thumb", record_id=hit.id, v=version),
        "image_url": url_for("views.image", record_id=hit.id, v=version),
    }
