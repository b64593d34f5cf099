"""Uploads that are kept, and the real causes of refused requests, without a browser."""

from __future__ import annotations

import http.client
import io
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cbir.descriptors.models import load_descriptor
from cbir.images.ids import encode_path
from cbir.ingest.indexing import index_images
from cbir.search.query import Query
from cbir.search.searcher import IndexedId, Searcher
from cbir.web.app import MAX_BODY, MAX_UPLOAD, create_app
from cbir.web.uploads import MINUTES, Upload, Uploads
from tests.web.support_web import (
    LARGE,
    NAMES,
    GridWords,
    build_index,
    open_searcher,
    picture,
    served,
)

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ID = f"pictures/{encode_path(NAMES[3])}"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    url = build_index(tmp_path_factory.mktemp("uploads"), descriptor=GridWords())
    opened = open_searcher(url, GridWords())
    yield opened
    opened.close()


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher).test_client()


def sent(client: FlaskClient, data: bytes, headers: dict[str, str] = PAGE, **fields: Any) -> Any:
    image = (io.BytesIO(data), "mine.png")
    return client.post("/search", data={**fields, "image": image}, headers=headers)


def token_in(page: str) -> str:
    found = re.search(r'name="upload" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def ids_in(page: str) -> list[str]:
    shown = unescape(page.replace("<wbr>", ""))
    return re.findall(r'<p class="id"><code>(.*?)</code>', shown)


def error_of(response: TestResponse) -> dict[str, str]:
    assert response.json is not None
    error: dict[str, str] = response.json["error"]
    return error


# Keeping


def test_an_upload_is_searched_with_again_with_everything_changed(
    client: FlaskClient, searcher: Searcher
) -> None:
    token = token_in(sent(client, picture(7)).text)
    changed = {
        "upload": token, "k": 3, "where": "label=cold", "text": "snow", "region": "0,0,0.5,1",
    }  # fmt: skip
    page = client.post("/search", data=changed, headers=PAGE).text
    query = Query(picture(7), (0, 0, 0.5, 1), "snow")
    expected = [hit.id for hit in searcher.search(query, k=3, where=["label=cold"])]
    assert ids_in(page) == expected
    assert "mine.png" in page
    assert token_in(page) == token  # and again
    assert 'name="region" type="text" value="0,0,0.5,1"' in page
    assert '<rect x="0.0" y="0.0"' in page
    again = client.post("/search", data={"upload": token, "verify": 1}, headers=PAGE)
    by_score, verified = again.text.split('class="answers"')[1:]
    assert ids_in(by_score) == [h.id for h in searcher.search(picture(7))]
    assert ids_in(verified) == [h.id for h in searcher.search(picture(7), verify=True)]


def test_programs_keep_a_picture_only_where_they_ask_for_it(
    client: FlaskClient, searcher: Searcher
) -> None:
    assert set(sent(client, picture(7), JSON).json) == {"query", "hits", "took_ms"}
    kept = sent(client, picture(7), JSON, keep=1).json
    assert set(kept) == {"query", "hits", "took_ms", "upload"}
    answer = client.post("/search", data={"upload": kept["upload"], "k": 2}, headers=JSON).json
    assert answer is not None
    assert answer["query"] == "mine.png"
    assert answer["upload"] == kept["upload"]
    assert [h["id"] for h in answer["hits"]] == [h.id for h in searcher.search(picture(7), k=2)]


def test_an_explanation_is_json_and_keeps_no_picture(searcher: Searcher) -> None:
    app = create_app(searcher)
    app.extensions["cbir.uploads"] = Uploads(most=1)
    client = app.test_client()
    token = token_in(sent(client, picture(7)).text)
    asked = {"image": (io.BytesIO(picture(8)), "other.png"), "target": ID}
    assert client.post("/why", data=asked, headers={"Accept": "*/*"}).status_code == 200
    assert client.post("/search", data={"upload": token}, headers=PAGE).status_code == 200
    refused = client.get("/why", query_string={"id": ID}, headers={"Accept": "*/*"})
    assert error_of(refused)["message"] == "No picture was named"


def test_a_part_of_an_indexed_picture_is_searched_with(
    client: FlaskClient, searcher: Searcher
) -> None:
    asked = {"id": LARGE, "region": "0.5,0,1,0.5"}
    answer = client.get("/search", query_string=asked, headers=JSON).json
    assert answer is not None
    expected = searcher.search(Query(IndexedId(LARGE), (0.5, 0, 1, 0.5)))
    assert [hit["score"] for hit in answer["hits"]] == [hit.score for hit in expected]


def test_an_upload_that_is_gone_is_told_and_the_form_stays_filled(
    client: FlaskClient, searcher: Searcher
) -> None:
    token = token_in(sent(client, picture(7)).text)
    restarted = create_app(searcher).test_client()
    for wrong in (token, "", "0" * 32):
        fields = {"upload": wrong or "x", "k": 20, "where": "label=warm"}
        refused = restarted.post("/search", data=fields, headers=JSON)
        assert refused.status_code == 410
        assert error_of(refused)["message"] == "The uploaded picture is no longer here"
        assert f"{MINUTES} minutes" in error_of(refused)["hint"]
        page = restarted.post("/search", data=fields, headers=PAGE)
        assert page.status_code == 410
        assert 'value="label=warm"' in page.text
        assert '<option value="20" selected>' in page.text
        assert 'type="file"' in page.text


def test_uploads_of_two_visitors_never_mix(client: FlaskClient) -> None:
    tokens = [token_in(sent(client, picture(seed)).text) for seed in (1, 2, 1)]
    assert len(set(tokens)) == 3
    assert all(len(token) >= 32 for token in tokens)
    for token, seed in zip(tokens, (1, 2, 1), strict=True):
        answer = client.post("/search", data={"upload": token, "k": 1}, headers=JSON).json
        assert answer is not None
        assert answer["hits"][0]["id"] == f"pictures/{encode_path(NAMES[seed])}"


def test_two_pictures_at_once_are_refused(client: FlaskClient) -> None:
    token = token_in(sent(client, picture(7)).text)
    refused = sent(client, picture(7), JSON, upload=token)
    assert refused.status_code == 400
    assert error_of(refused)["message"] == "Both 'image' and 'upload' were given"
    refused = client.post("/search", data={"upload": token, "id": ID}, headers=JSON)
    assert error_of(refused)["message"] == "Both 'upload' and 'id' were given"


def test_uploads_are_bounded_by_number_bytes_and_time() -> None:
    now = [0.0]
    uploads = Uploads(most=3, most_bytes=100, clock=lambda: now[0])
    tokens = [uploads.keep(Upload(str(n), bytes(10))) for n in range(4)]
    assert [uploads.get(token) is not None for token in tokens] == [False, True, True, True]
    uploads.get(tokens[1])  # used again: tokens[2] is now the longest unused
    more = uploads.keep(Upload("more", bytes(80)))
    assert [uploads.get(token) is not None for token in tokens] == [False, True, False, True]
    assert uploads.keep(Upload("huge", bytes(101))) and uploads.get(more) is None
    late = uploads.keep(Upload("late", b"x"))
    now[0] = MINUTES * 60 - 1
    assert uploads.get(late) == Upload("late", b"x")
    now[0] += MINUTES * 60 - 1
    assert uploads.get(late) is not None  # its time counts from the last use
    now[0] += MINUTES * 60 + 1
    assert uploads.get(late) is None


# What is wrong is said beside its field


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"where": ["label=cold", "lable=warm"]}, "where-refine-2", "unknown field 'lable'"),
        ({"where": "width>=many"}, "where-refine-1", "width is a number"),
        ({"k": "1000"}, "k-refine", "'1000' is not a valid number of results"),
        ({"region": "0,0,2,1"}, "region-refine", "'0,0,2,1' is not a part of a picture"),
        ({"region": "left"}, "region-refine", "'left' is not a part of a picture"),
    ],
)
@pytest.mark.parametrize("of", ["upload", "id"])
def test_a_wrong_field_keeps_the_query_and_is_marked(
    client: FlaskClient, of: str, fields: dict[str, Any], field: str, said: str
) -> None:
    fields = {**fields, "text": "snow"}
    if of == "upload":
        page = sent(client, picture(7), **fields)
    else:
        page = client.get("/search", query_string={**fields, "id": ID}, headers=PAGE)
    assert page.status_code == 400
    (marked,) = re.findall(r'<(?:input|select) id="([^"]+)"[^>]* aria-invalid="true"', page.text)
    assert marked == field
    shown = " ".join(unescape(page.text).split())
    complaint = re.search(r'<p class="wrong" id="wrong-refine">(.*?)</p>', shown)
    assert complaint is not None and said in complaint[1]
    assert 'aria-describedby="wrong-refine"' in shown
    assert "mat-query" in shown  # the picture is still there
    where = fields.get("where", [])
    for text in [where] if isinstance(where, str) else where:
        assert f'name="where" type="text" value="{text}"' in shown
    assert 'type="search" value="snow"' in shown
    if of == "upload":  # and can be searched with once the field is right
        right = client.post("/search", data={"upload": token_in(page.text)}, headers=PAGE)
        assert right.status_code == 200
        assert len(ids_in(right.text)) == 10


