"""waitress with limits: on connections, on the time to send a request, and on bodies in memory.

waitress reads requests without a thread each, so that slow clients hold up nobody. What it does
not limit is how long they take as long as something comes, how many connections one of them has,
and how much all of them have sent.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable
from threading import Lock
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.utilities import Error

from cbir.web.admission import Admission

MOST_CONNECTIONS = 400
MOST_OF_A_CLIENT = 100
"""Connections of one address. A proxy is one client. Beyond, a new one ends the slowest of them."""

HEADER_TIME = 10.0
"""Seconds for the head of a request, from the first byte or, on a new connection, its opening."""
BODY_TIME = 20.0
"""Seconds for the body, and for taking the response; more with each byte, at BODY_RATE."""
BODY_RATE = 32 * 1024
"""Slowest average rate, in bytes per second, of what takes longer than BODY_TIME."""
IDLE_TIME = 30
"""Seconds that a connection stays open between requests."""

MOST_BODIES = 256 * 1024 * 1024
"""Bytes of all bodies in memory. Beyond, the largest that is not yet complete is refused."""
MOST_BODY = 80 * 1024 * 1024
"""Bytes of one body; more than the application accepts, so that it can refuse with a message."""
MOST_HEADER = 64 * 1024

CLOSING_TIME = 8.0
"""Seconds that open requests get when the server stops."""


class _TooSlowError(Error):  # type: ignore[misc] # waitress has no types
    code = 408
    reason = "Request Timeout"


class _BusyError(Error):  # type: ignore[misc]
    code = 503
    reason = "Service Unavailable"

    def to_response(self, ident: str | None = None) -> Any:
        status, headers, body = super().to_response(ident)
        return status, [*headers, ("Retry-After", "10")], body


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows when its request began, and how many bytes of bodies it holds."""

    server: LimitedServer
    request: HTTPRequestParser | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.begun = time.monotonic()
        self.answered = False
        self.held = 0
        self._to_send: int | None = None
        super().__init__(*arguments, **options)

    @property
    def is_waiting(self) -> bool:
        """Whether it has no complete request, and nothing to send."""
        return not (self.requests or self.total_outbufs_len or self.will_close)

    @property
    def is_open(self) -> bool:
        """Whether it has a request, or a body is coming, or a response is going."""
        coming = self.request is not None and self.request.headers_finished
        return bool(self.requests or self.total_outbufs_len or coming)

    def received(self, data: bytes) -> bool:
        if self.request is None and self.answered:
            self.begun = time.monotonic()
        done: bool = super().received(data)
        self._count()
        if self.server.held > MOST_BODIES:
            self.server.free_memory()
        return done

    def service(self) -> None:
        super().service()
        self.answered = True
        self._count()

    def del_channel(self, map: Any = None) -> None:
        super().del_channel(map)
        self.server.hold(self, 0)

    def end_if_late(self, now: float) -> None:
        """Refuse a request that comes too slowly; close if the response is taken too slowly."""
        if self.requests:
            self.begun, self._to_send = now, None
        elif self.total_outbufs_len:
            if self._to_send is None:
                self.begun, self._to_send = now, self.total_outbufs_len
            elif now > self.begun + BODY_TIME + self._to_send / BODY_RATE:
                self.will_close = True
        elif self._to_send is not None:
            self.begun, self._to_send = now, None
        elif self.request is None:
            if not self.answered and now > self.begun + HEADER_TIME:
                self.will_close = True
        elif now > self.begun + self._time_to_send(self.request):
            self.refuse(_TooSlowError("The request came too slowly."))

    def refuse(self, error: Error) -> None:
        """Answer the request that is not yet complete with an error, and close."""
        with self.requests_lock:
            refused: HTTPRequestParser | None = self.request
            if refused is None or self.requests:
                self.will_close = True
                return
            refused.close()
            refused.error, refused.completed = error, True
            self.requests.append(refused)
            self.request = None
        self.server.hold(self, 0)
        self.server.add_task(self)

    def _time_to_send(self, request: HTTPRequestParser) -> float:
        if not request.headers_finished:
            return HEADER_TIME
        return HEADER_TIME + BODY_TIME + float(request.body_bytes_received) / BODY_RATE

    def _count(self) -> None:
        with self.requests_lock:
            unfinished = [self.request] if self.request else []
            bodies = [one.body_bytes_received for one in [*self.requests, *unfinished]]
        self.server.hold(self, sum(bodies) if self.connected else 0)


