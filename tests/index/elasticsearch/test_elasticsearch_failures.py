"""One of three nodes lost (kill -9) amid searches and a load: nobody who calls `cbir` sees it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from cbir.index.base import SCORE_TOLERANCE, Entry, Index
from cbir.index.open import create_index, open_index
from cbir.testing import sample_entries, unit
from tests.index.elasticsearch.support_elasticsearch import own_server
from tests.index.embedded.support_index import SPEC, expected
from tools.elasticsearch_server import Server

pytestmark = [
    pytest.mark.elasticsearch,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("three nodes"),  # one worker, so that no second three are started
]
NODES = 3
SEARCHED = sample_entries(300, seed=1, prefix="searched")
LOADED = sample_entries(12_000, seed=2, prefix="loaded")
BATCH = 250
QUERIES = unit(np.random.default_rng(3).normal(size=(20, 8)))
K = 10
RIGHT = [expected(SEARCHED, query[None], K) for query in QUERIES]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server(nodes=NODES, heap="512m") as running:
        with closing(create_index(running.index_url("searched"), SPEC)) as index:
            index.add(SEARCHED)
            index.refresh()
        healthy(running)
        yield running


def healthy(server: Server) -> None:
    """Wait until every shard has its replica again."""
    for _ in range(120):
        health = server.address.request("GET", "/_cluster/health")
        if health["status"] == "green" and health["number_of_nodes"] == NODES:
            return
        time.sleep(1)
    raise AssertionError(f"not green: {health}")


class Stream:
    """Searches without a pause, in a thread of its own, until told to stop.

    What it raises is an unhandled exception of a thread, which fails the test.
    """

    def __init__(self, url: str) -> None:
        self.wrong: list[str] = []
        self.answered_at: list[float] = []
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with closing(open_index(self._url)) as index:
            while not self._over.is_set():
                number = len(self.answered_at) % len(QUERIES)
                self._compare(index, number)
                self.answered_at.append(time.monotonic())

    def _compare(self, index: Index, number: int) -> None:
        (found,) = index.search(QUERIES[number : number + 1], K)
        if found.ids != [name for name, _, _ in RIGHT[number]]:
            self.wrong.append(f"query {number}: {found.ids}")
        scores = [score for _, score, _ in RIGHT[number]]
        if not np.allclose(found.scores, scores, rtol=0, atol=SCORE_TOLERANCE):
            self.wrong.append(f"query {number}: {found.scores}")

    def stop(self) -> None:
        self._over.set()
        self._thread.join(120)
        assert not self._thread.is_alive()


def load(url: str, kill_before: int, server: Server, victim: int) -> tuple[list[str], int]:
    """Load all in batches, a node killed amid them by another thread.

    Returns what was acknowledged, and how many it were when the node was gone.
    """
    acknowledged: list[str] = []
    when_killed: list[int] = []

    def kill() -> None:
        server.kill(victim)
        when_killed.append(len(acknowledged))

    batches = [LOADED[start : start + BATCH] for start in range(0, len(LOADED), BATCH)]
    killer = threading.Timer(random.Random(kill_before).uniform(0, 0.2), kill)
    with closing(create_index(url, SPEC)) as index:
        for number, batch in enumerate(batches):
            if number == kill_before:
                killer.start()
            index.add(batch)
            acknowledged += ids(batch)
        killer.join()
        index.refresh()
    return acknowledged, when_killed[0]


def ids(entries: list[Entry]) -> list[str]:
    return [entry.record.id for entry in entries]


def lose_a_node(server: Server, name: str, victim: int, kill_before: int) -> int:
    """Returns how many records had been acknowledged when the node was gone."""
    url = server.index_url(name)
    stream = Stream(server.index_url("searched"))
    try:
        acknowledged, when_killed = load(url, kill_before, server, victim)
        lost_at = time.monotonic()
        time.sleep(2)
    finally:
        stream.stop()
    assert stream.wrong == []
    assert stream.answered_at[-1] > lost_at  # it went on after the node was gone
    assert acknowledged == ids(LOADED)
    with closing(open_index(url)) as index:
        assert index.count() == len(LOADED)
        assert list(index.ids()) == sorted(acknowledged, key=str.encode)
        for query in QUERIES[:5]:
            (found,) = index.search(query[None], K, exact=True)
            assert found.ids == [name for name, _, _ in expected(LOADED, query[None], K)]
    return when_killed


def test_a_lost_node_costs_no_answer_and_no_acknowledged_record(server: Server) -> None:
    settings = server.address.request("GET", "/_all/_settings?filter_path=*.settings.index")
    replicas = {found["settings"]["index"]["number_of_replicas"] for found in settings.values()}
    assert replicas == {"1"}
    when_killed = lose_a_node(server, "first", victim=1, kill_before=10)
    assert 0 < when_killed < len(LOADED)
    server.restart(1)
    healthy(server)


@pytest.mark.parametrize("seed", range(5))
def test_nor_does_any_node_at_any_moment(server: Server, seed: int) -> None:
    draw = random.Random(seed)
    victim, moment = draw.randrange(NODES), draw.randrange(1, len(LOADED) // BATCH)
    lose_a_node(server, f"random-{seed}", victim, moment)
    server.restart(victim)
    healthy(server)
