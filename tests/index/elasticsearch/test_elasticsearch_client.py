"""How the client of Elasticsearch behaves before a server that answers as it is told to."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from cbir.errors import CbirError, IndexStateError, how_to_install
from cbir.index.elasticsearch import bodies, bulk
from cbir.index.elasticsearch import client as elastic_client
from cbir.index.elasticsearch.address import Options, parse
from cbir.index.elasticsearch.answers import Plan, search
from cbir.index.elasticsearch.client import Client
from cbir.index.elasticsearch.requests import Requests
from cbir.index.open import open_index
from cbir.testing import sample_entries
from tests.cli.support_cli import call
from tests.index.embedded.support_index import SPEC

pytest.importorskip("elasticsearch", reason="the 'elasticsearch' extra is not installed")

Reply = tuple[int, Any]
BUSY: Reply = (429, {"error": {"type": "es_rejected_execution_exception", "reason": "full"}})
VERSION: Reply = (200, {"nodes": {"x": {"version": "9.2.1"}}})
SECRET = "s3cret-s3cret"


class Scripted:
    """A server with a list of replies; it keeps what it was asked."""

    def __init__(self, port: int = 0) -> None:
        self.replies: list[Reply] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.product = "Elasticsearch"
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.asked.append((self.command, self.path, headers, body))
                status, said = script.replies.pop(0) if script.replies else (500, {})
                data = json.dumps(said).encode()
                self.send_response(status)
                if script.product:
                    self.send_header("X-Elastic-Product", script.product)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"elasticsearch://127.0.0.1:{self._server.server_port}/photos"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.stop()


@pytest.fixture
def client(server: Scripted) -> Iterator[Client]:
    with closing(Client(parse(server.url))) as made:
        yield made


def test_what_is_sent_asks_for_the_compatible_form(server: Scripted, client: Client) -> None:
    # elastic.co/docs/reference/elasticsearch/rest-apis/compatibility: 9.x answers as 8.x did.
    server.replies = [(200, {"count": 1}), (200, {"errors": False})]
    client.request("POST", "/photos/_count", {"query": bodies.RECORDS})
    client.request("POST", "/photos/_bulk", b'{"delete":{"_id":"a"}}\n')
    (_, _, first, body), (_, _, second, lines) = server.asked
    json_form = "application/vnd.elasticsearch+json; compatible-with=8"
    assert (first["accept"], first["content-type"]) == (json_form, json_form)
    assert second["content-type"] == "application/vnd.elasticsearch+x-ndjson; compatible-with=8"
    assert json.loads(body) == {"query": {"exists": {"field": "id"}}}
    assert lines == b'{"delete":{"_id":"a"}}\n'
    assert "authorization" not in first


def test_vectors_are_sent_with_no_more_digits_than_they_have(
    server: Scripted, client: Client
) -> None:
    (entry,) = sample_entries(1)
    server.replies = [(200, {"hits": {"hits": []}})]
    plan = Plan(("vector",), "flat", Options())
    search(Requests(client, "photos").searches, plan, entry.vectors, 5, None)
    (_, path, _, body) = server.asked[0]
    assert path == "/photos/_search?allow_partial_search_results=false"
    sent = json.loads(body)["knn"]["query_vector"]
    assert [str(number) for number in sent] == [str(number) for number in entry.vectors[0]]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"API_KEY": SECRET}, f"ApiKey {SECRET}"),
        (
            {"USER": "me", "PASSWORD": SECRET},
            f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}",
        ),
    ],
)
def test_credentials_come_from_the_environment_and_are_never_shown(
    variables: dict[str, str],
    expected: str,
    server: Scripted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CBIR_ELASTICSEARCH_{name}", value)
    server.replies = [(401, {"error": {"type": "security_exception", "reason": "no"}})]
    answer = call("info", server.url, "--debug")
    assert "rejects the credentials" in answer.err
    assert SECRET not in answer.out + answer.err
    assert expected.split()[1] not in answer.out + answer.err
    assert server.asked[0][2]["authorization"] == expected


def test_half_of_the_credentials_is_an_error(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CBIR_ELASTICSEARCH_PASSWORD", SECRET)
    message, hint = call("info", server.url).error
    assert message == "CBIR_ELASTICSEARCH_PASSWORD is set, but not CBIR_ELASTICSEARCH_USER"
    assert hint == "set both, or neither"


def test_a_busy_server_is_asked_again(server: Scripted, client: Client) -> None:
    server.replies = [BUSY, (503, {"error": "not now"}), (200, {"count": 7})]
    assert client.request("POST", "/photos/_count")["count"] == 7
    assert len(server.asked) == 3


def test_patience_has_an_end(server: Scripted, client: Client) -> None:
    server.replies = [BUSY] * 50
    with pytest.raises(IndexStateError, match="is temporarily unavailable: full"):
        client.request("POST", "/photos/_count", patience=0.3)
    assert 2 < len(server.asked) < 50


def test_what_does_not_pass_is_not_asked_again(server: Scripted, client: Client) -> None:
    server.replies = [(400, {"error": {"type": "parsing_exception", "reason": "what?"}})]
    with pytest.raises(IndexStateError, match="the server returned 400: what\\?"):
        client.request("POST", "/photos/_count")
    assert len(server.asked) == 1


def test_a_server_that_is_away_is_named_and_another_is_asked(server: Scripted) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    here = server.url.removeprefix("elasticsearch://").partition("/")[0]
    server.replies = [(200, {"count": number}) for number in range(8)]
    with closing(Client(parse(f"elasticsearch://127.0.0.1:{port},{here}/photos"))) as client:
        found = [client.request("POST", "/photos/_count")["count"] for _ in range(8)]
    assert found == list(range(8))
    message, _ = call("info", f"elasticsearch://127.0.0.1:{port}/photos").error
    assert message == f"127.0.0.1:{port} cannot be reached: Connection refused"


def test_a_server_that_comes_back_is_found_again() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    url = f"elasticsearch://127.0.0.1:{port}/photos"
    with closing(Client(parse(url))) as client, ThreadPoolExecutor(1) as pool:
        count = pool.submit(client.request, "POST", "/photos/_count")
        time.sleep(0.5)  # it has been refused a few times by now
        assert not count.done()
        back = Scripted(port)
        try:
            back.replies = [(200, {"count": 7})]
            assert count.result(timeout=20) == {"count": 7}
        finally:
            back.stop()


def test_something_else_that_answers_is_told_from_elasticsearch(server: Scripted) -> None:
    server.product = "OpenSomething"
    server.replies = [VERSION]
    with pytest.raises(CbirError, match="is not Elasticsearch"):
        open_index(server.url)


@pytest.mark.parametrize("closing_slash", ["", "/"])
def test_every_request_goes_below_the_path_prefix(server: Scripted, closing_slash: str) -> None:
    url = server.url.replace("/photos", "/behind/a-proxy/photos")
    server.replies = [VERSION, (200, described()), (200, {"count": 7})]
    with closing(open_index(url + closing_slash)) as index:
        assert index.count() == 7
        assert index.url == url
    paths = [path for _, path, _, _ in server.asked]
    assert len(paths) == 3
    assert all(path.startswith("/behind/a-proxy/") for path in paths)
    assert paths[1].startswith("/behind/a-proxy/photos?")


def test_messages_and_hints_name_the_address_with_its_prefix(server: Scripted) -> None:
    url = server.url.replace("/photos", "/behind/photos")
    missing = {"error": {"type": "index_not_found_exception", "reason": "no such index"}}
    server.replies = [VERSION, (404, missing)]
    message, hint = call("info", f"{url}/?type=flat").error
    assert message == f"no index at {url}"
    assert hint == f"cbir index FOLDER --into '{url}'"


def test_a_wrong_prefix_is_told_from_a_missing_index(server: Scripted) -> None:
    server.product = ""
    server.replies = [(404, "<html>404 Not Found</html>")]
    message, hint = call("info", server.url.replace("/photos", "/wrong/photos")).error
    host = server.url.removeprefix("elasticsearch://").removesuffix("/photos")
    assert message == f"{host}/wrong is not Elasticsearch"
    assert "the path before the index name" in hint


def test_a_server_that_is_too_old_is_refused(server: Scripted) -> None:
    server.replies = [(200, {"nodes": {"x": {"version": "8.18.4"}}})]
    with pytest.raises(IndexStateError, match=r"is Elasticsearch 8\.18\.4"):
        open_index(server.url)


def test_credentials_without_the_right_to_ask_for_the_version_are_enough(
    server: Scripted,
) -> None:
    server.replies = [(403, {"error": {"reason": "no"}}), (200, described())]
    with closing(open_index(server.url)) as index:
        assert index.spec == SPEC


def described(**changes: Any) -> dict[str, Any]:
    mappings = bodies.mappings(SPEC, "flat")
    mappings["_meta"]["cbir"].update(changes)
    return {"photos-000001": {"mappings": mappings}}


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"photos": {"mappings": {"properties": {}}}}, "was not created by cbir"),
        (described(schema=bodies.SCHEMA + 1), f"has schema {bodies.SCHEMA + 1}"),
        ({**described(), "photos-000009": {}}, "names 2 indices"),
    ],
)
def test_an_index_of_others_or_of_a_newer_schema_is_refused(
    answer: dict[str, Any], complaint: str, server: Scripted
) -> None:
    server.replies = [VERSION, (200, answer)]
    with pytest.raises(IndexStateError, match=complaint):
        open_index(server.url)


def bulk_reply(*items: tuple[int, str | None]) -> Reply:
    made = [
        {"index": {"status": status, **({"error": {"type": kind, "reason": kind}} if kind else {})}}
        for status, kind in items
    ]
    return 200, {"errors": any(kind for _, kind in items), "items": made}


def sent_ids(body: bytes) -> list[str]:
    return [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]


def bulk_actions(count: int) -> list[bulk.Action]:
    return [(f"a/{number}", {"id": f"a/{number}"}, None) for number in range(count)]


def test_only_what_was_not_taken_is_sent_again(server: Scripted, client: Client) -> None:
    busy, gone = (429, "es_rejected_execution_exception"), (503, "unavailable_shards_exception")
    server.replies = [bulk_reply((201, None), busy, gone), bulk_reply((201, None), (200, None))]
    outcome = bulk.send(Requests(client, "photos"), bulk_actions(3))
    assert (outcome.refused, outcome.conflicts) == ({}, [])
    assert [sent_ids(body) for *_, body in server.asked] == [
        ["a/0", "a/1", "a/2"],
        ["a/1", "a/2"],
    ]
    assert "require_alias=true" in server.asked[0][1]


def test_refused_documents_are_told_of_by_id(server: Scripted, client: Client) -> None:
    server.replies = [bulk_reply((201, None), (400, "mapper_parsing_exception"), (409, "version"))]
    outcome = bulk.send(Requests(client, "photos"), bulk_actions(3))
    assert outcome.refused == {"a/1": "mapper_parsing_exception"}
    assert outcome.conflicts == ["a/2"]


def test_a_full_disk_ends_the_load_with_one_line(server: Scripted, client: Client) -> None:
    reason = "[TOO_MANY_REQUESTS/12/flood-stage watermark, read-only-allow-delete block]"
    error = {"type": "cluster_block_exception", "reason": reason}
    item = {"index": {"status": 429, "error": error}}
    server.replies = [(200, {"errors": True, "items": [item]})]
    with pytest.raises(IndexStateError, match="is read-only"):
        bulk.send(Requests(client, "photos"), bulk_actions(1))
    assert len(server.asked) == 1


def test_a_load_is_sent_in_chunks(server: Scripted, client: Client) -> None:
    server.replies = [(200, {"errors": False})] * 3
    bulk.send(Requests(client, "photos"), bulk_actions(2500))
    assert [len(sent_ids(body)) for *_, body in server.asked] == [1000, 1000, 500]
    server.asked.clear()
    server.replies = [(200, {"errors": False})] * 3
    large = [(f"a/{n}", {"thumbnail": "x" * (5 << 20)}, None) for n in range(3)]
    bulk.send(Requests(client, "photos"), large)
    assert [len(sent_ids(body)) for *_, body in server.asked] == [1, 1, 1]


def test_of_a_batch_of_searches_only_the_failed_ones_are_asked_again(
    server: Scripted, client: Client
) -> None:
    one, two, three = ({"took": number} for number in (1, 2, 3))
    server.replies = [
        (200, {"responses": [one, {"status": 503, "error": {"reason": "later"}}, three]}),
        (200, {"responses": [two]}),
    ]
    assert Requests(client, "photos").searches([{"size": n} for n in range(3)]) == [one, two, three]
    assert len(server.asked[1][3].splitlines()) == 2


def test_importing_cbir_and_asking_for_help_loads_no_client() -> None:
    code = (
        "import sys, cbir, cbir.index.open, cbir.cli.main\n"
        "assert not {'elasticsearch', 'orjson', 'elastic_transport'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elasticsearch", None)
    message, hint = call("info", "elasticsearch://127.0.0.1:1/photos").error
    assert message == "an Elasticsearch index needs the 'elasticsearch' extra"
    assert hint == how_to_install("elasticsearch")


def test_pauses_grow_until_they_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr(elastic_client.time, "sleep", sleep)
    monkeypatch.setattr(elastic_client.time, "monotonic", lambda: now)
    pauses = elastic_client.Pauses(60)
    wait: Callable[[], bool] = pauses.wait
    while wait():
        pass
    assert slept[0] == 0
    assert max(slept) <= 5
    assert sum(slept) == pytest.approx(60)
    assert all(later <= 4 * max(earlier, 0.05) for earlier, later in pairwise(slept))
