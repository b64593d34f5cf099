from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cbir
from cbir.errors import QueryError
from cbir.evaluation.recall import measure_recall, recall_of
from cbir.index.base import Index, Matches
from cbir.index.open import create_index, open_index
from cbir.testing import make_entry
from cbir.types import DescriptorSpec, Vectors
from tests.cli.support_cli import call
from tests.descriptors.support_photos import MeanColour, write_photos
from tests.index.elasticsearch.support_elasticsearch import session_server
from tools.elasticsearch_address import Address

DIM = 16


def unit_rows(seed: int, count: int) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made_index(place: str, rows: Vectors) -> Index:
    index = create_index(place, DescriptorSpec("made", DIM, "12" * 32))
    index.register_source("a", "/a")
    index.add([make_entry(f"a/{number:04}", row[None]) for number, row in enumerate(rows)])
    index.refresh()
    return index


class Forgetful:
    """An index whose own search, of a type that may miss some, never finds `lost` records."""

    def __init__(self, index: Index, lost: Sequence[str]) -> None:
        self._index = index
        self._lost = set(lost)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def info(self) -> dict[str, Any]:
        return {**self._index.info(), "type": "hnsw"}

    def search(self, vectors: Vectors, k: int, *, exact: bool = False) -> list[Matches]:
        if exact:
            return self._index.search(vectors, k, exact=True)
        found = []
        for each in self._index.search(vectors, k + len(self._lost)):
            kept = [place for place, name in enumerate(each.ids) if name not in self._lost][:k]
            scores = np.full(len(kept), 0.123, dtype=np.float32)  # not to be believed
            found.append(Matches([each.ids[place] for place in kept], scores, [None] * len(kept)))
        return found


def test_recall_counts_what_an_approximate_search_misses(tmp_path: Path) -> None:
    rows, asked = unit_rows(0, 300), unit_rows(1, 50)
    with closing(made_index(str(tmp_path / "i.cbir"), rows)) as index:
        lost = [f"a/{number:04}" for number in range(0, 300, 7)]
        result = recall_of(Forgetful(index, lost), asked, 10)
    best = np.argsort(-(asked @ rows.T), axis=1)[:, :10]
    expected = (best % 7 != 0).mean(axis=1)
    np.testing.assert_allclose(result.per_query, expected)
    figures = result.to_json()
    assert figures["recall"] == pytest.approx(expected.mean()) and 0.5 < figures["recall"] < 1
    assert figures["complete"] == pytest.approx((expected == 1).mean())
    assert figures["worst"] == pytest.approx(expected.min())
    assert (figures["k"], figures["n_queries"], figures["n_indexed"]) == (10, 50, 300)
    assert figures["exact"] is False
    assert figures["own_ms"] > 0 and figures["exact_ms"] > 0 and figures["timed"] == 50


def test_another_of_several_at_the_same_distance_is_no_error(tmp_path: Path) -> None:
    rows = np.repeat(unit_rows(0, 40), 5, axis=0)  # every vector five times
    with closing(made_index(str(tmp_path / "i.cbir"), rows)) as index:
        lost = [f"a/{number:04}" for number in range(0, 200, 5)]
        result = recall_of(Forgetful(index, lost), unit_rows(1, 20), 3)
        short = recall_of(Forgetful(index, lost), unit_rows(1, 20), 5)
    assert (result.per_query == 1).all()
    np.testing.assert_allclose(short.per_query, 0.8)  # four of five are left, then others


def test_an_index_smaller_than_k_can_be_searched_completely(tmp_path: Path) -> None:
    with closing(made_index(str(tmp_path / "i.cbir"), unit_rows(0, 4))) as index:
        result = recall_of(index, unit_rows(1, 5), 100_000)
    assert result.exact
    figures = result.to_json()
    assert (figures["recall"], figures["k"], figures["n_indexed"]) == (1, 4, 4)


