"""Pictures that are made to keep the server busy, or to fill its memory."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cbir.images import limits
from cbir.images.limits import Limits
from cbir.web import questions
from cbir.web.app import create_app
from tests.images.support_hostile import many_scans
from tests.images.support_images import encoded, noise
from tests.web.support_web import build_index, open_searcher


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    searcher = open_searcher(build_index(tmp_path_factory.mktemp("web")))
    yield create_app(searcher).test_client()
    searcher.close()


def search(client: FlaskClient, data: bytes) -> TestResponse:
    return client.post(
        "/search",
        data={"image": (io.BytesIO(data), "made.jpg")},
        headers={"Accept": "application/json"},
    )


def test_slow_pictures_are_refused_and_the_next_is_answered(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = search(client, many_scans(10_000))
    assert refused.status_code == 400
    assert "more than 500 scans" in refused.json["error"]["message"]  # type: ignore[index]
    monkeypatch.setattr(questions, "LIMITS", Limits(seconds=0.3))
    slow = search(client, many_scans(450, side=4000))
    assert slow.status_code == 400
    assert "took longer than 0.3 s to decode" in slow.json["error"]["message"]  # type: ignore[index]
    assert search(client, encoded(noise(1, 90, 70))).status_code == 200


def test_large_pictures_that_find_no_room_in_time_are_asked_to_come_again(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_total", 100_000_000)
    monkeypatch.setattr(questions, "LIMITS", Limits(wait=0.05))
    large = encoded(np.zeros((2500, 2500, 3), np.uint8))
    with limits.decoding_room(90_000_000):
        refused = search(client, large)
        assert refused.status_code == 503
        assert "busy" in refused.json["error"]["message"]  # type: ignore[index]
        assert search(client, encoded(noise(1, 90, 70))).status_code == 200  # a small one
    assert search(client, large).status_code == 200


def test_want_of_memory_is_no_fault_of_the_picture(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(questions, "decode_file", fail)
    answered = search(client, encoded(noise(1, 90, 70)))
    assert answered.status_code == 503
    assert "needs more memory" in answered.json["error"]["message"]  # type: ignore[index]
