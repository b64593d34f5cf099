"""An index that is swapped, or taken away, under a running server."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from cbir.ingest.indexing import index_images
from tests.web.support_web import Grid, open_searcher, picture, served

COUNT = 12


def made(place: Path, photos: Path, side: int, first: int) -> Path:
    """An index of `COUNT` pictures of `side` pixels; its ids are those of every other one."""
    folder = photos / "pictures"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(picture(first + number, side))
    index_images([folder], place, descriptor=Grid())
    return place


def asked(address: str) -> tuple[int, bytes]:
    try:
        with urlopen(Request(address, headers={"Accept": "application/json"})) as answer:
            return int(answer.status), answer.read()
    except HTTPError as error:
        return error.code, error.read()


def test_no_answer_mixes_two_indexes_and_the_new_one_is_opened(tmp_path: Path) -> None:
    place = made(tmp_path / "live.cbir", tmp_path / "one", 32, 0)
    other = made(tmp_path / "next.cbir", tmp_path / "two", 48, 1000)
    seen: list[tuple[int, bytes]] = []
    stop = threading.Event()
    searcher = open_searcher(place)
    with served(searcher) as address:

        def ask() -> None:
            while not stop.is_set():
                seen.append(asked(f"{address}search?id={quote('pictures/0.png')}&k=5"))

        def answered() -> int:
            return sum(status == 200 for status, _ in seen)

        def wait_for(answers: int) -> None:
            while answered() < answers:
                stop.wait(0.01)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(12)
        place.rename(tmp_path / "old.cbir")  # between these two there is no index
        other.rename(place)
        wait_for(answered() + 30)
        stop.set()
        for thread in threads:
            thread.join()
        status, thumb = asked(f"{address}thumb/pictures/0.png")
        assert (status, thumb) == (200, picture(1000, 48))
        place.rename(tmp_path / "gone.cbir")
        assert [
            asked(f"{address}{path}")[0] for path in ("healthz", "search?id=pictures/1.png")
        ] == [*(503, 503)]
        (tmp_path / "gone.cbir").rename(place)
        asked(f"{address}healthz")
        assert asked(f"{address}healthz")[0] == 200
    sides = []
    for status, body in seen:
        assert status in (200, 503), body
        if status == 200:
            widths = {hit["width"] for hit in json.loads(body)["hits"]}
            assert len(widths) == 1
            sides.append(*widths)
    assert {sides[0], sides[-1]} == {32, 48}
    assert 32 not in sides[-10:]
