"""Who may use the page: host names, the token, pages of other sites."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from cbir.errors import CbirError
from cbir.search.searcher import Searcher
from cbir.web.access import Access, access_to
from cbir.web.app import create_app
from tests.web.support_web import LARGE, build_index, open_searcher, served

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html"}
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path_factory.mktemp("access")))
    yield opened
    opened.close()


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher, access=Access(token=TOKEN)).test_client()


def status(client: FlaskClient, host: str) -> int:
    return client.get("/healthz", headers={"Host": host}).status_code


# Host names


@pytest.mark.parametrize(
    ("host", "names", "known", "unknown"),
    [
        ("127.0.0.1", (), ["localhost", "127.0.0.1:5000", "[::1]:80", "LOCALHOST"],
         ["evil.example", "evil.example:5000", "192.168.1.7", "localhost.evil.example"]),
        ("127.0.0.1", ("Photos.example.org",), ["photos.example.org", "localhost"],
         ["example.org", "a.photos.example.org"]),
        ("192.168.1.7", (), ["192.168.1.7:5000", "localhost"], ["192.168.1.8", "evil.example"]),
        ("2001:0DB8::0001", ("[FE80::0:1]",), ["[2001:db8::1]:5000", "[fe80::1]"],
         ["[2001:db8::2]"]),
        ("0.0.0.0", (), ["192.168.1.7:5000", "[fe80::1]"], ["evil.example", "myhost"]),
        ("::", (), ["192.168.1.7:5000", "[fe80::1]"], ["evil.example"]),
    ],
)  # fmt: skip
def test_only_known_names_are_answered(
    searcher: Searcher, host: str, names: tuple[str, ...], known: list[str], unknown: list[str]
) -> None:
    client = create_app(searcher, access=access_to(host, names)).test_client()
    assert {name: status(client, name) for name in known} == dict.fromkeys(known, 200)
    assert {name: status(client, name) for name in unknown} == dict.fromkeys(unknown, 421)


def test_the_refusal_names_the_option(searcher: Searcher) -> None:
    client = create_app(searcher, access=access_to("127.0.0.1")).test_client()
    refused = client.get("/", headers={"Host": "photos.example.org:80"})
    assert refused.text == (
        "This server does not answer to the name 'photos.example.org'; "
        "cbir serve --allow-host photos.example.org allows it.\n"
    )
    assert refused.mimetype == "text/plain"


@pytest.mark.parametrize(
    "host",
    ["", "a" * 300, "a b", "[::1", "[", "x]", "a:b", "localhost:123456", "ä.example", "a,b", "u@h"],
)
def test_what_is_no_host_name_is_a_wrong_request(searcher: Searcher, host: str) -> None:
    for access in (Access(), access_to("127.0.0.1")):
        app = create_app(searcher, access=access)
        environ = {"HTTP_HOST": host}
        refused = app.test_client().get("/", environ_overrides=environ)
        assert refused.status_code == 400
        assert host == "" or host not in refused.text


def test_the_listening_server_refuses_other_names(searcher: Searcher) -> None:
    with served(searcher) as address:
        place = urlsplit(address).netloc
        answers = []
        for host in (place, "evil.example", "x" * 60_000, "\xff"):
            connection = http.client.HTTPConnection(place, timeout=30)
            connection.putrequest("GET", "/search?id=x", skip_host=True)
            connection.putheader("Host", host.encode("latin-1"))
            connection.endheaders()
            answers.append(connection.getresponse().status)
            connection.close()
        assert answers == [404, 421, 400, 400]


# The token


def test_only_who_knows_the_token_gets_an_answer(client: FlaskClient) -> None:
    places = ["/", "/search?text=x", "/info", f"/thumb/{LARGE}", f"/image/{LARGE}", "/why", "/none"]
    for place in places:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer ÿ"},
            {"Cookie": "cbir-00000000=x"},
        ):
            refused = client.get(place, headers=headers | PAGE)
            assert refused.status_code == 401, (place, headers)
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert "pictures.cbir" not in refused.text
            assert "cold" not in refused.text
        assert client.get(f"{place}{'&' if '?' in place else '?'}token=wrong").status_code == 401
        allowed = client.get(place, headers={"Authorization": f"Bearer {TOKEN}"} | JSON)
        assert allowed.status_code != 401, place
    assert client.post("/search", data={"id": LARGE}, headers=JSON).status_code == 401
    assert client.post(f"/search?token={TOKEN}", data={"id": LARGE}).status_code == 401


def test_health_and_styles_need_no_token(client: FlaskClient) -> None:
    assert client.get("/healthz").status_code == 200
    with client.get("/static/style.css") as style:
        assert style.status_code == 200


def test_the_link_becomes_a_cookie(client: FlaskClient) -> None:
    opened = client.get(f"/search?id={LARGE}&token={TOKEN}&where=label%3Dcold")
    assert opened.status_code == 303
    assert opened.location == f"/search?id={LARGE.replace('/', '%2F')}&where=label%3Dcold"
    assert TOKEN not in opened.text + opened.location
    assert opened.headers["Cache-Control"] == "no-store"
    cookie = opened.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(re.split("; ?", cookie))
    assert client.get(opened.location, headers=PAGE).status_code == 200
    assert client.post("/search", data={"id": LARGE}, headers=PAGE).status_code == 200
    assert 'Authorization: Bearer TOKEN' in client.get("/").text  # fmt: skip


def test_the_link_leads_to_no_other_server(client: FlaskClient) -> None:
    for path in ("//evil.example/", "/%5Cevil.example", "///evil.example"):
        opened = client.get(f"{path}?token={TOKEN}", base_url="http://localhost")
        assert urlsplit(opened.location).netloc == "", path
        assert not opened.location.startswith(("//", "/\\"))


def test_without_a_token_no_cookie_is_set(searcher: Searcher) -> None:
    answer = create_app(searcher).test_client().get("/?token=x")
    assert (answer.status_code, answer.headers.get("Set-Cookie")) == (200, None)
    assert "Bearer" not in answer.text


def test_only_other_machines_need_a_token_by_default() -> None:
    assert access_to("127.0.0.1").token == access_to("localhost").token == ""
    made = [access_to("0.0.0.0").token, access_to("192.168.1.7").token]
    assert len(set(made)) == 2
    assert all(len(token) >= 32 for token in made)
    assert access_to("0.0.0.0", without_token=True).token == ""
    assert access_to("127.0.0.1", token=TOKEN).token == TOKEN
    assert access_to("0.0.0.0", token=TOKEN).link("http://h/") == f"http://h/?token={TOKEN}"
    assert access_to("127.0.0.1").link("http://h/") == "http://h/"


@pytest.mark.parametrize("token", ["", "short", "a token with spaces", "t" * 16 + "\n", "ä" * 20])
def test_a_token_that_can_be_guessed_or_sent_by_no_header_is_refused(token: str) -> None:
    with pytest.raises(CbirError, match="token"):
        access_to("0.0.0.0", token=token)


# Pages of other sites


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", {"Origin": "http://localhost:5000"}, 200),
        ("POST", {"Origin": "https://localhost:5000"}, 200),  # a proxy adds TLS
        ("POST", {"Origin": "https://photos.example.org"}, 200),  # named with --allow-host
        ("POST", {"Origin": "http://localhost:3000"}, 403),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "http://localhost:5000.evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "http://["}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
                 "Sec-Fetch-Dest": "iframe"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
                 "Sec-Fetch-Dest": "document"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}, 200),
        ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)  # fmt: skip
def test_other_sites_may_only_link_here(
    searcher: Searcher, method: str, headers: dict[str, str], expected: int
) -> None:
    access = access_to("127.0.0.1", ["photos.example.org"])
    client = create_app(searcher, access=access).test_client()
    asked = {"Host": "localhost:5000", **headers, **JSON}
    answer = client.open(f"/search?id={LARGE}&k=1", method=method, headers=asked)
    assert answer.status_code == expected
    assert "Access-Control-Allow-Origin" not in answer.headers
