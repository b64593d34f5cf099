"""Slow, greedy and vanishing clients of a real listening server, beside ordinary ones."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from cbir.ingest.indexing import index_images
from cbir.search.searcher import Searcher
from cbir.web import admission, connections, refusals
from tests.web.support_web import (
    LARGE,
    Grid,
    SlowSearcher,
    build_index,
    listening,
    noise,
    open_searcher,
    picture,
    served,
)

JSON = {"Accept": "application/json"}
KIND = "multipart/form-data; boundary=e"
VERIFY = (
    f"GET /search?verify=1&id={LARGE} HTTP/1.1\r\n"
    "Host: 127.0.0.1\r\nAccept: application/json\r\n\r\n"
)
HEAD = f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {KIND}\r\n".encode()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowSearcher]:
    opened = SlowSearcher(build_index(tmp_path), lambda query, _: LARGE in str(query))
    yield opened
    opened.go_on.set()
    opened.close()


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path_factory.mktemp("hostile")))
    yield opened
    opened.close()


def get(address: str, path: str, timeout: float = 10) -> Any:
    with urlopen(Request(address + path, headers=JSON), timeout=timeout) as answer:
        return json.loads(answer.read())


def search_by_upload(address: str, *, timeout: float = 10, client: str = "127.0.0.1") -> int:
    body = b'--e\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body += picture(3) + b"\r\n--e--\r\n"
    connection = http.client.HTTPConnection(
        urlsplit(address).netloc, timeout=timeout, source_address=(client, 0)
    )
    with closing(connection):
        connection.request("POST", "/search", body, {"Content-Type": KIND, **JSON})
        return len(json.loads(connection.getresponse().read())["hits"])


def status_of(address: str, path: str) -> tuple[int, str | None]:
    """The status of an answer, and when to come again."""
    try:
        get(address, path, 30)
    except HTTPError as refused:
        assert "error" in json.loads(refused.read())
        return refused.code, refused.headers["Retry-After"]
    return 200, None


@contextmanager
def asking(count: int, address: str, path: str) -> Iterator[list[Future[tuple[int, str | None]]]]:
    with ThreadPoolExecutor(count) as pool:
        yield [pool.submit(status_of, address, path) for _ in range(count)]


def connect(address: str) -> socket.socket:
    place = urlsplit(address)
    assert place.hostname and place.port
    return socket.create_connection((place.hostname, place.port), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


# Connections


def test_trickling_connections_and_unfinished_bodies_stop_nobody(searcher: Searcher) -> None:
    with served(searcher) as address, ExitStack() as stack:
        tricklers = [stack.enter_context(connect(address)) for _ in range(200)]
        for trickler in tricklers:
            trickler.sendall(b"GET / HT")
        for _ in range(20):
            unfinished = stack.enter_context(connect(address))
            unfinished.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(1000))
        assert get(address, "healthz")["status"] == "ok"
        assert search_by_upload(address) == 10
        assert len(get(address, "search?text=&id=" + LARGE)["hits"]) == 10


def test_a_client_beyond_its_connections_loses_its_slowest(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_A_CLIENT", 4)
    with served(searcher) as address, ExitStack() as stack:
        polite = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
        stack.callback(polite.close)
        polite.request("GET", "/healthz")
        polite.getresponse().read()
        strangers = []
        for _ in range(6):
            strangers.append(stack.enter_context(connect(address)))
            strangers[-1].sendall(b"GET / HT")
            time.sleep(0.02)
        assert [is_closed(one) for one in strangers] == [True] * 3 + [False] * 3
        polite.request("GET", "/healthz")
        assert polite.getresponse().status == 200


def refuse_some(server: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Get so many uploads refused that the next one waits for seconds."""
    monkeypatch.setattr(refusals, "AT_ONCE", 2)
    monkeypatch.setattr(refusals, "PER_SECOND", 0.1)
    asked = Request(f"{address}search", b"--e\r\n\r\n--e--\r\n", {"Content-Type": KIND, **JSON})
    for _ in range(3):
        with pytest.raises(HTTPError, match="400"):
            urlopen(asked, timeout=10)
    wait_until(lambda: server.refusals.seconds("127.0.0.1") > 0)  # counted after the answer


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback has one address")
def test_uploads_wait_after_refusals_and_nothing_else_does(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(searcher) as (server, address):
        refuse_some(server, address, monkeypatch)
        with pytest.raises(TimeoutError):
            search_by_upload(address, timeout=0.5)
        assert get(address, "healthz")["status"] == "ok"
        assert len(get(address, f"search?id={LARGE}")["hits"]) == 10
        assert search_by_upload(address, client="127.0.0.2") == 10


@pytest.mark.parametrize("stops", [False, True])
def test_an_upload_that_waits_is_answered_in_the_end(
    stops: bool, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST_SECONDS", 60 if stops else 3)
    with listening(searcher) as (server, address), ThreadPoolExecutor(1) as pool:
        refuse_some(server, address, monkeypatch)
        waiting = pool.submit(search_by_upload, address)
        time.sleep(0.3)
        assert not waiting.done()
        if stops:
            server.stop()
        assert waiting.result(15) == 10


def test_refusals_leak_away() -> None:
    now = 100.0
    counted = refusals.Refusals(lambda: now)

    def refused_at_once() -> int:
        count = 0
        while not counted.seconds("a"):
            counted.count("a", 400)
            count += 1
        return count

    assert refused_at_once() == refusals.AT_ONCE + 1
    assert counted.seconds("a") == pytest.approx(1 / refusals.PER_SECOND)
    assert not counted.seconds("b")
    now += 5.05 / refusals.PER_SECOND
    assert refused_at_once() == 5
    for _ in range(1000):
        counted.count("a", 200)
        counted.count("a", 403)
    counted.forget()
    assert 0 < counted.seconds("a") < 1 / refusals.PER_SECOND
    for _ in range(1000):
        counted.count("a", 413)
    assert counted.seconds("a") == pytest.approx(refusals.MOST_SECONDS)
    now += refusals.MOST_SECONDS + refusals.AT_ONCE / refusals.PER_SECOND
    counted.forget()
    assert refused_at_once() == refusals.AT_ONCE + 1


@pytest.mark.parametrize(
    "sent", [b"", b"G", HEAD + b"X-A: b", HEAD + b"Content-Length: 900\r\n\r\nabc"]
)
def test_a_request_has_to_come_in_time(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIME", 0.3)
    monkeypatch.setattr(connections, "IDLE_TIME", 1)
    with served(searcher) as address, connect(address) as connection:
        connection.sendall(sent)
        connection.settimeout(0.1)
        began = time.monotonic()
        received = b""
        while time.monotonic() - began < 8:
            try:
                received = connection.recv(1000)
                break
            except TimeoutError:
                if sent:
                    connection.sendall(b"x")  # what trickles is no excuse
        assert time.monotonic() - began < 6
        assert received[:13] in ((b"HTTP/1.0 408 ", b"HTTP/1.1 408 ") if sent else (b"",))


def test_a_large_upload_may_take_longer_than_a_small_one(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIME", 0.4)
    monkeypatch.setattr(connections, "RATE", 1000)
    with served(searcher) as address, connect(address) as connection:
        length = 8000
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length)
        for _ in range(8):
            connection.sendall(bytes(length // 8))
            time.sleep(0.3)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")  # it is no form


def test_who_does_not_take_the_answer_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(noise(2000))
    index_images([tmp_path / "p"], tmp_path / "i.cbir", descriptor=Grid())
    monkeypatch.setattr(connections, "REQUEST_TIME", 0.3)
    monkeypatch.setattr(connections, "RATE", 2**30)
    searcher = open_searcher(str(tmp_path / "i.cbir"))
    with listening(searcher) as (server, address), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        place = urlsplit(address)
        connection.connect((place.hostname, place.port))
        connection.sendall(b"GET /image/p/a.png HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert isinstance(server, connections.LimitedServer)
        wait_until(lambda: bool(server.channels))
        wait_until(lambda: not server.channels)  # though the client has taken nothing
        assert len(rest(connection)) < 12_000_000
        assert len(get(address, "search?id=p/a.png")["hits"]) == 0
    searcher.close()


def test_bodies_in_memory_are_bounded_together(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_BODIES", 3_000_000)
    with served(searcher) as address, ExitStack() as stack:
        begun = [stack.enter_context(connect(address)) for _ in range(5)]
        sizes = (600_000, 900_000, 700_000, 700_000, 600_000)
        for size, connection in zip(sizes, begun, strict=True):
            connection.sendall(HEAD + b"Content-Length: 9000000\r\n\r\n" + bytes(size))
            time.sleep(0.05)
        refused = rest(begun[1])  # the largest
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 10\r\n" in refused
        assert not any(is_closed(one) for one in (begun[0], begun[2], begun[3], begun[4]))
        for _ in range(30):  # bodies that were answered count no longer
            assert search_by_upload(address) == 10
        assert not is_closed(begun[0])


# Work


def test_slow_searches_leave_room_for_the_others(slow: SlowSearcher) -> None:
    with served(slow) as address, asking(2, address, f"search?id={LARGE}") as asked:
        for _ in asked:
            assert slow.begun.acquire(timeout=10)
        assert get(address, "healthz")["status"] == "ok"
        assert "fields" in get(address, "info")
        assert search_by_upload(address) == 10  # after QUICK, beside the slow ones
        slow.go_on.set()
        assert [one.result() for one in asked] == [(200, None)] * 2


def test_verification_has_a_lane_of_its_own(
    slow: SlowSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.5)
    path = f"search?verify=1&id={LARGE}"
    with served(slow) as address, asking(12, address, path) as asked:
        assert slow.begun.acquire(timeout=10)
        assert get(address, "healthz")["status"] == "ok"
        began = time.monotonic()
        assert search_by_upload(address) == 10
        assert time.monotonic() - began < 5
        time.sleep(1)
        slow.go_on.set()
        answers = [one.result() for one in asked]
        assert set(answers) == {(200, None), (503, "10")}
        assert answers.count((200, None)) == admission.Admission().verifying.running


@pytest.mark.parametrize("path", ["search?", f"why?target={LARGE}&"])
def test_verification_ends_in_time(
    slow: SlowSearcher, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(admission, "VERIFYING_TIME", 0.3)
    with served(slow) as address:
        for _ in range(2):  # the lane is free again
            assert status_of(address, f"{path}verify=1&id={LARGE}") == (200, None)


def test_nothing_is_verified_for_a_client_that_is_gone(slow: SlowSearcher) -> None:
    with served(slow) as address:
        with connect(address) as connection:
            connection.sendall(VERIFY.encode())
            assert slow.begun.acquire(timeout=10)
        wait_until(lambda: len(slow.ended) == 1)


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


# Stopping


def test_a_server_that_stops_finishes_open_requests(slow: SlowSearcher) -> None:
    with listening(slow) as (server, address), ExitStack() as stack:
        idle = stack.enter_context(connect(address))
        begun = stack.enter_context(asking(1, address, f"search?id={LARGE}"))
        assert slow.begun.acquire(timeout=10)
        server.stop()
        assert is_closed(idle)
        with pytest.raises(OSError, match=r"refused|reset"):
            wait_until(lambda: connect(address).close() is not None)
        slow.go_on.set()
        assert begun[0].result() == (200, None)


def test_a_server_that_stops_does_not_wait_for_long(
    slow: SlowSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CLOSING_TIME", 0.3)
    began = time.monotonic()
    with listening(slow) as (server, address), connect(address) as unfinished:
        unfinished.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(1000))
        with connect(address) as asked:
            asked.sendall(VERIFY.encode())
            assert slow.begun.acquire(timeout=10)
            server.stop()
            assert rest(unfinished) == b""
            wait_until(lambda: len(slow.ended) == 1)
    assert time.monotonic() - began < 8
