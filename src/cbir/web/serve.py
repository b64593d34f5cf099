"""Runs the web server until Ctrl-C or SIGTERM."""

from __future__ import annotations

import gc
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from cbir.errors import CbirError
from cbir.search.searcher import Searcher
from cbir.web.access import EVERYWHERE, Access, access_to
from cbir.web.admission import admission_of
from cbir.web.app import create_app
from cbir.web.positions import is_loopback


class Server(Protocol):
    """A listening server."""

    def run(self) -> None:
        """Serve until `stop`, or until interrupted."""

    def stop(self) -> None:
        """Finish open requests, for a few seconds at most, and end `run`."""


def serve(
    searcher: Searcher,
    host: str,
    port: int,
    ready: Callable[[str], None] = lambda _: None,
    *,
    access: Access | None = None,
) -> None:
    """Serve `host`:`port` until interrupted; port 0 takes a free one.

    SIGTERM finishes open requests first. `access`: who may use the server, by default
    `access_to(host)`. Calls `ready` with the page's address, which holds the token if there is one,
    as soon as the page can be opened. Raises `CbirError` if the port is taken or the host is not an
    address of this machine.
    """
    access = access or access_to(host)
    server, address = listen(searcher, host, port, access)
    searcher.warm_up()
    # What is loaded now stays; scanning it for garbage would hold up requests.
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt), _stopping(server):  # Ctrl-C is the normal way to stop
        ready(access.link(address))
        server.run()


def check_address(host: str, port: int) -> None:
    """Raise `CbirError` now if `serve` would raise it after minutes of other work: for the demo."""
    _socket(host, port, "choose another with --port (make demo PORT=5055)").close()


def listen(
    searcher: Searcher, host: str, port: int, access: Access | None = None
) -> tuple[Server, str]:
    """A server that already accepts connections, and the address of its page."""
    from cbir.web.connections import LimitedServer

    listening = _socket(host, port)
    app = create_app(
        searcher,
        on_loopback=is_loopback(listening.getsockname()[0]),
        access=access or access_to(host),
    )
    shown = _reachable(host, listening.family)
    shown = f"[{shown}]" if ":" in shown else shown
    server = LimitedServer(app, listening, admission_of(app))
    return server, f"http://{shown}:{listening.getsockname()[1]}/"


@contextmanager
def _stopping(server: Server) -> Iterator[None]:
    """SIGTERM stops the server; only the main thread can hear signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda _signal, _frame: server.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reachable(host: str, family: socket.AddressFamily) -> str:
    """`host`, or an address of this machine if it stands for all of them; nothing is sent."""
    if host not in EVERYWHERE:
        return host
    v6 = family == socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("2001:db8::1" if v6 else "192.0.2.1", 9))  # documentation's addresses
            return str(probe.getsockname()[0])
        except OSError:
            return "::1" if v6 else "127.0.0.1"


def _socket(host: str, port: int, cure: str = "choose another with --port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise CbirError(
            # Python repeats the address after the system's message.
            f"cannot listen on {host}, port {port}: {str(error).partition(' (while ')[0]}",
            f"{cure}, or stop the process that uses it",
        ) from error
