"""The page and the HTTP answers, without a browser."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cbir.errors import CbirError, IndexStateError
from cbir.home import cbir_home
from cbir.images.ids import encode_path
from cbir.index.open import create_index
from cbir.ingest.indexing import index_images
from cbir.search.searcher import IndexedId, Searcher
from cbir.types import Hit, RgbImage
from cbir.web.app import MAX_UPLOAD, create_app
from cbir.web.serve import listen, serve
from tests.descriptors.local.support_textures import texture
from tests.web.support_web import (
    LARGE,
    NAMES,
    Grid,
    build_index,
    build_textured,
    noise,
    open_searcher,
    picture,
    served,
)

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
IDS = [f"pictures/{encode_path(name)}" for name in NAMES]


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path_factory.mktemp("web")))
    yield opened
    opened.close()


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher).test_client()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Searcher]:
    """An index that a test may change."""
    opened = open_searcher(build_index(tmp_path))
    yield opened
    opened.close()


def multipart(data: bytes, name: str, **fields: str | int | Sequence[str]) -> tuple[bytes, str]:
    """The body and content type of a form with a file; a sequence is a repeated field."""
    edge = "edge-of-the-parts"
    pairs = [
        (key, value)
        for key, values in fields.items()
        for value in ([values] if isinstance(values, str | int) else values)
    ]
    body = b"".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in pairs
    )
    head = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    body += head.encode() + data + f"\r\n--{edge}--\r\n".encode()
    return body, f"multipart/form-data; boundary={edge}"


def upload(
    client: FlaskClient,
    data: bytes,
    name: str = "photo.png",
    headers: dict[str, str] = JSON,
    **fields: str | int | Sequence[str],
) -> Any:
    body, kind = multipart(data, name, **fields)
    return client.post("/search", data=body, content_type=kind, headers=headers)


def error_of(response: TestResponse) -> dict[str, str]:
    assert response.json is not None
    assert set(response.json) == {"error"}
    error: dict[str, str] = response.json["error"]
    assert set(error) == {"message", "hint"}
    return error


def addresses(page: str, pattern: str) -> list[str]:
    return [unescape(found) for found in re.findall(pattern, page)]


# Searching


def test_an_upload_is_answered_with_its_hits_as_json(
    client: FlaskClient, searcher: Searcher
) -> None:
    answer = upload(client, picture(3), "mine.png", k=5).json
    assert set(answer) == {"query", "hits", "took_ms"}
    assert answer["query"] == "mine.png"
    assert answer["took_ms"] > 0
    expected = searcher.search(picture(3), k=5)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert answer["hits"][0]["id"] == "pictures/warm/a%20b.png"
    for got, hit in zip(answer["hits"], expected, strict=True):
        assert {name: got[name] for name in hit.to_json()} == {**hit.to_json(), "path": None}


def test_the_addresses_in_json_hits_lead_to_their_pictures(client: FlaskClient) -> None:
    for hit in upload(client, picture(0), k=len(NAMES)).json["hits"]:
        seed = IDS.index(hit["id"])
        assert client.get(hit["image_url"]).status_code == 200
        thumb = Image.open(io.BytesIO(client.get(hit["thumbnail_url"]).data)).convert("RGB")
        reference = Image.open(io.BytesIO(picture(seed))).convert("RGB").resize(thumb.size)
        difference = np.abs(np.asarray(thumb, float) - np.asarray(reference, float)).mean()
        assert difference < 25, hit["id"]


def test_ten_hits_come_where_no_number_is_asked_for(client: FlaskClient) -> None:
    assert len(upload(client, picture(0)).json["hits"]) == 10


def test_an_indexed_id_leaves_itself_out(client: FlaskClient, searcher: Searcher) -> None:
    for record_id in IDS:
        expected = [hit.id for hit in searcher.search(IndexedId(record_id), k=4)]
        got = client.get("/search", query_string={"id": record_id, "k": 4}, headers=JSON).json
        assert got is not None
        assert got["query"] == record_id
        assert [hit["id"] for hit in got["hits"]] == expected
        assert record_id not in expected
        posted = client.post("/search", data={"id": record_id, "k": 4}, headers=JSON).json
        assert posted is not None
        assert posted["hits"] == got["hits"]


def test_filters_repeat_and_all_hold(client: FlaskClient) -> None:
    answer = upload(client, picture(0), where=["label=cold", "width<=32"]).json
    expected = {
        record_id for record_id in IDS if "/cold/" in record_id and "large" not in record_id
    }
    assert {hit["id"] for hit in answer["hits"]} == expected


def test_blank_filters_of_the_form_are_left_out(client: FlaskClient) -> None:
    assert len(upload(client, picture(0), where=["", "label=warm", " "]).json["hits"]) == 6


def test_the_page_shows_the_query_and_every_hit(client: FlaskClient, searcher: Searcher) -> None:
    page = upload(client, picture(5), "mine.png", headers=PAGE, k=13).text
    assert "mine.png" in page
    assert "The 13 most similar pictures" in page
    for hit in searcher.search(picture(5), k=13):
        shown = unescape(page.replace("<wbr>", ""))
        assert f"<code>{hit.id}</code>" in shown
        assert Path(NAMES[IDS.index(hit.id)]).name in shown
        assert f">{hit.score:.3f}<" in shown
    thumbs = addresses(page, r'src="(/thumb/[^"]*)"')
    originals = addresses(page, r'href="(/image/[^"]*)"')
    again = addresses(page, r'href="(/search\?id=[^"]*)"')
    assert len(thumbs) == len(originals) == len(again) == 13
    for address in [*thumbs, *originals, *again]:
        assert client.get(address).status_code == 200, address


def test_the_query_on_the_page_is_made_of_the_uploaded_bytes(client: FlaskClient) -> None:
    # The name of an indexed picture, the pixels of none.
    sent = picture(77)
    page = upload(client, sent, "red.png", headers=PAGE).text
    (shown,) = addresses(page, r'src="data:image/png;base64,([^"]*)"')
    assert base64.b64decode(shown) == sent


def test_a_large_query_is_shown_as_a_thumbnail(client: FlaskClient) -> None:
    page = upload(client, noise(300), headers=PAGE).text
    (shown,) = addresses(page, r'src="data:image/jpeg;base64,([^"]*)"')
    assert max(Image.open(io.BytesIO(base64.b64decode(shown))).size) == 256
    assert "300 × 300 px" in page


def test_the_part_that_matched_is_drawn_over_its_hit(tmp_path: Path) -> None:
    searcher = open_searcher(build_index(tmp_path, regions=5))
    large = np.asarray(Image.open(io.BytesIO(picture(11, 400))))
    quarter = io.BytesIO()
    Image.fromarray(large[:200, 200:]).save(quarter, "PNG")
    client = create_app(searcher).test_client()
    hit = upload(client, quarter.getvalue(), k=1).json["hits"][0]
    assert hit["id"] == "pictures/cold/large.png"
    assert hit["box"] == [0.5, 0.0, 1.0, 0.5]
    page = upload(client, quarter.getvalue(), headers=PAGE, k=1).text
    assert 'viewBox="0 0 400 400"' in page
    rect = re.search(r'<rect x="([\d.]+)" y="([\d.]+)"\s+width="([\d.]+)" height="([\d.]+)"', page)
    assert rect is not None
    assert [float(value) for value in rect.groups()] == [200, 0, 200, 200]
    searcher.close()


@pytest.fixture(scope="module")
def textured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """Pictures with enough on them to be compared point by point."""
    opened = open_searcher(build_textured(tmp_path_factory.mktemp("textured")))
    yield opened
    opened.close()


def test_hits_are_verified_and_turned_where_that_is_asked_for(textured: Searcher) -> None:
    client = create_app(textured).test_client()
    sent = io.BytesIO()
    Image.fromarray(texture(1)[20:140, 200:40:-1]).save(sent, "PNG")  # mirrored, cropped
    query = sent.getvalue()
    options: dict[str, str | int] = {"verify": 1, "any_orientation": 1}
    answer = upload(client, query, k=3, **options).json
    expected = textured.search(query, k=3, verify=True, any_orientation=True)
    assert [{**hit.to_json(), "path": None} for hit in expected] == [
        {name: hit[name] for name in expected[0].to_json()} for hit in answer["hits"]
    ]
    first = answer["hits"][0]
    assert (first["id"], first["verified"], first["mirrored"]) == ("photos/1.png", True, True)
    plain = upload(client, query, k=3, verify=0).json["hits"][0]
    assert (plain["inliers"], plain["verified"], plain["orientation"]) == (None, None, None)
    page = unescape(upload(client, query, headers=PAGE, k=3, **options).text)
    assert f"{first['inliers']} points agree" in page
    assert page.count("points agree") == 1  # nothing is said of hits without
    assert f">{first['orientation']}<" in page
    assert page.count(" checked>") == 2
    assert addresses(page, r'href="(/search\?[^"]*verify=1[^"]*)"')
    assert " checked>" not in upload(client, query, headers=PAGE).text


def test_an_indexed_picture_is_verified_by_its_original(textured: Searcher) -> None:
    client = create_app(textured).test_client()
    asked = {"id": "photos/part.png", "verify": 1, "k": 2}
    got = client.get("/search", query_string=asked, headers=JSON).json
    assert got is not None
    assert got["hits"][0]["id"] == "photos/2.png"
    assert got["hits"][0]["inliers"] > 0
    posted = client.post("/search", data=asked, headers=JSON).json
    assert posted is not None and posted["hits"] == got["hits"]


def test_a_gone_original_can_not_be_verified_and_that_is_said(
    own: Searcher, tmp_path: Path
) -> None:
    (tmp_path / "pictures" / "cold" / "large.png").unlink()
    client = create_app(own).test_client()
    asked = {"id": LARGE, "verify": 1}
    refused = client.get("/search", query_string=asked, headers=JSON)
    assert refused.status_code == 404
    assert str(tmp_path) not in refused.text
    assert error_of(refused)["message"] == f"The original of {LARGE} is gone"
    page = upload(client, picture(11, 400), headers=PAGE, verify=1).text
    assert "not compared" in page


def test_an_original_beyond_the_limits_of_a_query_is_not_called_gone(
    textured: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.images.decode.PIXEL_LIMIT", 100)  # it was indexed with --max-pixels
    asked = {"id": "photos/2.png", "any_orientation": 1}
    refused = create_app(textured).test_client().get("/search", query_string=asked, headers=JSON)
    assert refused.status_code == 404
    assert error_of(refused)["message"] == (
        "The original of photos/2.png cannot be decoded within the limits of a query"
    )


def test_verification_ends_in_time_and_says_how_far_it_came(
    textured: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = create_app(textured).test_client()
    asked = {"id": "photos/part.png", "verify": 1}
    whole = client.get("/search", query_string=asked, headers=JSON).json
    assert whole is not None
    total = len(whole["hits"])
    counts = {"looked_at": total, "compared": total, "agreed": 1, "unavailable": 0, "skipped": 0}
    assert whole["verification"] == counts
    page = client.get("/search", query_string=asked, headers=PAGE).text
    assert f"{total} compared, 1 agreed." in page
    assert "not compared" not in page
    monkeypatch.setattr("cbir.web.admission.VERIFYING_TIME", 0.0)
    cut = client.get("/search", query_string=asked, headers=JSON).json
    assert cut is not None
    assert cut["verification"] == counts | {"compared": 0, "agreed": 0, "skipped": total}
    assert {(hit["inliers"], hit["verified"]) for hit in cut["hits"]} == {(None, None)}
    page = client.get("/search", query_string=asked, headers=PAGE).text
    assert f"0 of {total} compared, none agreed; {total} not reached in time." in page
    assert page.count("not compared") == total
    assert "verification" not in upload(client, picture(0)).json


@pytest.mark.parametrize("field", ["verify", "any_orientation"])
def test_a_switch_is_1_or_left_out(client: FlaskClient, field: str) -> None:
    refused = upload(client, picture(0), **{field: "yes"})
    assert refused.status_code == 400
    assert error_of(refused)["message"] == f"'yes' is not valid for '{field}'"


def test_no_match_is_said_in_words(client: FlaskClient) -> None:
    page = upload(client, picture(0), headers=PAGE, where="label=lukewarm").text
    assert "No picture matches" in page
    assert "label=lukewarm" in page
    page = upload(client, picture(0), headers=PAGE, where="label=warn").text
    assert "Did you mean <code>label=warm</code>" in page
    found = upload(client, picture(0), where="label=warn").json
    assert found["hits"] == []
    assert found["notes"] == ["no image has label=warn; did you mean label=warm?"]


def test_suggested_filters_find_their_pictures(tmp_path: Path) -> None:
    for number, label in enumerate(("tench, Tinca tinca", "trail ", '5" disk')):
        (tmp_path / "f" / label).mkdir(parents=True)
        (tmp_path / "f" / label / "1.png").write_bytes(picture(number))
    place = tmp_path / "f.cbir"
    index_images([tmp_path / "f"], place, descriptor=Grid(), label_from_folder=True)
    searcher = Searcher.open(place, Grid())
    client = create_app(searcher).test_client()
    options = re.findall(r'<option value="(label.*?)">', client.get("/", headers=PAGE).text)
    assert len(options) == 3
    for option in map(unescape, options):
        assert len(upload(client, picture(9), where=option).json["hits"]) == 1, option
    searcher.close()


def test_search_without_a_picture_leads_to_the_first_page(client: FlaskClient) -> None:
    response = client.get("/search", headers=PAGE)
    assert (response.status_code, response.location) == (302, "/")


def test_uploads_of_the_same_name_at_the_same_time_never_mix(searcher: Searcher) -> None:
    expected = {seed: [hit.id for hit in searcher.search(picture(seed), k=5)] for seed in range(30)}

    with served(searcher) as address:

        def ask(seed: int) -> list[str]:
            answer = post(address, picture(seed), "photo.png", k="5")
            return [hit["id"] for hit in json.loads(answer)["hits"]]

        with ThreadPoolExecutor(8) as pool:
            seeds = [seed for _ in range(4) for seed in expected]
            for seed, got in zip(seeds, pool.map(ask, seeds), strict=True):
                assert got == expected[seed]


def test_uploads_never_touch_the_disk(
    own: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(1000)  # 3 MB: more than servers like to keep in memory
    (tmp_path / LARGE).write_bytes(data)
    index_images([tmp_path / "pictures"], own.index.url, descriptor=Grid())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file was opened")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    for module in ("werkzeug.formparser", "waitress.buffers"):
        for name in ("TemporaryFile", "SpooledTemporaryFile"):
            monkeypatch.setattr(f"{module}.{name}", refuse, raising=False)
    with served(own) as address:
        assert len(json.loads(post(address, data, "photo.png"))["hits"]) == 10
        with urlopen(f"{address}image/{LARGE}") as response:
            assert response.read() == data


# What is wrong with a request


def truncated() -> bytes:
    whole = noise(100)
    target = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(target, "JPEG")
    return target.getvalue()[: len(target.getvalue()) // 2]


def bomb() -> bytes:
    target = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(target, "PNG")
    return target.getvalue()


WRONG_UPLOADS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"just some words\n" * 20, "not an image"),
    "page": (lambda: b"<!doctype html><script>alert(1)</script>", "not an image"),
    "truncated": (truncated, "truncated"),
    "enormous": (bomb, "30000 x 30000"),
}


@pytest.mark.parametrize("kind", WRONG_UPLOADS)
def test_a_wrong_upload_gets_a_clear_message(client: FlaskClient, kind: str) -> None:
    make, said = WRONG_UPLOADS[kind]
    data = make()
    response = upload(client, data, "holiday.jpg")
    assert response.status_code == 400
    error = error_of(response)
    assert error["message"].startswith("holiday.jpg: ")
    assert said in error["message"]
    assert error["hint"]
    page = upload(client, data, "holiday.jpg", headers=PAGE)
    assert page.status_code == 400
    assert error["message"] in unescape(page.text)
    assert 'type="file"' in page.text


def test_no_picture_at_all_gets_a_clear_message(client: FlaskClient) -> None:
    for headers in (JSON, PAGE):
        for fields in ({}, {"image": (io.BytesIO(b""), "")}, {"image": "text"}):
            response = client.post("/search", data=fields, headers=headers)
            assert response.status_code == 400
            assert "No picture was chosen" in response.text


def test_picture_and_id_together_are_refused(client: FlaskClient) -> None:
    response = upload(client, picture(0), id=IDS[0])
    assert response.status_code == 400
    assert "Both" in error_of(response)["message"]


def test_more_than_twenty_megabytes_are_refused(client: FlaskClient) -> None:
    response = upload(client, b"\xff\xd8\xff" + bytes(MAX_UPLOAD))
    assert response.status_code == 413
    assert "20 MB" in error_of(response)["message"]
    page = upload(client, b"\xff\xd8\xff" + bytes(MAX_UPLOAD), headers=PAGE)
    assert page.status_code == 413
    assert "20 MB" in page.text
    assert 'type="file"' in page.text


def test_more_than_twenty_megabytes_are_refused_in_words_by_the_server(searcher: Searcher) -> None:
    with served(searcher) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        body, kind = multipart(bytes(MAX_UPLOAD + 1), "photo.png")
        connection.request("POST", "/search", body, {"Content-Type": kind, **JSON})
        response = connection.getresponse()
        assert response.status == 413
        assert "20 MB" in json.loads(response.read())["error"]["message"]
        connection.close()


@pytest.mark.parametrize("k", ["0", "101", "-1", "ten", "1.5", "", "9" * 5000])
def test_an_impossible_number_of_results_is_refused(client: FlaskClient, k: str) -> None:
    response = upload(client, picture(0), k=k)
    assert response.status_code == 400
    assert "from 1 to 100" in error_of(response)["hint"]


def test_the_largest_number_of_results_is_accepted(client: FlaskClient) -> None:
    assert len(upload(client, picture(0), k=100).json["hits"]) == len(NAMES)


def test_an_unknown_field_in_a_filter_is_refused_with_a_hint(client: FlaskClient) -> None:
    response = upload(client, picture(0), where="lable=warm")
    assert response.status_code == 400
    error = error_of(response)
    assert "lable" in error["message"]
    assert "label" in error["hint"]
    page = upload(client, picture(0), where="lable=warm", headers=PAGE)
    assert page.status_code == 400
    assert 'value="lable=warm"' in page.text  # kept, to be put right


@pytest.mark.parametrize("path", ["/search?id=", "/thumb/", "/image/"])
def test_an_unknown_id_is_not_found(client: FlaskClient, path: str) -> None:
    for record_id in ("pictures/none.png", "none", "pictures/warm", "pictures/warm/a b.png"):
        response = client.get(path + quote(record_id, safe="/"), headers=JSON)
        assert response.status_code == 404
        assert record_id in error_of(response)["message"]
        page = client.get(path + quote(record_id, safe="/"), headers=PAGE)
        assert page.status_code == 404
        assert "no picture" in page.text


@pytest.mark.parametrize("headers", [JSON, PAGE], ids=["json", "page"])
def test_unknown_addresses_and_methods_are_answered_in_words(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("GET", "/static/none.css", 404),
        ("PUT", "/search", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "/search", 405),
        ("POST", "/", 405),
        ("POST", "/image/" + IDS[0], 405),
    ]:
        response = client.open(path, method=method, headers=headers)
        assert response.status_code == status, (method, path)
        if headers is JSON:
            assert error_of(response)["message"]
        else:
            assert "<h1>" in response.text
            assert "wordmark" in response.text


class Failing(Searcher):
    """A searcher whose every search raises `error`."""

    error: Exception

    def search(self, *_: Any, **__: Any) -> list[Hit]:
        raise self.error


@pytest.fixture
def failing(searcher: Searcher) -> Failing:
    return Failing(searcher.index, Grid())


@pytest.mark.parametrize("headers", [JSON, PAGE], ids=["json", "page"])
def test_a_fault_of_the_program_shows_no_traceback_but_is_logged(
    failing: Failing, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    failing.error = ZeroDivisionError("the secret of /home/anneliese")
    response = upload(create_app(failing).test_client(), picture(0), headers=headers)
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "Traceback" not in response.text
    assert "anneliese" not in response.text
    assert "the secret of /home/anneliese" in caplog.text
    assert "nosniff" in response.headers["X-Content-Type-Options"]


def test_an_index_that_fails_is_a_503_that_names_no_place(
    failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    failing.error = IndexStateError(
        "/home/anneliese/photos.cbir is damaged", "cbir verify --repair"
    )
    response = upload(create_app(failing).test_client(), picture(0))
    assert response.status_code == 503
    assert "anneliese" not in response.text
    assert "/home/anneliese/photos.cbir is damaged" in caplog.text


# Pictures


@pytest.mark.parametrize("name", NAMES)
def test_every_original_is_the_files_own_bytes(client: FlaskClient, name: str) -> None:
    seed = NAMES.index(name)
    kind = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[name[-3:]]
    response = client.get("/image/" + quote(IDS[seed], safe="/"))
    assert response.data == picture(seed, 400 if "large" in name else 32, kind)
    assert response.mimetype == f"image/{kind.lower()}"
    shown = response.headers["Content-Disposition"]
    assert shown.startswith("attachment" if kind == "TIFF" else "inline")
    assert shown.endswith("filename*=UTF-8''" + quote(name.split("/")[1], safe=""))
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("kind", ["thumb", "image"])
def test_pictures_are_kept_by_the_browser(client: FlaskClient, kind: str) -> None:
    address = f"/{kind}/{quote(IDS[0])}"
    first = client.get(address)
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(address, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.data) == (200, first.data)
    page = upload(client, picture(0), headers=PAGE).text
    versioned = next(a for a in addresses(page, r'"(/[^"]*)"') if a.startswith(address + "?v="))
    assert "immutable" in client.get(versioned).headers["Cache-Control"]
    # An old version's address must not make the new bytes stay.
    assert "immutable" not in client.get(address + "?v=0123").headers["Cache-Control"]
    assert client.head(address).status_code == 200


@pytest.mark.parametrize("reason", ["changed", "unconfirmed"])
def test_an_original_that_is_not_the_indexed_picture_is_not_served(
    own: Searcher, tmp_path: Path, reason: str
) -> None:
    if reason == "changed":
        shutil.copy(tmp_path / "pictures" / "cold" / "print.tif", tmp_path / LARGE)
        said = "has changed since it was indexed"
    else:  # as if the index came from elsewhere
        (cbir_home() / "sources.json").unlink()
        said = "is not opened: its source is not confirmed on this server"
    client = create_app(own).test_client()
    page = client.get(f"/image/{LARGE}", headers=PAGE)
    assert page.status_code == 404
    assert f"The original {said.partition(':')[0].partition(' since')[0]}" in page.text
    (thumb,) = addresses(page.text, r'src="(/thumb/[^"]*)"')
    assert client.get(thumb).status_code == 200
    for response in (
        client.get(f"/image/{LARGE}", headers=JSON),
        client.get("/search", query_string={"id": LARGE, "verify": 1}, headers=JSON),
    ):
        assert response.status_code == 404
        assert error_of(response)["message"] == f"The original of {LARGE} {said}"
        assert str(tmp_path) not in page.text + response.text
    known = client.get("/why", query_string={"id": LARGE, "target": LARGE}).json
    assert known is not None and known["picture"]["file"] == reason


def test_an_original_that_is_gone_shows_its_thumbnail(own: Searcher, tmp_path: Path) -> None:
    (tmp_path / LARGE).unlink()
    client = create_app(own).test_client()
    page = client.get(f"/image/{LARGE}", headers=PAGE)
    assert page.status_code == 404
    assert "The original is gone" in page.text
    (thumb,) = addresses(page.text, r'src="(/thumb/[^"]*)"')
    assert client.get(thumb).status_code == 200
    response = client.get(f"/image/{LARGE}", headers=JSON)
    assert response.status_code == 404
    assert "gone" in error_of(response)["message"]
    assert str(tmp_path) not in page.text + response.text


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><script>alert(1)</script>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"",
    ],
)
def test_what_is_no_picture_any_more_is_not_passed_on(
    own: Searcher, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / LARGE).write_bytes(content)
    response = create_app(own).test_client().get(f"/image/{LARGE}")
    assert response.status_code == 404
    assert content == b"" or content not in response.data


def test_an_original_without_a_file_is_a_png_of_its_pixels(searcher: Searcher) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    class PixelsOnly(Searcher):
        def original(self, record_id: str) -> bytes | RgbImage:
            assert record_id == IDS[0]
            return pixels

    client = create_app(PixelsOnly(searcher.index, Grid())).test_client()
    response = client.get(f"/image/{IDS[0]}")
    assert response.mimetype == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(response.data))), pixels)


OUTSIDE = [
    "../secret.txt",
    "pictures/../secret.txt",
    "pictures/../../secret.txt",
    "%2e%2e/secret.txt",
    "pictures/%2e%2e%2fsecret.txt",
    "pictures/..%2fsecret.txt",
    "pictures/..%5csecret.txt",
    "pictures/%252e%252e/secret.txt",
    "pictures/warm/red.png%00.txt",
    "pictures/warm/../../../secret.txt",
    "{secret}",
    "/{secret}",
    "file://{secret}",
    "pictures/{secret}",
]


@pytest.mark.parametrize("room", ["thumb", "image", "static", "search?id="])
def test_nothing_outside_the_collection_can_be_read(own: Searcher, room: str) -> None:
    folder = Path(own.index.url).parent
    for secret in (folder / "secret.txt", folder.parent / "secret.txt"):
        secret.write_text("the secret")
    with served(own) as address:
        for path in OUTSIDE:
            connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
            joint = "" if room.endswith("=") else "/"
            target = f"/{room}{joint}{path.format(secret=folder / 'secret.txt')}"
            connection.request("GET", target, headers=JSON)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 404, target
            assert b"the secret" not in body
            connection.close()


# The index


def test_the_first_page_tells_what_is_searched(client: FlaskClient, searcher: Searcher) -> None:
    page = client.get("/").text
    assert "pictures.cbir" in page
    assert f"<dd>{len(NAMES)}</dd>" in page
    assert searcher.index.spec.short in page
    assert str(Path(searcher.index.url).parent) not in page


def test_the_first_page_offers_pictures_that_can_be_searched_with(client: FlaskClient) -> None:
    page = client.get("/").text
    offered = addresses(page, r'href="(/search\?id=[^"]*)"')
    assert len(set(offered)) == 12
    assert client.get("/").text == page
    for address in offered:
        assert client.get(address).status_code == 200
    (others,) = addresses(page, r'href="(/\?draw=[^"]*)"')
    assert set(addresses(client.get(others).text, r'href="(/search\?id=[^"]*)"')) != set(offered)


def test_the_first_page_follows_an_index_that_changes(own: Searcher, tmp_path: Path) -> None:
    client = create_app(own).test_client()
    assert "<dd>13</dd>" in client.get("/").text
    for name in NAMES[:6]:
        (tmp_path / "pictures" / name).unlink()
    index_images([str(tmp_path / "pictures")], own.index.url, descriptor=Grid(), prune=True)
    page = client.get("/").text
    assert "<dd>7</dd>" in page
    offered = addresses(page, r'href="/search\?id=([^"]*)"')
    assert sorted(unquote(found) for found in offered) == sorted(IDS[6:])


def test_an_empty_index_says_how_to_fill_it(tmp_path: Path) -> None:
    create_index(str(tmp_path / "new.cbir"), Grid().spec, {}).close()
    searcher = open_searcher(str(tmp_path / "new.cbir"))
    client = create_app(searcher).test_client()
    page = client.get("/").text
    assert "This index is empty" in page
    assert "--into new.cbir" in page
    assert "contains no other picture" in upload(client, picture(0), headers=PAGE).text
    searcher.close()


def test_health_and_info_are_json_without_places(client: FlaskClient, searcher: Searcher) -> None:
    health = client.get("/healthz").json
    assert health == {"status": "ok", "count": 13, "descriptor": searcher.index.spec.short}
    response = client.get("/info")
    assert response.json is not None
    assert response.json["count"] == 13
    assert response.json["dim"] == 48
    assert response.json["descriptor"]["name"] == "grid"
    assert response.json["sources"] == ["pictures"]
    assert str(Path(searcher.index.url).parent) not in response.text


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """An index whose pictures have a position."""
    folder = tmp_path_factory.mktemp("placed")
    facts = folder / "facts.csv"
    facts.write_text("path,latitude,longitude,city\nwarm/red.png,47.0,8.5,Bern\n")
    place = build_index(folder)
    index_images([folder / "pictures"], place, descriptor=Grid(), metadata=facts)
    opened = open_searcher(place)
    yield opened
    opened.close()


AWAY: list[tuple[bool, str, dict[str, str]]] = [
    (False, "127.0.0.1", {}),
    (True, "192.168.1.7", {}),
    (True, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
    (True, "127.0.0.1", {"Host": "photos.example.org"}),
]


def _told(searcher: Searcher, on_loopback: bool, address: str, headers: dict[str, str]) -> Any:
    """The metadata of the first hit, the fields of the index, and a filter's status."""
    client = create_app(searcher, on_loopback=on_loopback).test_client()
    asked: dict[str, Any] = {
        "headers": {**JSON, **headers},
        "environ_overrides": {"REMOTE_ADDR": address},
    }
    hits = client.get("/search?id=pictures/warm/orange.png&where=city=Bern", **asked).json["hits"]
    fields = {field["name"] for field in client.get("/info", **asked).json["fields"]}
    filtered = client.get("/search?id=pictures/warm/orange.png&where=latitude>47", **asked)
    return hits[0]["metadata"], fields, filtered.status_code


