"""What browsers and proxies may keep of each response, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from cbir.index.open import open_index
from cbir.search.searcher import Searcher
from cbir.web.app import create_app
from tests.web.support_web import LARGE, build_index, open_searcher, picture

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html"}
PRIVATE = "private, no-cache"


@pytest.fixture
def searcher(tmp_path: Path) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher).test_client()


def test_every_route_says_what_may_be_kept(client: FlaskClient) -> None:
    expected = {
        "/": (PRIVATE, {None}),
        f"/search?id={LARGE}": (PRIVATE, {"Accept"}),
        "/search": (PRIVATE, {"Accept"}),  # a redirect, or an error in JSON
        "/search?id=none": (PRIVATE, {"Accept"}),
        f"/why?id={LARGE}&target={LARGE}": (PRIVATE, {None}),
        f"/thumb/{LARGE}": (PRIVATE, {None}),
        f"/image/{LARGE}": (PRIVATE, {None}),
        "/image/none": (PRIVATE, {"Accept"}),
        "/info": (PRIVATE, {None}),
        "/none": (PRIVATE, {"Accept"}),
        "/healthz": ("no-store", {None}),
        "/static/style.css": ("no-cache", {None}),
    }
    for headers in (JSON, PAGE):
        for path, (kept, varies) in expected.items():
            with client.get(path, headers=headers) as answer:
                assert answer.headers["Cache-Control"] == kept, path
                assert {answer.headers.get("Vary")} == varies, path


def test_a_changed_original_is_never_kept_under_the_address_of_the_indexed_one(
    client: FlaskClient, tmp_path: Path
) -> None:
    found = client.get("/search?id=pictures/cold/blue.png&k=20", headers=JSON).json
    assert found is not None
    (address,) = (hit["image_url"] for hit in found["hits"] if hit["id"] == LARGE)
    assert "immutable" in client.get(address).headers["Cache-Control"]
    (tmp_path / LARGE).write_bytes(picture(99))
    with client.get(address, headers=JSON) as answer:
        assert answer.headers["Cache-Control"] == PRIVATE


def test_a_picture_that_a_repair_has_marked_is_not_kept_for_good(tmp_path: Path) -> None:
    folder = build_index(tmp_path)
    with closing(open_index(folder, write=True)) as index:
        entry = next(entry for entry in index.entries() if entry.record.id == LARGE)
        index.add([replace(entry, record=replace(entry.record, content_hash=""))])
    with open_searcher(folder) as searcher:
        answer = create_app(searcher).test_client().get(f"/thumb/{LARGE}?v=")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, PRIVATE)
