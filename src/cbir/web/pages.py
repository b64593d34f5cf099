"""Renders the pages: the values that each template receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flask import Flask, g, render_template
from markupsafe import Markup

from cbir.descriptors.cards import ModelCard
from cbir.descriptors.models import cards_of
from cbir.errors import RecordGoneError
from cbir.images.thumbnails import data_uri, thumbnail
from cbir.index.filters import equals
from cbir.search.near_misses import near_misses
from cbir.search.originals import OriginalState
from cbir.search.query import IndexedId, SearchOptions
from cbir.search.searcher import Searcher
from cbir.types import Hit, ImageRecord, Verification
from cbir.web.image_responses import file_name, version_of
from cbir.web.opened import searcher, showcase
from cbir.web.questions import MAX_K, MAX_UPLOAD, Asked, as_fields
from cbir.wording import counted

_LATER = Markup("<!-- later -->")
"""Where the second part of a page belongs. Text from outside is escaped, so it has no such tag."""
SHOWN_CLASSES = 12
SMALL_SIDE = 96
"""Pictures up to this many pixels a side are enlarged without smoothing."""


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """The query's picture: an indexed one has a `record`; an upload has a thumbnail in `uri`, and
    a `token` to search with it again."""

    name: str
    width: int
    height: int
    record: ImageRecord | None = None
    uri: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with the `field` of a form (see `RequestError`)."""

    field: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a page shows of a search.

    `verification`: the counts of a verified search. `comparing`: how many hits are being compared
    while the page is read. `uncompared`: why hits were not, although that was requested.
    """

    hits: Sequence[Hit]
    took_ms: float
    verification: Verification | None = None
    comparing: int = 0
    uncompared: str = ""


def home_page(draw: int) -> str:
    """The start page: the form and sample pictures of the index."""
    samples = showcase()
    return render_template(
        "home.html",
        about=_about(),
        labels=samples.labels(),
        samples=samples.draw(draw),
        next_draw=draw + 1,
    )


def results_page(asked: Asked, words: str | None, found: Found) -> str:
    """The query and its hits; raises `RecordGoneError` if its picture is no longer indexed."""
    return render_template("results.html", found=found, **_results(asked, words, found))


def results_in_turn(
    asked: Asked, words: str | None, first: Found, later: Callable[[], Found]
) -> Iterator[str]:
    """The parts of a page: with the `first` hits, then those of `later()`, which hide the others.

    `later` is called once the first part is sent. Raises as `results_page` does, before that.
    """
    values = _results(asked, words, first)
    page = render_template("results.html", found=first, later_mark=_LATER, **values)
    before, after = page.split(_LATER)

    def parts() -> Iterator[str]:
        yield before
        yield render_template("answers.html", found=later(), **values)
        yield after

    return parts()


def _results(asked: Asked, words: str | None, found: Found) -> dict[str, object]:
    where = () if found.hits else _search_options().where
    return {
        "near_misses": near_misses(searcher().index, where),
        "about": _about(),
        "labels": showcase().labels(),
        "query": _query_picture(asked),
        "words": words,
    }


def refused_page(message: str, hint: str, field: str) -> str:
    """Why a search was refused, beside its picture if it has one, and the form to try again."""
    g.wrong = Wrong(field, message, hint)
    values = {"about": _about(), "labels": showcase().labels(), "message": message, "hint": hint}
    asked: Asked | None = g.get("asked")
    try:
        query = _query_picture(asked) if asked else None
    except RecordGoneError:
        query = None
    if query is None:
        return render_template("refused.html", **values)
    return render_template("results.html", query=query, words=g.text or None, **values)


def failure_page(status: int, message: str, hint: str) -> str:
    """A page for every other error; does not read the index."""
    return render_template("failure.html", status=status, message=message, hint=hint)


def gone_page(record: ImageRecord, state: OriginalState) -> str:
    """For a picture whose original is not shown: why, its thumbnail and its record."""
    return render_template("gone.html", about=_about(), record=record, state=state)


def register_pages(app: Flask) -> None:
    """Register the filters and globals that templates use."""
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        breakable=_breakable,
        counted=counted,
        listed=_listed,
        file_name=file_name,
        filter_for=lambda value, field: equals(field, value),
        ms=_milliseconds,
        size_class=_size_class,
        version_of=version_of,
    )
    app.jinja_env.globals.update(
        search_options=_search_options,
        search_text=lambda: g.get("text", ""),
        search_region=lambda: g.get("region", ""),
        box_of=_box_of,
        wrong=lambda: g.get("wrong", Wrong("", "", "")),
        option_fields=lambda: as_fields(_search_options()),
        max_bytes=MAX_UPLOAD,
        result_counts=(10, 20, 50, MAX_K),
    )


def _search_options() -> SearchOptions:
    options: SearchOptions = g.get("options", SearchOptions())
    return options


def _about() -> dict[str, object]:
    """Facts about the index for the header and the forms: its name, never its path."""
    opened = searcher()
    index = opened.index
    return {
        "name": index.url.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1],
        "count": index.count(),
        "descriptor": index.spec.short,
        "has_text": opened.has_text,
        "knows": known_classes(opened),
    }


def known_classes(searcher: Searcher) -> list[ModelCard]:
    """The cards of the descriptor's models that were trained on classes."""
    return [card for card in cards_of(searcher.descriptor) if card.classes]


def _listed(classes: Sequence[str]) -> str:
    """`cat, dog and frog`; of many classes, only the first."""
    if len(classes) > SHOWN_CLASSES:
        return f"{', '.join(classes[:SHOWN_CLASSES])} and others"
    return " and ".join(filter(None, [", ".join(classes[:-1]), classes[-1]]))


def _query_picture(asked: Asked) -> QueryPicture | None:
    """The picture of a query, None if it is only words."""
    if isinstance(asked.of, IndexedId):
        (record,) = searcher().index.records([asked.of.id])
        return QueryPicture(file_name(record.location), record.width, record.height, record)
    if asked.of is None or asked.upload is None:
        return None
    height, width = asked.of.shape[:2]
    uri = data_uri(thumbnail(asked.upload.data, asked.of))
    return QueryPicture(asked.name, width, height, uri=uri, token=asked.token)


def _box_of(region: str) -> list[float]:
    """The edges of a `region` field that was searched with."""
    return [float(edge) for edge in region.split(",")]


def _size_class(picture: QueryPicture | ImageRecord) -> str:
    return "is-small" if max(picture.width, picture.height) <= SMALL_SIDE else "is-large"


def _breakable(record_id: str) -> Markup:
    """An id with possible line breaks after its slashes."""
    return Markup("/<wbr>").join(record_id.split("/"))


def _milliseconds(took: float) -> str:
    return f"{took:.1f} ms" if took < 10 else f"{took:,.0f} ms"
