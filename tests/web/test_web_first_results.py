"""The page of a verified search: the hits by score come first, the verified ones when ready."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cbir.search.searcher import IndexedId, Searcher
from cbir.web import admission
from cbir.web.app import create_app
from tests.web.support_web import (
    LARGE,
    PART,
    SlowSearcher,
    build_index,
    open_searcher,
    served,
)

ADDRESS = {"id": PART, "verify": 1}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def answers_in(page: str) -> list[str]:
    """The parts of the page that each hold the hits of a search."""
    return page.split('<section class="answers"')[1:]


def ids_in(text: str) -> list[str]:
    found = re.findall(r'<p class="id"><code>(.*?)</code>', text)
    return [one.replace("<wbr>", "") for one in found]


def expected(searcher: Searcher, **options: Any) -> list[str]:
    return [hit.id for hit in searcher.search(IndexedId(PART), **options)]


def test_the_hits_by_score_arrive_before_the_first_picture_is_compared(
    slow: SlowSearcher,
) -> None:
    with served(slow) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", f"/search?id={PART}&verify=1", headers=PAGE)
        response = connection.getresponse()
        assert response.status == 200
        page = b""
        while b"</section>" not in page:
            page += response.read1()
        assert slow.begun.acquire(timeout=10)
        first = answers_in(page.decode())
        slow.go_on.set()
        second = answers_in(response.read().decode())
        connection.close()
    assert len(first) == len(second) == 1
    assert "Comparing 4 pictures…" in first[0]
    assert ids_in(first[0]) == expected(slow, verify=False)
    assert "4 compared, 1 agreed." in second[0]
    assert ids_in(second[0]) == expected(slow, verify=True) != ids_in(first[0])
    assert second[0].endswith("</html>")


def test_without_a_script_the_page_is_whole_in_the_end(slow: SlowSearcher) -> None:
    slow.go_on.set()
    client = create_app(slow).test_client()
    page = client.get("/search", query_string={**ADDRESS, "k": 2}, headers=PAGE)
    assert page.status_code == 200
    assert page.headers["Vary"] == "Accept"
    first, second = answers_in(page.text)
    assert ids_in(first) == expected(slow, k=2)
    assert ids_in(second) == expected(slow, k=2, verify=True)
    names = re.findall(r' id="(.*?)"', page.text)
    assert len(names) == len(set(names))
    # The style sheet hides all hits but the last.
    with client.get("/static/style.css") as style:
        assert ".answers:has(~ .answers) { display: none; }" in style.text
    head = client.head("/search", query_string=ADDRESS, headers=PAGE)
    assert (head.status_code, head.data) == (200, b"")


def test_nothing_is_announced_where_nothing_is_compared(slow: SlowSearcher) -> None:
    client = create_app(slow).test_client()
    asked = {**ADDRESS, "where": "width>100000"}
    page = client.get("/search", query_string=asked, headers=PAGE).text
    assert "Comparing" not in page and len(answers_in(page)) == 1
    assert "matches" in answers_in(page)[0]


def test_a_wrong_request_is_refused_before_anything_is_shown(slow: SlowSearcher) -> None:
    client = create_app(slow).test_client()
    for wrong, status in (({"where": "width>x"}, 400), ({"id": "photos/none.png"}, 404)):
        page = client.get("/search", query_string={**ADDRESS, **wrong}, headers=PAGE)
        assert page.status_code == status
        assert ids_in(page.text) == []


def test_a_busy_server_keeps_the_hits_and_says_so(
    slow: SlowSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.1)
    app = create_app(slow)
    lane = admission.admission_of(app).verifying
    places = [lane.enter() for _ in range(lane.running)]
    page = app.test_client().get("/search", query_string=ADDRESS, headers=PAGE)
    first, second = answers_in(page.text)
    assert ids_in(first) == ids_in(second) == expected(slow)
    assert "Comparing" not in second
    assert "The server is busy. Try again in a few seconds." in second
    slow.go_on.set()
    for place in places:
        place.leave()
    again = app.test_client().get("/search", query_string=ADDRESS, headers=PAGE)
    assert ids_in(answers_in(again.text)[-1]) == expected(slow, verify=True)


def test_a_gone_original_of_the_query_keeps_the_hits_and_says_so(tmp_path: Path) -> None:
    with open_searcher(build_index(tmp_path)) as searcher:
        (tmp_path / LARGE).unlink()
        asked = {"id": LARGE, "verify": 1}
        page = create_app(searcher).test_client().get("/search", query_string=asked, headers=PAGE)
        first, second = answers_in(page.text)
    assert page.status_code == 200
    assert f"The original of {LARGE} is gone." in second
    assert len(ids_in(second)) == 10 and ids_in(second) == ids_in(first)
    assert str(tmp_path) not in page.text


def test_a_fault_is_logged_and_the_hits_stay(
    slow: SlowSearcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("of the test")

    monkeypatch.setattr("cbir.descriptors.local.geometry.query_keypoints", fail)
    slow.go_on.set()
    page = create_app(slow).test_client().get("/search", query_string=ADDRESS, headers=PAGE)
    second = answers_in(page.text)[1]
    assert "Something went wrong on the server." in second
    assert ids_in(second) == expected(slow)
    assert "of the test" not in page.text and "of the test" in caplog.text


def test_leaving_the_page_ends_the_comparison(slow: SlowSearcher) -> None:
    with served(slow) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", f"/search?id={PART}&verify=1", headers=PAGE)
        connection.getresponse().read1()
        assert slow.begun.acquire(timeout=10)
        connection.close()
        for _ in range(500):
            if slow.ended:
                break
            slow.go_on.wait(0.02)
    assert len(slow.ended) == 1
