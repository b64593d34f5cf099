"""The searcher that a request uses: one and the same, also if the index is replaced meanwhile."""

from __future__ import annotations

from threading import Lock

from flask import Flask, current_app, g

from cbir.errors import IndexReplacedError
from cbir.search.searcher import Searcher
from cbir.web.showcase import Showcase

_OPENED = "cbir.opened"
_reopening = Lock()


def use_searcher(app: Flask, searcher: Searcher) -> None:
    """Answer requests from `searcher` from now on."""
    app.extensions[_OPENED] = (searcher, Showcase(searcher.index))


def searcher() -> Searcher:
    """The searcher of this request."""
    return _of_this_request()[0]


def showcase() -> Showcase:
    """The sample pictures of this request's searcher."""
    return _of_this_request()[1]


def reopen() -> None:
    """Open the index that now lies where the replaced one was, for the next requests.

    Raises `CbirError` if there is none.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    with _reopening:
        old: Searcher = app.extensions[_OPENED][0]
        try:
            old.index.count()  # another request may have opened it
        except IndexReplacedError:
            use_searcher(app, old.reopened())
            old.close()
    g.pop("opened", None)


def _of_this_request() -> tuple[Searcher, Showcase]:
    if "opened" not in g:
        g.opened = current_app.extensions[_OPENED]
    opened: tuple[Searcher, Showcase] = g.opened
    return opened
