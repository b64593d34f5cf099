"""Serving the application with waitress, a production WSGI server."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from cbir.errors import CbirError
from cbir.search.searcher import Searcher
from cbir.web.app import create_app

_ACCEPTED = 64 * 1024 * 1024
"""Bytes of a request body that are still read, so that the application can refuse it in words."""


class Server(Protocol):
    """A listening server: `run` answers until interrupted, `close` stops listening."""

    def run(self) -> None: ...

    def close(self) -> None: ...


def serve(
    searcher: Searcher, host: str, port: int, ready: Callable[[str], None] = lambda _: None
) -> None:
    """Answer on `host`:`port` until interrupted; port 0 takes a free one.

    `ready` is called with the page's address as soon as it can be opened. Raises `CbirError`
    when the port is taken or the host is not this machine's.
    """
    server, address = listen(searcher, host, port)
    searcher.warm_up()
    with suppress(KeyboardInterrupt):  # also between the two: it is how a person ends this
        ready(address)
        server.run()


def check_address(host: str, port: int) -> None:
    """Raise now the `CbirError` that `serve` would raise later, after minutes of other work."""
    _socket(host, port).close()


def listen(searcher: Searcher, host: str, port: int) -> tuple[Server, str]:
    """A server that already accepts connections, and the address of its page."""
    import waitress

    # As many threads as cores: a search uses a core by itself, more would only queue elsewhere.
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A page asks for a dozen pictures at once; that they queue for a moment is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    listening = _socket(host, port)
    server: Server = waitress.create_server(
        create_app(searcher),
        sockets=[listening],
        threads=threads or 1,
        ident=None,
        max_request_body_size=_ACCEPTED,
        # Uploads do not go through temporary files either.
        inbuf_overflow=_ACCEPTED,
    )
    shown = f"[{host}]" if ":" in host else host
    return server, f"http://{shown}:{listening.getsockname()[1]}/"


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise CbirError(
            # Python names the address once more behind the system's own words.
            f"cannot listen on {host}, port {port}: {str(error).partition(' (while ')[0]}",
            "choose another with --port, or stop what uses it",
        ) from error