@pytest.mark.parametrize(("on_loopback", "address", "headers"), AWAY)
def test_positions_do_not_leave_this_machine(
    placed: Searcher, on_loopback: bool, address: str, headers: dict[str, str]
) -> None:
    metadata, fields, status = _told(placed, on_loopback, address, headers)
    assert (metadata, status) == ({"city": "Bern"}, 400)
    assert {"city", "label"} <= fields
    assert not {"latitude", "longitude"} & fields


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_positions_are_shown_on_this_machine(placed: Searcher, address: str) -> None:
    metadata, fields, status = _told(placed, True, address, {})
    assert (metadata, status) == ({"city": "Bern", "latitude": 47.0, "longitude": 8.5}, 200)
    assert {"latitude", "longitude"} <= fields


# Safety of the pages


def test_every_answer_carries_its_headers_and_no_cookie(client: FlaskClient) -> None:
    answers = [
        client.get("/"),
        client.get("/healthz"),
        client.get("/static/style.css"),
        client.get("/nothing"),
        client.get(f"/thumb/{IDS[0]}"),
        upload(client, picture(0), headers=PAGE),
        upload(client, b"text", headers=PAGE),
    ]
    for response in answers:
        response.close()  # a static file stays open until its answer is
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert "Set-Cookie" not in response.headers


