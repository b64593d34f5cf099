"""Bounds the work that runs at a time, so that a busy server still answers cheap requests.

Each kind of work has a lane. Fewer requests run and wait in all lanes together than the server has
threads: `/healthz` and static files, which need no place, always find one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeAlias, TypeVar

from flask import Flask, current_app, g, request

from cbir.machine import usable_cores
from cbir.web.questions import RequestError

T = TypeVar("T")
GoOn: TypeAlias = Callable[[], bool]

PATIENCE = 10.0
"""How long, in seconds, a request waits for its turn."""
QUICK = 1.0
"""Work that takes longer (seconds) leaves its place to the next request and shares the cores."""
VERIFYING_TIME = 5.0
"""How long, in seconds, a request compares pictures; the rest stays uncompared."""

_SPARE_THREADS = 4
_VERIFYING_PRIORITY = 10  # added to nice values
_WITHOUT_PLACE = frozenset({"static", "views.healthz"})
_SEARCHING = frozenset({"views.search", "views.search_indexed", "views.explanation"})


class Lane:
    """Places for work of one kind: who finds none waits in turn. Thread-safe.

    `running`: how many requests run at a time. `overdue`: how many more do, once others have run
    for longer than QUICK. `waiting`: how many wait, at most PATIENCE seconds.
    """

    def __init__(self, running: int, overdue: int, waiting: int) -> None:
        self.running, self.overdue, self.waiting = running, overdue, waiting
        self._lock = threading.Lock()
        self._queue: deque[Place] = deque()
        self._begun: dict[Place, float] = {}

    @property
    def threads(self) -> int:
        """How many threads are busy or wait when all is taken."""
        return self.running + self.overdue + self.waiting

    def enter(self, is_gone: Callable[[], bool] = lambda: False) -> Place:
        """A place as soon as one is free; the caller has to leave it.

        `is_gone`: whether nobody waits for the answer any more. Raises `RequestError` (503) if too
        many wait, after PATIENCE seconds, and for a client that is gone.
        """
        place = Place(self, self._lock)
        end = time.monotonic() + PATIENCE
        with self._lock:
            if len(self._queue) >= self.waiting and not self._is_free():
                raise busy()
            self._queue.append(place)
            try:
                while self._queue[0] is not place or not self._is_free():
                    left = end - time.monotonic()
                    if left <= 0 or is_gone():
                        raise busy()
                    # Time, too, makes places free.
                    place.turn.wait(min(left, QUICK / 4))
                self._begun[place] = time.monotonic()
            finally:
                self._queue.remove(place)
                self._wake_next()
        return place

    def leave(self, place: Place) -> None:
        """Free a place, once."""
        with self._lock:
            self._begun.pop(place, None)
            self._wake_next()

    def _wake_next(self) -> None:
        """Let the first in the queue look again; to wake all of them would cost too much."""
        if self._queue:
            self._queue[0].turn.notify()

    def _is_free(self) -> bool:
        recently = time.monotonic() - QUICK
        young = sum(begun > recently for begun in self._begun.values())
        return young < self.running and len(self._begun) < self.running + self.overdue


class Place:
    """A request's place in a lane. `turn`: notified when it may be free."""

    def __init__(self, lane: Lane, lock: threading.Lock) -> None:
        self._lane = lane
        self.turn = threading.Condition(lock)

    def leave(self) -> None:
        self._lane.leave(self)


class Admission:
    """The lanes of a server, and the threads that verify."""

    def __init__(self) -> None:
        cores = usable_cores()
        # Most of a search keeps one core busy.
        self.searching = Lane(running=cores, overdue=4, waiting=64)
        self.verifying = Lane(running=max(1, cores // 2), overdue=0, waiting=4)
        self.reading = Lane(running=4, overdue=4, waiting=32)
        self.stopped = threading.Event()
        self._submitting = threading.Lock()
        self._verifiers = ThreadPoolExecutor(
            self.verifying.running, "cbir-verifying", initializer=_yield_to_others
        )

    @property
    def threads(self) -> int:
        """The threads that the server needs, so that some are always free."""
        lanes = (self.searching, self.verifying, self.reading)
        return sum(lane.threads for lane in lanes) + _SPARE_THREADS

    def verify(self, work: Callable[[GoOn], T], is_gone: Callable[[], bool]) -> T:
        """Run `work` on a verifier's thread; `work` gets the `go_on` of `Searcher.search`.

        Raises `RequestError` (503) once the server stops.
        """
        # From the first picture on: a query that takes long to decode gets ahead, too.
        end = cache(lambda: time.monotonic() + VERIFYING_TIME)

        def go_on() -> bool:
            if self.stopped.is_set() or is_gone():
                raise busy()
            return end() > time.monotonic()

        with self._submitting:
            if self.stopped.is_set():
                raise busy()
            future = self._verifiers.submit(work, go_on)
        try:
            return future.result()
        except CancelledError:  # it had not begun when the server stopped
            raise busy() from None

    def stop(self) -> None:
        """End verification that is still running."""
        with self._submitting:
            self.stopped.set()
        self._verifiers.shutdown(wait=False, cancel_futures=True)


def busy() -> RequestError:
    """The refusal of a request that cannot be answered soon."""
    return RequestError(503, "The server is busy", "Try again in a few seconds.")


def register_admission(app: Flask) -> None:
    """Give each request a place in the lane of its kind before it is read."""
    app.extensions["cbir.admission"] = Admission()
    app.before_request(_enter)
    app.teardown_request(_leave)


def admission_of(app: Flask) -> Admission:
    """The admission of an application."""
    admission: Admission = app.extensions["cbir.admission"]
    return admission


def verified(work: Callable[[GoOn], T]) -> T:
    """Run `work`, which verifies hits, in the lane for that instead of the request's own.

    It gets the `go_on` of `Searcher.search`: False after VERIFYING_TIME; raises once nobody waits
    for the answer.
    """
    admission = admission_of(current_app)
    _leave()
    g.place = admission.verifying.enter(_is_gone())
    return admission.verify(work, _is_gone())


def _enter() -> None:
    if request.endpoint not in _WITHOUT_PLACE:
        admission = admission_of(current_app)
        searches = request.endpoint in _SEARCHING
        lane = admission.searching if searches else admission.reading
        g.place = lane.enter(_is_gone())


def _leave(_error: BaseException | None = None) -> None:
    if place := g.pop("place", None):
        place.leave()


def _is_gone() -> Callable[[], bool]:
    """Tells whether the client has closed its connection; servers other than ours cannot tell."""
    is_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return is_gone


def _yield_to_others() -> None:
    """Give this thread, and those that it starts, less of the cores than searches get."""
    if sys.platform == "linux":  # elsewhere priorities are those of processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _VERIFYING_PRIORITY)
