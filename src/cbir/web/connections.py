"""waitress with limits on connections, on the time of a request, and on uploads in memory.

waitress receives requests without a thread for each, so slow clients hold up nobody. But it closes
only connections that are silent, not those that trickle; at its limit of connections it accepts no
others; it does not bound what all clients have sent together; and it serves a client as fast as it
sends, even if everything is refused.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import WSGITask
from waitress.utilities import Error

from cbir.web.admission import Admission
from cbir.web.refusals import Refusals

MOST_CONNECTIONS = 400
MOST_OF_A_CLIENT = 100
"""Connections from one address. Beyond, a new one closes the one that has waited longest."""
IDLE_TIME = 30
"""Seconds that a silent connection stays open."""

REQUEST_TIME = 20.0
"""Seconds to send a request, and again to take its response; more with each byte, at RATE."""
RATE = 32 * 1024
"""Slowest average rate, in bytes per second, of what takes longer than REQUEST_TIME."""

MOST_HEADER = 64 * 1024
MOST_BODY = 80 * 1024 * 1024
"""Bytes of one body; more than the application accepts, so that it can refuse with a message."""
MOST_BODIES = 256 * 1024 * 1024
"""Bytes of all bodies in memory. Beyond, the largest that is not yet complete is refused."""

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


class _Task(WSGITask):  # type: ignore[misc]
    """A request that is answered; refused uploads are counted."""

    channel: _Channel
    request: HTTPRequestParser
    status: str

    def execute(self) -> None:
        try:
            super().execute()
        finally:  # also if the client has gone
            if self.request.body_bytes_received:
                self.channel.server.refusals.count(self.channel.addr[0], int(self.status[:3]))


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows when its request began, and how many bytes of bodies it holds."""

    task_class = _Task
    server: LimitedServer
    addr: tuple[Any, ...]
    request: HTTPRequestParser | None
    requests: list[HTTPRequestParser]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.begun = time.monotonic()
        self.answered = False
        self._size = 0
        super().__init__(*arguments, **options)

    @property
    def is_answering(self) -> bool:
        """Whether a complete request is answered, or the answer is on its way."""
        return bool(self.requests or self.total_outbufs_len)

    @property
    def held(self) -> int:
        """Bytes of bodies in memory, complete or not."""
        coming = [self.request] if self.request else []
        return sum(request.body_bytes_received for request in [*self.requests, *coming])

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self.begun, self._size = time.monotonic(), 0
        done: bool = super().received(data)
        self.server.count(len(data))
        return done

    def service(self) -> None:
        super().service()
        self.answered = True

    def is_late(self, now: float) -> bool:
        """Whether the client sends its request, or takes its response, too slowly."""
        if self.requests:  # the time that the answer takes is ours
            self.begun, self._size = now, 0
            return False
        self._size = max(self._size, self.held, self.total_outbufs_len)
        is_waited_for = self.request is not None or self.total_outbufs_len > 0
        return is_waited_for and now > self.begun + REQUEST_TIME + self._size / RATE

    def refuse(self, error: Error) -> None:
        """Answer the request that is not yet complete with an error, and close."""
        with self.requests_lock:
            refused = self.request
            if refused is None or self.is_answering:
                # Not `will_close`, which waits until the client takes something.
                self.handle_close()
                return
            refused.close()
            refused.error, refused.completed = error, True
            refused.body_bytes_received = 0
            self.requests.append(refused)
            self.request = None
        self.server.add_task(self)