# Requests that are too large


def form(parts: int, size: int, name: str = 'name="text"') -> tuple[bytes, str]:
    head = f"--edge\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode()
    body = (head + b"x" * size + b"\r\n") * parts + b"--edge--\r\n"
    return body, "multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    ("parts", "size", "said"),
    [
        (1, 600_000, "The field 'text' has 600,000 characters"),
        (1200, 1, "The request has more than 1,000 parts"),
        (1, MAX_BODY, "The request is larger than 64 MB"),
    ],
)
def test_a_413_names_its_cause(client: FlaskClient, parts: int, size: int, said: str) -> None:
    body, kind = form(parts, size)
    for headers in (JSON, PAGE):
        refused = client.post("/search", data=body, content_type=kind, headers=headers)
        assert refused.status_code == 413
        assert said in unescape(refused.text)


def test_a_large_picture_is_told_from_a_large_form(client: FlaskClient) -> None:
    body, kind = form(1, MAX_UPLOAD + 1, 'name="image"; filename="mine.png"')
    refused = client.post("/search", data=body, content_type=kind, headers=JSON)
    assert refused.status_code == 413
    assert error_of(refused)["message"] == "The picture is larger than 20 MB"
    plain = client.post("/search", data={"text": "x" * 2**20}, headers=JSON)
    assert plain.status_code == 413
    assert error_of(plain)["message"] == "The request is larger than 1 MB"
    assert "of at most 20 MB" in error_of(plain)["hint"]


