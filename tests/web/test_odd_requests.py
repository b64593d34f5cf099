"""Requests that nobody sends by accident: refused in words, never a fault of the server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import quote, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient

from cbir.search.searcher import Searcher
from cbir.web.app import create_app
from tests.web.support_web import LARGE, build_index, open_searcher, served

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html"}
QUERY = f"/search?id={LARGE}"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path_factory.mktemp("odd")))
    yield opened
    opened.close()


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher).test_client()


ODD = {
    "filters": QUERY + "&where=label%3Dcold" * 5000,
    "values": QUERY + "&where=label%3D" + "a," * 20_000,
    "negated": QUERY + "&where=label!%3Dx" * 101,
    "digits": QUERY + "&k=" + "9" * 5000,
    "negative": QUERY + "&k=-" + "9" * 5000,
    "exponent": QUERY + "&k=1e2",
    "other digits": QUERY + "&k=" + quote("²"),
    "region": QUERY + "&region=" + "0," * 10_000,
    "infinite": QUERY + "&region=nan,nan,inf,inf",
    "weight": QUERY + "&text_weight=nan",
    "switch": QUERY + "&verify=%00",
    "invalid number": QUERY + "&where=width%3E%FF",
    "two queries": QUERY + "&upload=" + "x" * 10_000,
}


@pytest.mark.parametrize("headers", [JSON, PAGE], ids=["json", "page"])
@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_a_wrong_request(
    client: FlaskClient, name: str, headers: dict[str, str]
) -> None:
    refused = client.get(ODD[name], headers=headers)
    assert refused.status_code == 400, refused.text[:300]
    if headers is JSON:
        assert refused.json is not None and refused.json["error"]["message"]
        assert len(refused.data) < 1000


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/thumb/%FF%FE", 404),
        ("/image/%ED%A0%80", 404),
        ("/image/%00", 404),
        ("/search?id=%FF", 404),
        ("/search?id=%ED%A0%80", 404),
        ("/search?id=" + "a/" * 20_000, 404),
        ("/thumb/" + "a/" * 20_000, 404),
        (QUERY + "&where=label%3D%FF%ED%A0%80%00", 200),
        (QUERY + "&where=width%3E" + "9" * 5000, 200),
        (QUERY + "&%FF=%FF&a[b][c]=d&" + "x=1&" * 10_000, 200),
        ("/?draw=" + "9" * 5000, 200),
        ("/?draw=-1", 200),
        ("/%FF", 404),
        ("/search?id=x&target=%FF", 404),
        (f"/why?id={LARGE}&target=%ED%A0%80", 200),
    ],
)
def test_invalid_text_is_found_nowhere(client: FlaskClient, path: str, status: int) -> None:
    for headers in (JSON, PAGE):
        assert client.get(path, headers=headers).status_code == status


def test_invalid_text_in_a_form_is_found_nowhere(client: FlaskClient) -> None:
    def form(name: bytes, value: bytes) -> bytes:
        head = b'--e\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n'
        return head + value + b"\r\n"

    body = form(b"id", LARGE.encode()) + form(b"where", b"label=\xff\xed\xa0\x80") + b"--e--\r\n"
    kind = "multipart/form-data; boundary=e"
    assert client.post("/search", data=body, content_type=kind, headers=JSON).status_code == 200
    for wrong in (b"", b"--e", form(b"\xff", b"x"), b"\xff" * 1000, b"--e\r\n" * 500):
        answer = client.post("/search", data=wrong, content_type=kind, headers=JSON)
        assert answer.status_code == 400
    for other in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "a/b",
        "\xff",
        "x" * 900,
    ):
        answer = client.post("/search", data=body, content_type=other, headers=JSON)
        assert answer.status_code == 400, other


def test_the_server_refuses_what_is_no_request(searcher: Searcher) -> None:
    with served(searcher) as address:
        place = urlsplit(address)
        for path, expected in [
            ("/search?" + urlencode([("where", "label=cold")] * 10_000), 431),
            (QUERY + "&where=label%3Dcold" * 2000, 400),
            ("/thumb/\xff", 400),
        ]:
            connection = http.client.HTTPConnection(place.netloc, timeout=30)
            connection.putrequest("GET", "/", skip_host=True)
            connection._buffer[0] = f"GET {path} HTTP/1.1".encode("latin-1")  # type: ignore[attr-defined]
            connection.putheader("Host", place.netloc)
            connection.putheader("Accept", "application/json")
            connection.endheaders()
            assert connection.getresponse().status == expected, path[:60]
            connection.close()