class LimitedServer(TcpWSGIServer):  # type: ignore[misc]
    """Serves an application on a listening socket, with the limits of this module."""

    channel_class = _Channel
    accepting: bool

    def __init__(self, app: Flask, listening: socket.socket, admission: Admission) -> None:
        self._admission = admission
        self._end: float | None = None
        self._held_at_most = 0
        self.refusals = Refusals()
        self._put_off: list[tuple[float, _Channel]] = []
        self._putting_off = threading.Lock()
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
                recv_bytes=64 * 1024,
                cleanup_interval=1,
                channel_timeout=IDLE_TIME,
                # Whoever comes through a proxy sees no positions: its headers have to arrive.
                # Nothing else reads them.
                clear_untrusted_proxy_headers=False,
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

    @property
    def channels(self) -> list[_Channel]:
        """The open connections, oldest first."""
        return list(self.active_channels.values())

    def run(self) -> None:
        """Serve until `stop`, or until interrupted."""
        try:
            while not self._is_done():
                timeout = min(1.0 if self._end is None else 0.05, self._resume())
                wasyncore.loop(timeout=timeout, map=self._map, use_poll=True, count=1)
        except (SystemExit, KeyboardInterrupt):
            pass
        self._admission.stop()
        self.task_dispatcher.shutdown(timeout=1)
        for channel in self.channels:
            channel.handle_close()
        if not self.task_dispatcher.threads:  # else one may still write to the trigger
            wasyncore.close_all(self._map)

    def stop(self) -> None:
        """Stop accepting, finish open requests for up to CLOSING_TIME seconds, and end `run`.

        May be called from any thread, and from a signal handler.
        """
        if self._end is None:
            self._end = time.monotonic() + CLOSING_TIME
            self.pull_trigger()

    def add_task(self, task: _Channel) -> None:
        """Answer the first request of a channel: now, or later if `refusals` makes it wait."""
        uploads = task.requests[0].body_bytes_received > 0
        wait = self.refusals.seconds(task.addr[0]) if uploads and self._end is None else 0
        if not wait:
            super().add_task(task)
            return
        with self._putting_off:
            self._put_off.append((time.monotonic() + wait, task))
        self.pull_trigger()

    def _resume(self) -> float:
        """Answer the requests that have waited; returns the seconds until the next one is due."""
        now = time.monotonic() if self._end is None else math.inf
        with self._putting_off:
            due = [channel for at, channel in self._put_off if at <= now]
            self._put_off = [(at, channel) for at, channel in self._put_off if at > now]
            next_at = min((at for at, _ in self._put_off), default=math.inf)
        for channel in due:
            super().add_task(channel)
        return max(0.0, next_at - now) if self._put_off else 1.0

    def handle_accept(self) -> None:
        before = len(self.active_channels)
        super().handle_accept()
        if len(self.active_channels) > before:
            alive = [one for one in self.channels if not one.will_close]
            of_client = [one for one in alive if one.addr[0] == alive[-1].addr[0]]
            if len(of_client) > MOST_OF_A_CLIENT:
                _close_one(of_client)
            elif len(alive) > MOST_CONNECTIONS:
                _close_one(alive)

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        self.refusals.forget()
        for channel in self.channels:
            if channel.is_late(time.monotonic()):
                channel.refuse(_TooSlowError("The request came too slowly."))

    def count(self, received: int) -> None:
        """Count received bytes; refuse the largest unfinished body if all hold too many."""
        # To add up what every connection holds, for each part of a request, would cost too much.
        self._held_at_most += received
        if self._held_at_most > MOST_BODIES:
            self._held_at_most = sum(one.held for one in self.channels)
            if self._held_at_most > MOST_BODIES:
                self._free_memory()

    def _free_memory(self) -> None:
        coming = [one for one in self.channels if one.request and not one.is_answering]
        if coming:
            largest = max(coming, key=lambda one: one.held)
            largest.refuse(_BusyError("The server is busy; try again in a few seconds."))

    def _is_done(self) -> bool:
        """Whether the server stops and nothing is open; closes what waits for another request."""
        if self._end is None:
            return False
        if self.accepting:
            self.accepting = False
            wasyncore.dispatcher.close(self)
        for channel in self.channels:
            if channel.request is None and not channel.is_answering:
                channel.will_close = True
        return not self.channels or time.monotonic() > self._end


def _close_one(channels: Sequence[_Channel]) -> None:
    """Close who has not sent a complete request for longest; first who never sent one.

    If all but the newest are being answered, the newest is closed.
    """
    waiting = [one for one in channels[:-1] if not one.is_answering]
    chosen = min(waiting, key=lambda one: (one.answered, one.begun), default=channels[-1])
    chosen.will_close = True
