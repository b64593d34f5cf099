from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import cbir
from cbir.evaluation import describe_queries, evaluate
from cbir.images.decode import load_pixels
from cbir.index.base import difference
from cbir.types import RgbImage, Vectors
from tests.index.elasticsearch.support_elasticsearch import session_server

pytestmark = [pytest.mark.cifar10, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = str(tmp_path_factory.mktemp("cifar10") / "cifar10.cbir")
    report = cbir.index_images(["cifar10:train"], place)
    assert (report.added, report.failures) == (50_000, [])
    return place


def test_the_shipped_model_reaches_what_the_readme_says(place: str) -> None:
    searcher = cbir.Searcher.open(place)
    result = evaluate(searcher, cbir.open_source("cifar10:test"))
    assert (result.n_queries, result.n_indexed) == (10_000, 50_000)
    assert result.measures["nAP@100"] >= 0.885
    assert result.measures["AP@100"] == pytest.approx(result.measures["nAP@100"] * 100 / 5000)
    assert result.unseen_index is not None and result.unseen_index["nAP@100"] >= 0.86
    assert result.training_images_indexed
    assert result.accuracy is not None
    assert result.accuracy["training_images"] == pytest.approx(0.9726, abs=0.005)
    assert result.accuracy["queries"] == pytest.approx(0.9176, abs=0.005)
    searcher.close()


def described(searcher: cbir.Searcher, images: list[bytes | RgbImage]) -> Vectors:
    return searcher.descriptor.describe([load_pixels(image) for image in images])


def test_search_is_exact_over_all_images(place: str) -> None:
    searcher = cbir.Searcher.open(place)
    ids, matrix = searcher.index.matrix()
    items = list(cbir.open_source("cifar10:test").items())[::500]
    vectors = described(searcher, [item.read() for item in items])
    scores = vectors.astype(np.float64) @ matrix.T.astype(np.float64)
    for row, found in zip(scores, searcher.index.search(vectors, 100), strict=True):
        np.testing.assert_allclose(found.scores, np.sort(row)[::-1][:100], atol=1e-6)
        best = {ids[i] for i in np.flatnonzero(row > found.scores[-1] + 2e-6)}
        assert best <= set(found.ids)
    searcher.close()


def test_a_second_run_describes_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cbir.descriptors.onnx import OnnxDescriptor

    described: list[int] = []
    original = OnnxDescriptor.describe
    monkeypatch.setattr(
        OnnxDescriptor, "describe", lambda self, x: described.append(len(x)) or original(self, x)
    )
    report = cbir.index_images(["cifar10:train"], place)
    assert (report.added, report.updated, report.unchanged) == (0, 0, 50_000)
    assert sum(described) == 2  # the check that the model runs at all


def test_no_label_of_an_indexed_image_enters_its_vector(place: str, tmp_path: Path) -> None:
    searcher = cbir.Searcher.open(place)
    item = next(cbir.open_source("cifar10:train").items())
    data = item.read()
    assert isinstance(data, bytes)
    (tmp_path / "unlabelled.jpg").write_bytes(data)
    hit = searcher.search(tmp_path / "unlabelled.jpg", k=1)[0]
    assert hit.score == pytest.approx(1, abs=2e-6)
    np.testing.assert_allclose(
        described(searcher, [data])[0], searcher.index.vectors(hit.id)[0], atol=2e-6
    )
    searcher.close()


@pytest.mark.elasticsearch
def test_a_server_answers_as_the_embedded_index_does(
    place: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = session_server(tmp_path_factory)
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    name = f"cifar10-{uuid.uuid4().hex[:8]}"
    url = server.index_url(name)
    try:
        report = cbir.copy_index(place, url)
        assert (report.copied, report.compared, report.exact) == (50_000, 50, True)
        _compare(place, url)
    finally:
        server.request("DELETE", f"/{name}-000001")


def _compare(place: str, url: str) -> None:
    """The same 100 best for 1,000 queries, and the same measures to four decimals."""
    with closing(cbir.Searcher.open(place)) as one, closing(cbir.Searcher.open(url)) as other:
        source = cbir.open_source("cifar10:test")
        vectors = describe_queries(one, source, sample=1000).vectors
        answers = [each.index.search(vectors, 100, exact=True) for each in (one, other)]
        for mine, theirs in zip(*answers, strict=True):
            assert difference(mine, theirs) == ""
        figures = [evaluate(searcher, source, sample=1000).measures for searcher in (one, other)]
        for measure in ("AP@100", "nAP@100"):
            assert figures[0][measure] == pytest.approx(figures[1][measure], abs=5e-5)
