"""The lanes: how many run, how many wait, in which order, for how long."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cbir.web import admission
from cbir.web.admission import Admission, GoOn, Lane
from cbir.web.questions import RequestError


def test_who_waits_is_admitted_in_turn() -> None:
    lane = Lane(running=1, overdue=0, waiting=5)
    first = lane.enter()
    admitted: list[int] = []

    def wait(number: int) -> None:
        place = lane.enter()
        admitted.append(number)
        place.leave()

    with ThreadPoolExecutor(5) as pool:
        for number in range(5):
            pool.submit(wait, number)
            time.sleep(0.05)
        with pytest.raises(RequestError, match="busy"):
            lane.enter()  # five wait already
        assert admitted == []
        first.leave()
    assert admitted == list(range(5))


def test_who_has_waited_long_enough_is_refused_and_leaves_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.1)
    lane = Lane(running=1, overdue=0, waiting=1)
    first = lane.enter()
    for _ in range(3):
        with pytest.raises(RequestError) as refused:
            lane.enter()
        assert refused.value.status == 503
    first.leave()
    first.leave()  # once more does no harm
    lane.enter().leave()


def test_who_is_gone_waits_no_longer() -> None:
    lane = Lane(running=1, overdue=0, waiting=1)
    lane.enter()
    began = time.monotonic()
    with pytest.raises(RequestError):
        lane.enter(is_gone=lambda: True)
    assert time.monotonic() - began < admission.PATIENCE / 2


def test_long_work_leaves_its_place_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "QUICK", 0.2)
    monkeypatch.setattr(admission, "PATIENCE", 0.5)
    lane = Lane(running=1, overdue=2, waiting=5)
    places = [lane.enter() for _ in range(3)]  # each after the one before took longer than QUICK
    with pytest.raises(RequestError):
        lane.enter()
    places[0].leave()
    lane.enter()


def test_never_more_run_than_are_admitted() -> None:
    lane = Lane(running=3, overdue=0, waiting=60)
    lock = threading.Lock()
    running = most = 0

    def work() -> None:
        nonlocal running, most
        place = lane.enter()
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        place.leave()

    with ThreadPoolExecutor(50) as pool:
        for done in [pool.submit(work) for _ in range(50)]:
            done.result()
    assert most == 3


def test_the_time_of_verification_begins_with_the_first_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "VERIFYING_TIME", 0.2)

    def work(go_on: GoOn) -> list[bool]:
        time.sleep(0.3)  # the query is decoded
        began = go_on()
        time.sleep(0.3)
        return [began, go_on()]

    lanes = Admission()
    assert lanes.verify(work, lambda: False) == [True, False]
    lanes.stop()


def test_threads_suffice_for_all_who_run_and_wait() -> None:
    lanes = Admission()
    busy = lanes.searching.threads + lanes.verifying.threads + lanes.reading.threads
    assert lanes.threads > busy


def test_a_server_that_stops_refuses_verification_that_has_not_begun() -> None:
    lanes = Admission()
    begun, go_on = threading.Semaphore(0), threading.Event()

    def work(_go_on: object) -> bool:
        begun.release()
        return go_on.wait(10)

    def asked() -> bool:
        return lanes.verify(work, lambda: False)

    running = lanes.verifying.running
    with ThreadPoolExecutor(running + 1) as pool:
        answers = [pool.submit(asked) for _ in range(running + 1)]
        for _ in range(running):
            assert begun.acquire(timeout=10)
        time.sleep(0.2)  # one waits for a thread
        lanes.stop()
        with pytest.raises(RequestError, match="busy"):
            asked()
        go_on.set()
        refused = [answer for answer in answers if answer.exception(10)]
    assert [answer.exception() for answer in answers if answer not in refused] == [None] * running
    (error,) = (answer.exception() for answer in refused)
    assert isinstance(error, RequestError) and error.status == 503
