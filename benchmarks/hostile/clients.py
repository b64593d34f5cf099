"""Hostile clients: slow, unfinished, greedy, odd. Others are answered, the server goes on.

`python -m benchmarks.hostile.clients KIND HOST PORT FOLDER` is one that goes on until it is killed.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from benchmarks.hostile.measured import group
from benchmarks.hostile.server import KIND, Served, address_of, request, serving, upload
from benchmarks.hostile.trials import Trials, tried
from tests.images.support_hostile import many_scans

EVERY = 0.25  # seconds between two requests of the polite client
SOON = 5.0
"""Seconds in which a polite client is answered, and the answer to an odd request comes."""
CONNECTIONS = 50
HOSTILE_CLIENT = 100


def trials(seconds: float, folder: Path) -> Trials:
    """A polite client beside each kind of hostile one for `seconds` in all, and odd requests."""
    with serving(folder) as served:
        for kind in HOSTILE:
            with hostile(kind, served):
                yield from _polite(served, seconds / len(HOSTILE), f"beside clients: {kind}")
        for what, path in ODD.items():
            yield tried("odd requests", what, lambda: _is_refused(served, path))  # noqa: B023
        yield tried("odd requests", "afterwards", lambda: _is_answered(served, 0))
        yield tried("stopping the server", "SIGINT", served.stop)


def _polite(served: Served, seconds: float, row: str) -> Trials:
    end = time.monotonic() + seconds
    number = 0
    while number == 0 or time.monotonic() < end:
        yield tried(row, f"request {number}", lambda: _is_answered(served, number))  # noqa: B023
        number += 1
        time.sleep(EVERY)


def _is_answered(served: Served, number: int) -> None:
    picture = upload(served.files[number % len(served.files)].read_bytes())
    by_id = f"/search?id={quote(served.id_of(number))}"
    for path, body in (("/healthz", b""), ("/search", picture), (by_id, b"")):
        status = request(served, path, body, timeout=SOON)
        assert status == 200, f"{status} from {path}"


def _is_refused(served: Served, path: str) -> None:
    status = request(served, path, timeout=SOON)
    assert 400 <= status < 500, f"{status} from {path[:60]}"


ODD: Mapping[str, str] = {
    "thousands of filters": "/search?" + "&".join(["where=label=x"] * 3000),
    "a filter without end": "/search?id=x&where=" + "x" * 30_000,
    "an id without end": "/search?id=" + "x" * 30_000,
    "a path without end": "/image/" + "a/" * 10_000,
    "control characters": "/search?id=%00%1b%5B2J",
    "a folder above": "/image/..%2F..%2F..%2Fetc%2Fpasswd",
    "no UTF-8": "/search?id=%ff%fe",
    "too many hits": "/search?id=x&k=999999999999",
    "no number": "/search?id=x&k=NaN",
}


@contextmanager
def hostile(kind: str, served: Served, client: int = HOSTILE_CLIENT) -> Iterator[None]:
    """A hostile client of a kind in a process of its own while the block runs."""
    command = [sys.executable, "-m", __name__, kind, str(client), served.host, str(served.port)]
    with group([*command, str(served.files[0].parent)]) as child:
        assert child.stdout is not None and child.stdout.readline(), f"{kind} did not begin"
        yield
        assert child.poll() is None, f"the hostile client ended: {kind}"


def _trickle(served: Served, client: int, start: bytes) -> None:
    """Connections that send a byte now and then; those that are closed are opened again."""
    with ExitStack() as stack:
        opened: list[socket.socket | None] = [None] * CONNECTIONS
        while True:
            for place, connection in enumerate(opened):
                try:
                    if connection is None:
                        connection = opened[place] = stack.enter_context(_connected(served, client))
                        connection.sendall(start)
                    connection.sendall(b"x")
                except OSError:
                    opened[place] = None
            time.sleep(0.2)


def _unread(served: Served, client: int) -> None:
    """Requests whose answers are not read."""
    with ExitStack() as stack:
        name = served.files[0].name
        while True:
            with suppress(OSError):
                for _ in range(CONNECTIONS):
                    connection = stack.enter_context(_connected(served, client))
                    connection.sendall(
                        f"GET /image/photos/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                    )
            time.sleep(2)
            stack.close()


def _connected(served: Served, client: int) -> socket.socket:
    return socket.create_connection(
        (served.host, served.port), 5, source_address=(address_of(client), 0)
    )


def _again(served: Served, client: int, picture: bytes) -> None:
    """Searches by the same picture again and again."""
    body = upload(picture)
    while True:
        with suppress(OSError, ValueError):  # refused, most likely
            if request(served, "/search", body, client=client) == 503:
                time.sleep(0.1)


def _verifying(served: Served, client: int) -> None:
    number = 0
    while True:
        number += 1
        with suppress(OSError, ValueError):
            path = f"/search?id={quote(served.id_of(number))}&verify=1"
            if request(served, path, client=client) == 503:
                time.sleep(0.1)


_BODY = (
    f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
    "Content-Length: 1000000\r\n\r\n"
)
HOSTILE: Mapping[str, Callable[[Served, int], None]] = {
    "slow headers": partial(_trickle, start=b"GET / HT"),
    "slow bodies": partial(_trickle, start=_BODY.encode() + bytes(1000)),
    "unread answers": _unread,
    "JPEGs of 10,000 scans": lambda served, client: _again(served, client, many_scans(10_000)),
    "JPEGs of 450 scans": lambda served, client: _again(served, client, many_scans(450, side=3000)),
    "verification": _verifying,
}


def main() -> None:
    """Be hostile until killed."""
    kind, client, host, port, folder = sys.argv[1:]
    served = Served(host, int(port), sorted(Path(folder).iterdir()))
    print("hostile", flush=True)
    HOSTILE[kind](served, int(client))


if __name__ == "__main__":
    main()