def test_recall_in_an_empty_index_or_of_no_hits_is_refused_at_once(tmp_path: Path) -> None:
    class Silent(MeanColour):
        def describe(self, images: object) -> Vectors:  # type: ignore[override]
            raise AssertionError("described")

    place = str(tmp_path / "e.cbir")
    create_index(place, MeanColour.spec).close()
    source = cbir.open_source(str(write_photos(tmp_path / "photos", per_colour=1)))
    with closing(cbir.Searcher.open(place, Silent())) as searcher:
        with pytest.raises(QueryError, match="k is 0"):
            measure_recall(searcher, source, 0)
        with pytest.raises(QueryError, match=r"e\.cbir is empty"):
            measure_recall(searcher, source, 3)


def test_recall_says_what_it_is_doing(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=3)
    place = str(tmp_path / "p.cbir")
    cbir.index_images([photos], place, descriptor=MeanColour())
    source = cbir.open_source(str(write_photos(tmp_path / "asked", per_colour=100)))
    told: list[tuple[str, int, int | None]] = []
    with closing(cbir.Searcher.open(place, MeanColour())) as searcher:
        measure_recall(searcher, source, 3, on_stage=lambda *stage: told.append(stage))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        *("describing", "searching exactly", "searching"),
        *("timing", "timing exactly"),
    ]
    exactly = [(done, total) for stage, done, total in told if stage == "searching exactly"]
    assert exactly == [(0, 300), (256, 300), (300, 300)]
    assert [(done, total) for stage, done, total in told if stage == "searching"] == exactly
    assert told[-1] == ("timing exactly", 100, 100)


def test_queries_that_are_indexed_are_left_out_of_the_measurement(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=3)
    place = str(tmp_path / "p.cbir")
    cbir.index_images([photos], place, descriptor=MeanColour())
    write_photos(tmp_path / "more", per_colour=5)
    for colour in ("red", "green"):
        (tmp_path / "more" / colour / "4.png").rename(photos / colour / "4.png")
    searcher = cbir.Searcher.open(place, MeanColour())
    result = measure_recall(searcher, cbir.open_source(str(photos)), 3)
    assert (len(result.per_query), result.left_out) == (2, 9)
    assert result.to_json()["recall"] == 1
    other = measure_recall(searcher, cbir.open_source(str(tmp_path / "more")), 3)
    assert (len(other.per_query), other.left_out) == (13, 0)
    for colour in ("red", "green"):
        (photos / colour / "4.png").unlink()
    with pytest.raises(QueryError, match=r"all images of .* are in the index"):
        measure_recall(searcher, cbir.open_source(str(photos)), 3)
    searcher.close()


def test_recall_is_asked_alone(tmp_path: Path) -> None:
    answer = call("evaluate", "--in", "a.cbir", "--recall", 5, "--report", tmp_path)
    assert answer.code == 2
    assert "--report cannot be used with --recall" in answer.err
    answer = call("evaluate", "--in", "a.cbir", "--recall", 5)
    assert answer.code == 2
    assert "--recall needs one --in INDEX and --queries SOURCE" in answer.err


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture(params=["hnsw", "int8_hnsw", "flat"])
def index(
    request: pytest.FixtureRequest, server: Address, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    name = f"recall-{uuid.uuid4().hex[:8]}"
    url = server.index_url(name)
    made_index(f"{url}?type={request.param}", unit_rows(0, 3000)).close()
    try:
        # So few candidates that approximate search must miss some.
        with closing(open_index(f"{url}?num_candidates=10&oversample=1")) as opened:
            yield opened
    finally:
        server.request("DELETE", f"/{name}-000001")


@pytest.mark.elasticsearch
def test_recall_is_measured_on_the_server(index: Index) -> None:
    rows, asked = unit_rows(0, 3000), unit_rows(1, 60)
    result = recall_of(index, asked, 10)
    best = np.argsort(-(asked @ rows.T), axis=1)[:, :10]
    found = [[int(name[2:]) for name in each.ids] for each in index.search(asked, 10)]
    expected = [len(set(f) & set(b)) / 10 for f, b in zip(found, best.tolist(), strict=True)]
    np.testing.assert_allclose(result.per_query, expected)
    kind = index.info()["type"]
    assert result.exact is (kind == "flat")
    assert (result.to_json()["recall"] == 1) or kind != "flat"