class LimitedServer(TcpWSGIServer):  # type: ignore[misc]
    """Serves an application on a listening socket, with the limits of this module."""

    channel_class = _Channel
    accepting: bool

    def __init__(self, app: Flask, listening: socket.socket, admission: Admission) -> None:
        self.held = 0
        self._admission = admission
        self._lock = Lock()
        self._closing: float | None = None
        super().__init__(
            app,
            _sock=listening,
            bind_socket=False,
            sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
            adj=Adjustments(
                sockets=[listening],
                threads=admission.threads,
                ident=None,
                asyncore_use_poll=True,
                cleanup_interval=1,
                channel_timeout=IDLE_TIME,
                # Never reached: at its limit, waitress would no longer accept connections.
                connection_limit=100 * MOST_CONNECTIONS,
                # Notices a client that closes its connection while its request is answered.
                channel_request_lookahead=1,
                max_request_header_size=MOST_HEADER,
                max_request_body_size=MOST_BODY,
                inbuf_overflow=MOST_BODY,  # keeps uploads out of temporary files
            ),
        )
        # A page requests a dozen pictures at once; a short queue is not worth a warning.
        self.task_dispatcher.queue_logger = logging.Logger("queue", logging.ERROR)

    def run(self) -> None:
        """Serve until `stop`, or until interrupted."""
        try:
            while self._map and not self._is_closed():
                timeout = 1.0 if self._closing is None else 0.05
                wasyncore.loop(timeout=timeout, map=self._map, use_poll=True, count=1)
        except (SystemExit, KeyboardInterrupt):
            pass
        self._admission.stop()
        self.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map)

    def stop(self) -> None:
        """Stop accepting, finish open requests for up to CLOSING_TIME seconds, and end `run`.

        May be called from any thread, and from a signal handler.
        """
        self._closing = time.monotonic() + CLOSING_TIME
        self.pull_trigger()

    def handle_accept(self) -> None:
        before = len(self.active_channels)
        super().handle_accept()
        if len(self.active_channels) > before:
            newest = list(self.active_channels.values())[-1]
            alive = [one for one in self.active_channels.values() if not one.will_close]
            of_client = [one for one in alive if one.addr[0] == newest.addr[0]]
            if len(of_client) > MOST_OF_A_CLIENT:
                _end_slowest(of_client)
            elif len(alive) > MOST_CONNECTIONS:
                _end_slowest(alive)

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            channel.end_if_late(time.monotonic())

    def hold(self, channel: _Channel, size: int) -> None:
        """Note how many bytes of bodies a connection holds."""
        with self._lock:
            self.held += size - channel.held
            channel.held = size

    def free_memory(self) -> None:
        """Refuse the largest body that is not yet complete."""
        coming = [one for one in self.active_channels.values() if one.request and one.is_waiting]
        if coming:
            largest = max(coming, key=lambda one: one.request.body_bytes_received)
            largest.refuse(_BusyError("The server is busy; try again in a few seconds."))

    def _is_closed(self) -> bool:
        """Whether the server stops and nothing is open; closes what waits for another request."""
        if self._closing is None:
            return False
        if self.accepting:
            self.accepting = False
            wasyncore.dispatcher.close(self)
        channels = list(self.active_channels.values())
        for channel in channels:
            if not channel.is_open:
                channel.will_close = True
            channel.end_if_late(time.monotonic())
        return not channels or time.monotonic() > self._closing


def _end_slowest(channels: Iterable[_Channel]) -> None:
    """Close one that waits: first who never sent a complete request, then who waits longest.

    If all are being answered, the newest is closed.
    """
    channels = list(channels)
    waiting = [one for one in channels[:-1] if one.is_waiting]
    ended = min(waiting, key=lambda one: (one.answered, one.begun), default=channels[-1])
    ended.will_close = True
