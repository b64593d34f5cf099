"""Serves the application with waitress, a production WSGI server."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from cbir.errors import CbirError
from cbir.machine import usable_cores
from cbir.search.searcher import Searcher
from cbir.web.app import create_app
from cbir.web.positions import is_loopback

_ACCEPTED = 80 * 1024 * 1024
"""Largest request body (bytes) that is read; more than the application accepts, so that it can
refuse with a message."""


class Server(Protocol):
    """A listening server: `run` serves until interrupted, `close` stops listening."""

    def run(self) -> None: ...

    def close(self) -> None: ...


def serve(
    searcher: Searcher, host: str, port: int, ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve `host`:`port` until interrupted; port 0 takes a free one.

    Calls `ready` with the page's address as soon as the page can be opened. Raises `CbirError` if
    the port is taken or the host is not an address of this machine.
    """
    server, address = listen(searcher, host, port)
    searcher.warm_up()
    with suppress(KeyboardInterrupt):  # Ctrl-C is the normal way to stop the server
        ready(address)
        server.run()


def check_address(host: str, port: int) -> None:
    """Raise `CbirError` now if `serve` would raise it after minutes of other work: for the demo."""
    _socket(host, port, "choose another with --port (make demo PORT=5055)").close()


def listen(searcher: Searcher, host: str, port: int) -> tuple[Server, str]:
    """A server that already accepts connections, and the address of its page."""
    import waitress

    # A page requests a dozen pictures at once; a short queue is not worth a warning.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # The answer says so to the visitor; what visitors look for is nothing for a log.
    logging.getLogger("cbir.search.near_misses").setLevel(logging.ERROR)
    listening = _socket(host, port)
    server: Server = waitress.create_server(
        create_app(searcher, on_loopback=is_loopback(listening.getsockname()[0])),
        sockets=[listening],
        threads=usable_cores(),  # most of a search keeps one core busy
        ident=None,
        max_request_body_size=_ACCEPTED,
        # Keeps uploads out of temporary files.
        inbuf_overflow=_ACCEPTED,
    )
    shown = f"[{host}]" if ":" in host else host
    return server, f"http://{shown}:{listening.getsockname()[1]}/"


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