def test_pages_need_no_inline_code_and_no_other_host(client: FlaskClient) -> None:
    for page in (client.get("/").text, upload(client, picture(0), headers=PAGE).text):
        assert not re.search(r"\sstyle=|<style|\son\w+=", page)
        assert re.findall(r"<script(.*?)>(.*?)</script>", page) == [(' src="/static/page.js"', "")]
        assert not re.search(r'(src|href|action)="(?!/|data:|#)', page)


def test_names_that_look_like_code_are_shown_as_text(client: FlaskClient) -> None:
    page = upload(client, picture(10), "<script>alert(1)</script>.png", headers=PAGE, k=13).text
    assert "<script>alert" not in page
    assert "script&gt;.png" in page
    assert "<b>" not in page


def test_a_path_in_an_uploads_name_is_dropped(client: FlaskClient) -> None:
    assert upload(client, picture(0), "../../etc/me.png").json["query"] == "me.png"


# The server


def post(address: str, data: bytes, name: str, **fields: str) -> bytes:
    body, kind = multipart(data, name, **fields)
    request = Request(f"{address}search", body, {"Content-Type": kind, **JSON})
    with urlopen(request, timeout=60) as response:
        answer: bytes = response.read()
    return answer


def test_a_port_in_use_is_one_line_with_a_hint(searcher: Searcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CbirError) as caught:
            listen(searcher, "127.0.0.1", port)
    assert str(port) in caught.value.message
    assert "--port" in caught.value.hint


def test_a_host_that_is_not_this_machine_is_refused(searcher: Searcher) -> None:
    with pytest.raises(CbirError, match=r"cannot listen on 192\.0\.2\.1"):
        listen(searcher, "192.0.2.1", 0)


def test_serve_tells_when_the_page_can_be_opened(searcher: Searcher) -> None:
    told: list[str] = []
    opened = threading.Event()

    def ready(address: str) -> None:
        told.append(address)
        opened.set()

    threading.Thread(target=serve, args=(searcher, "127.0.0.1", 0, ready), daemon=True).start()
    assert opened.wait(30)
    with urlopen(f"{told[0]}healthz", timeout=30) as response:
        assert json.loads(response.read())["count"] == len(NAMES)
        assert "Server" not in response.headers