def test_a_large_body_is_refused_in_words_by_the_server(searcher: Searcher) -> None:
    body, kind = form(1, MAX_BODY)
    with served(searcher) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("POST", "/search", body, {"Content-Type": kind, **JSON})
        answer = connection.getresponse()
        assert answer.status == 413
        error = json.loads(answer.read())["error"]
        assert error["message"] == "The request is larger than 64 MB"
        connection.close()


# What the descriptor knows


def test_the_page_says_which_classes_the_descriptor_knows(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    url = str(tmp_path / "p.cbir")
    index_images([folder], url, descriptor=load_descriptor("cifar10-cnn"))
    opened = Searcher.open(url)
    client = create_app(opened).test_client()
    for page in (client.get("/").text, sent(client, picture(1)).text):
        said = " ".join(page.split())
        assert "<strong>cifar10-cnn knows 10 classes</strong> of CIFAR-10 (JPEG copy)" in said
        assert "airplane, automobile, bird, cat, deer, dog, frog, horse, ship and truck." in said
        assert "Your photo may be none of them." in said
    info = client.get("/info").json
    assert info is not None
    (known,) = info["knows"]
    assert known["name"] == "cifar10-cnn"
    assert known["trained_on"].startswith("CIFAR-10")
    assert len(known["classes"]) == 10
    opened.close()


def test_a_descriptor_without_classes_claims_none(client: FlaskClient) -> None:
    assert "Your photo may be none" not in client.get("/").text
    info = client.get("/info").json
    assert info is not None and info["knows"] == []
