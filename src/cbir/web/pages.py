"""Renders the pages: the values that each template receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flask import Flask, current_app, g, render_template
from markupsafe import Markup

from cbir.images.thumbnails import data_uri, thumbnail
from cbir.search.query import SearchOptions
from cbir.search.searcher import Searcher
from cbir.types import Hit, ImageRecord
from cbir.web.image_responses import file_name, version_of
from cbir.web.questions import MAX_K, Question, as_fields
from cbir.web.showcase import Showcase

SMALL_SIDE = 96
"""Pictures up to this many pixels a side are enlarged without smoothing."""


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """The query's picture; `uri` holds an upload's thumbnail, None for an indexed image."""

    name: str
    width: int
    height: int
    uri: str | None
    record: ImageRecord | None


def home_page(draw: int) -> str:
    """The start page: the form and sample pictures of the index."""
    showcase = _showcase()
    return render_template(
        "home.html",
        about=_about(),
        labels=showcase.labels(),
        samples=showcase.draw(draw),
        next_draw=draw + 1,
    )


def results_page(
    question: Question, record: ImageRecord | None, hits: Sequence[Hit], took_ms: float
) -> str:
    """The query and its hits; `record` is that of the query's picture if it is indexed."""
    return render_template(
        "results.html",
        about=_about(),
        labels=_showcase().labels(),
        query=_query_picture(question, record),
        words=question.query.text,
        hits=hits,
        took_ms=took_ms,
    )


def refused_page(message: str, hint: str) -> str:
    """Why a search was refused, above the form to try again."""
    return render_template(
        "refused.html",
        about=_about(),
        labels=_showcase().labels(),
        message=message,
        hint=hint,
    )


def failure_page(status: int, message: str, hint: str) -> str:
    """A page for every other error; does not read the index."""
    return render_template("failure.html", status=status, message=message, hint=hint)


def gone_page(record: ImageRecord) -> str:
    """For a picture whose original is gone: its thumbnail and its record."""
    return render_template("gone.html", about=_about(), record=record)


def register_pages(app: Flask) -> None:
    """Register the filters and globals that templates use."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        breakable=_breakable,
        file_name=file_name,
        ms=_milliseconds,
        size_class=_size_class,
        version_of=version_of,
    )
    app.jinja_env.globals.update(
        search_options=_search_options,
        search_text=lambda: g.get("text", ""),
        option_fields=lambda: as_fields(_search_options()),
        max_bytes=app.config["MAX_CONTENT_LENGTH"],
        result_counts=(10, 20, 50, MAX_K),
    )


def _search_options() -> SearchOptions:
    options: SearchOptions = g.get("options", SearchOptions())
    return options


def _searcher() -> Searcher:
    searcher: Searcher = current_app.extensions["cbir.searcher"]
    return searcher


def _showcase() -> Showcase:
    showcase: Showcase = current_app.extensions["cbir.showcase"]
    return showcase


def _about() -> dict[str, object]:
    """Facts about the index for the header and the forms: its name, never its path."""
    searcher = _searcher()
    index = searcher.index
    return {
        "name": index.url.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1],
        "count": index.count(),
        "descriptor": index.spec.short,
        "has_text": searcher.has_text,
    }


def _query_picture(question: Question, record: ImageRecord | None) -> QueryPicture | None:
    """The picture of a query, None if it is only words."""
    if question.query.of is None:
        return None
    if record is not None:
        name = file_name(record.location)
        return QueryPicture(name, record.width, record.height, None, record)
    pixels = question.query.of
    assert isinstance(pixels, np.ndarray)  # an upload, decoded when it came in
    height, width = pixels.shape[:2]
    return QueryPicture(
        question.name, width, height, data_uri(thumbnail(question.data, pixels)), None
    )


def _size_class(picture: QueryPicture | ImageRecord) -> str:
    return "is-small" if max(picture.width, picture.height) <= SMALL_SIDE else "is-large"


def _breakable(record_id: str) -> Markup:
    """An id with possible line breaks after its slashes."""
    return Markup("/<wbr>").join(record_id.split("/"))


def _milliseconds(took: float) -> str:
    return f"{took:.1f} ms" if took < 10 else f"{took:,.0f} ms"
