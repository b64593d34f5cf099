"""An open loop of eight clients, alone and beside hostile ones and others that verify.

Each client sends ten requests a second, whether earlier ones were answered or not: searches by an
indexed picture and by a file, in turn. The time of a request begins when it was due.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from benchmarks.hostile.clients import HOSTILE_CLIENT, hostile
from benchmarks.hostile.server import Served, request, serving, upload
from benchmarks.hostile.trials import Trial, Trials, tried

CLIENTS = 8
RATE = 10.0  # requests a second of each
HEALTH_RATE = 10.0
MOST_TIMES = 1.5
"""Target: the median beside hostile clients, by the median alone."""
MOST_HEALTH = 0.05
"""Target: the longest time, in seconds, of a request for `/healthz`."""
BESIDE = ("slow bodies", "JPEGs of 10,000 scans", "verification", "verification")
THREADS = 200


@dataclass(frozen=True)
class Asked:
    """How a request went. `seconds`: from when it was due. `problem`: "" if there is none."""

    seconds: float
    problem: str


@dataclass(frozen=True)
class Loaded:
    """The requests of the clients, and those for `/healthz`."""

    searches: Sequence[Asked]
    health: Sequence[Asked]


def trials(seconds: float, folder: Path) -> Trials:
    """The requests of both runs; notes have their times."""
    with ThreadPoolExecutor(THREADS) as pool, serving(folder) as served:
        _loaded(served, min(2, seconds), pool)  # warms up
        alone = _loaded(served, seconds, pool)
        with ExitStack() as stack:
            for number, kind in enumerate(BESIDE):
                stack.enter_context(hostile(kind, served, HOSTILE_CLIENT + number))
            time.sleep(1)
            beside = _loaded(served, seconds, pool)
            stopped = tried("stopping the server", "SIGINT beside hostile clients", served.stop)
    yield stopped
    base = _median(alone.searches)
    for name, loaded in {"alone": alone, "beside hostile ones": beside}.items():
        yield from _counted(f"{CLIENTS} clients, {name}", loaded.searches, base)
        yield from _counted(f"/healthz, {name}", loaded.health)
    yield tried("targets", "median", lambda: _at_most(_median(beside.searches) / base, MOST_TIMES))
    slowest = max(one.seconds for one in [*alone.health, *beside.health])
    yield tried("targets", "/healthz, seconds", lambda: _at_most(slowest, MOST_HEALTH))


def _at_most(value: float, target: float) -> None:
    assert value <= target, f"{value:.3f} is more than {target}"


def _counted(row: str, asked: Sequence[Asked], base: float = 0) -> Trials:
    """Trials of a row. Times come with the last one, and how many times `base` their median is."""
    yield from (Trial(row, one.problem) for one in asked[:-1])
    longest = max(one.seconds for one in asked)
    note = f"{row}: median {_median(asked) * 1000:.1f} ms, longest {longest * 1000:.0f} ms"
    note += f", {_median(asked) / base:.2f} times the median alone" if base else ""
    yield Trial(row, asked[-1].problem, note)


def _median(asked: Sequence[Asked]) -> float:
    return statistics.median(one.seconds for one in asked)


def _loaded(served: Served, seconds: float, pool: ThreadPoolExecutor) -> Loaded:
    """What all clients see for some seconds."""
    began = time.monotonic() + 0.1
    bodies = [upload(path.read_bytes()) for path in served.files]
    searches = []
    for client in range(CLIENTS):
        for number in range(round(seconds * RATE)):
            due = began + (number + client / CLIENTS) / RATE
            if number % 2:
                path, body = "/search", bodies[(number + 7 * client) % len(bodies)]
            else:
                path, body = f"/search?id={quote(served.id_of(number + 7 * client))}", b""
            searches.append((due, client, path, body))
    health = [
        (began + number / HEALTH_RATE, CLIENTS, "/healthz", b"")
        for number in range(round(seconds * HEALTH_RATE))
    ]
    futures = []
    for due, client, path, body in sorted(searches + health):
        time.sleep(max(0, due - time.monotonic()))
        futures.append((path, pool.submit(_asked, served, due, client, path, body)))
    done = [(path, future.result()) for path, future in futures]
    return Loaded(
        [one for path, one in done if path != "/healthz"],
        [one for path, one in done if path == "/healthz"],
    )


def _asked(served: Served, due: float, client: int, path: str, body: bytes) -> Asked:
    try:
        status = request(served, path, body, client=client)
        problem = "" if status == 200 else f"{status} from {path}"
    except (OSError, HTTPException, ValueError) as error:
        problem = f"{type(error).__name__} from {path}: {error}"
    return Asked(time.monotonic() - due, problem)
