"""Words over HTTP and on the page, without a browser."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient

from cbir.images.ids import encode_path
from cbir.search.query import Query
from cbir.search.searcher import IndexedId, Searcher
from cbir.types import Hit, Vectors
from cbir.web.app import create_app
from tests.web.support_web import NAMES, GridWords, build_index, open_searcher, picture

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ID = f"pictures/{encode_path(NAMES[3])}"
TEXT = "<b>a dog</b> & 100% snow"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    url = build_index(tmp_path_factory.mktemp("words"), descriptor=GridWords())
    opened = open_searcher(url, GridWords())
    yield opened
    opened.close()


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher).test_client()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """Over an index that has no text tower."""
    opened = open_searcher(build_index(tmp_path_factory.mktemp("plain")))
    yield create_app(opened).test_client()
    opened.close()


def image(seed: int) -> tuple[io.BytesIO, str]:
    return io.BytesIO(picture(seed)), "mine.png"


def assert_hits(answer: Any, expected: list[Hit]) -> None:
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert [hit["score"] for hit in answer["hits"]] == [hit.score for hit in expected]


def test_words_are_answered_as_json_by_both_methods(
    client: FlaskClient, searcher: Searcher
) -> None:
    asked = {"text": f" {TEXT} ", "k": 5, "where": "label=warm"}
    expected = searcher.search(Query(text=TEXT), k=5, where=["label=warm"])
    for answer in (
        client.get("/search", query_string=asked, headers=JSON).json,
        client.post("/search", data=asked, headers=JSON).json,
    ):
        assert answer is not None
        assert set(answer) == {"query", "text", "hits", "took_ms"}
        assert (answer["query"], answer["text"]) == (TEXT, TEXT)
        assert_hits(answer, expected)


@pytest.mark.parametrize("weight", [None, 0, 0.2, 1])
def test_words_join_a_picture_by_their_weight(
    client: FlaskClient, searcher: Searcher, weight: float | None
) -> None:
    fields: dict[str, object] = {"text": "snow"}
    fields |= {} if weight is None else {"text_weight": weight}
    share = 0.5 if weight is None else weight
    sent = client.post("/search", data={**fields, "image": image(7)}, headers=JSON).json
    assert sent is not None
    assert (sent["query"], sent["text"]) == ("mine.png", "snow")
    assert_hits(sent, searcher.search(Query(picture(7), text="snow"), text_weight=share))
    kept = client.get("/search", query_string={**fields, "id": ID}, headers=JSON).json
    assert kept is not None
    assert (kept["query"], kept["text"]) == (ID, "snow")
    assert_hits(kept, searcher.search(Query(IndexedId(ID), text="snow"), text_weight=share))


def test_an_empty_box_of_the_form_is_no_text(client: FlaskClient, searcher: Searcher) -> None:
    for text in ("", "  "):
        answer = client.post("/search", data={"image": image(7), "text": text}, headers=JSON).json
        assert answer is not None
        assert set(answer) == {"query", "hits", "took_ms"}
        assert_hits(answer, searcher.search(picture(7)))
        page = client.get("/search", query_string={"text": text}, headers=PAGE)
        assert (page.status_code, page.location) == (302, "/")


def test_words_of_the_page_lead_to_an_address_that_can_be_shared(
    client: FlaskClient, searcher: Searcher
) -> None:
    asked = {"text": TEXT, "k": 20, "where": ["label=warm", ""], "text_weight": 0.25}
    sent = client.post("/search", data=asked, headers=PAGE)
    assert sent.status_code == 303
    assert parse_qs(urlsplit(sent.location).query) == {
        "text": [TEXT], "k": ["20"], "where": ["label=warm"], "text_weight": ["0.25"],
    }  # fmt: skip
    page = client.get(sent.location, headers=PAGE).text
    assert "<b>" not in page
    shown = unescape(page.replace("<wbr>", ""))
    expected = searcher.search(Query(text=TEXT), k=20, where=["label=warm"])
    assert re.findall(r'<p class="id"><code>(.*?)</code>', shown) == [h.id for h in expected]
    assert f"“{TEXT}”" in shown
    assert "The 6 best matches" in shown
    assert f'name="text" type="search" value="{TEXT}"' in shown
    assert 'name="text_weight" value="0.25"' in page  # kept for the next search
    assert 'value="label=warm"' in page


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "x" * 100_000}, "The text has 100,000 characters"),
        ({"text": "snow", "text_weight": "much"}, "'much' is not valid for 'text_weight'"),
        ({"text": "snow", "text_weight": ""}, "'' is not valid for 'text_weight'"),
        ({"text": "snow", "text_weight": "1.5"}, "'1.5' is not valid for 'text_weight'"),
        ({"text": "snow", "text_weight": "nan"}, "'nan' is not valid for 'text_weight'"),
        ({"text": "snow", "verify": "1"}, "Verification needs a picture"),
        ({"text": "snow", "any_orientation": "1"}, "Search in any orientation needs a picture"),
        ({}, "No picture was chosen, and no words were given"),
    ],
)
def test_words_that_can_not_be_searched_are_refused_in_one_line(
    client: FlaskClient, fields: dict[str, str], said: str
) -> None:
    refused = client.post("/search", data=fields, headers=JSON)
    assert refused.status_code == 400
    assert refused.json is not None
    error = refused.json["error"]
    assert error["message"].startswith(said)
    assert error["hint"]
    page = client.post("/search", data=fields, headers=PAGE, follow_redirects=True)
    assert page.status_code == 400
    assert error["message"] in unescape(page.text)
    assert f'type="search" value="{fields.get("text", "")}"' in page.text  # kept, to be put right


def test_a_text_longer_than_any_form_is_not_called_a_picture(client: FlaskClient) -> None:
    head = b'--edge\r\nContent-Disposition: form-data; name="text"\r\n\r\n'
    body, kind = head + b"x" * 600_000 + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"
    refused = client.post("/search", data=body, content_type=kind, headers=JSON)
    assert refused.status_code == 413
    assert refused.json is not None
    assert refused.json["error"]["message"] == "The field 'text' has 600,000 characters"


def test_an_index_without_a_text_tower_offers_no_words(plain: FlaskClient) -> None:
    assert 'name="text"' not in plain.get("/").text
    assert "required" in plain.get("/").text
    for asked in ({"text": "snow"}, {"text": "snow", "id": ID}):
        refused = plain.get("/search", query_string=asked, headers=JSON)
        assert refused.status_code == 400
        assert refused.json is not None
        message = refused.json["error"]["message"]
        assert message.startswith("grid@9c9c9c9c cannot be searched by words")  # a name, as it is
    page = plain.get("/search", query_string={"text": "snow"}, headers=PAGE)
    assert page.status_code == 400
    assert "cannot be searched by words" in page.text
    info = plain.get("/info").json
    assert info is not None and info["text"] is False


def test_the_page_and_info_tell_that_words_can_be_searched(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(self: object, given: object) -> Vectors:
        raise AssertionError("a network was run")

    monkeypatch.setattr(GridWords, "describe", loaded)
    monkeypatch.setattr(GridWords, "describe_texts", loaded)
    client = create_app(searcher).test_client()
    info = client.get("/info").json
    assert info is not None and info["text"] is True
    page = client.get("/").text
    assert 'name="text"' in page
    assert "required" not in page  # the file is not: words are enough
    assert "<code>text=…</code>" in page
