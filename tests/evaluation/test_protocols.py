from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cbir
from cbir.errors import CbirError, QueryError
from cbir.evaluation import describe_queries, evaluate, query_labels, rank
from cbir.evaluation.protocols import ranked_measures
from cbir.images.items import ImageSource
from cbir.measures.by_class import class_qrels
from cbir.measures.trec import read_run, write_run
from cbir.measures.trec_eval import evaluate_run
from cbir.types import DescriptorSpec, RgbImage, Vectors
from tests.descriptors.local.support_textures import write_textures
from tests.descriptors.support_photos import write_photos


class Noisy:
    """The mean colour and much noise drawn from the pixels, so that the classes overlap."""

    spec = DescriptorSpec("noisy", 6, "ef" * 32, {"decoder": "Pillow"}, "", "MIT")

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        return np.stack([self._row(image) for image in images])

    def _row(self, image: RgbImage) -> Vectors:
        row = 0.5 * np.random.default_rng(int(image.sum())).normal(size=6)
        row[:3] += image.reshape(-1, 3).mean(axis=0) / 255
        return (row / np.linalg.norm(row)).astype(np.float32)


class Constant:
    """The same vector for every picture: every order is as good as any other."""

    spec = DescriptorSpec("constant", 4, "cd" * 32, {"decoder": "Pillow"}, "", "MIT")

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        return np.full((len(images), 4), 0.5, dtype=np.float32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("protocols") / "photos", per_colour=9)


@pytest.fixture(scope="module")
def indexed(photos: Path) -> cbir.Searcher:
    place = photos.parent / "p.cbir"
    cbir.index_images([photos], place, descriptor=Noisy(), label_from_folder=True)
    return cbir.Searcher.open(place, Noisy())


@pytest.fixture
def queries(tmp_path: Path) -> ImageSource:
    folder = write_photos(tmp_path / "queries", per_colour=5)
    (folder / "red" / "0.png").rename(folder / "blue" / "9.png")
    return cbir.open_source(str(folder), label_from_folder=True)


def by_trec_eval(
    searcher: cbir.Searcher, source: ImageSource, folder: Path, names: list[str]
) -> dict[str, float]:
    """Means of measures of the whole ranking, as trec_eval finds them in a run file."""
    described = describe_queries(searcher, source)
    matches = rank(searcher, described, k=searcher.index.count())
    answered = ((q, m.ids, m.scores) for q, m in zip(described.ids, matches, strict=True))
    write_run(folder / "a.run", answered, "test")
    qrels: dict[str, dict[str, int]] = {}
    judged = class_qrels(query_labels(searcher.index, source), searcher.index.labels())
    for query, document, relevance in judged:
        qrels.setdefault(query, {})[document] = relevance
    return evaluate_run(qrels, read_run(folder / "a.run"), names).means


def test_the_whole_ranking_measures_as_trec_eval_does(
    indexed: cbir.Searcher, queries: ImageSource, tmp_path: Path
) -> None:
    names = ["AP", "P@3", "Rprec", "nDCG"]
    result = evaluate(indexed, queries, names)
    expected = by_trec_eval(indexed, queries, tmp_path, names)
    assert result.measures == pytest.approx(expected, abs=1e-6)
    assert 0 < result.measures["AP"] < 1
    assert all(len(found.ids) == 27 for found in result.matches)


def test_the_whole_ranking_of_an_index_of_parts_is_by_the_best_part(
    photos: Path, queries: ImageSource, tmp_path: Path
) -> None:
    place = tmp_path / "parts.cbir"
    cbir.index_images([photos], place, descriptor=Noisy(), label_from_folder=True, regions=5)
    searcher = cbir.Searcher.open(place, Noisy())
    result = evaluate(searcher, queries, ["AP"], protocol="usual")
    expected = by_trec_eval(searcher, queries, tmp_path, ["AP"])
    assert result.measures == pytest.approx(expected, abs=1e-6)
    with pytest.raises(QueryError, match="several vectors per image"):
        evaluate(searcher, queries, ["AP"], shuffle=1)
    searcher.close()


@pytest.mark.parametrize("regions", [1, 5])
def test_deep_cut_offs_are_measured_whatever_is_kept_of_the_answers(
    photos: Path, queries: ImageSource, tmp_path: Path, regions: int
) -> None:
    place = tmp_path / "deep.cbir"
    cbir.index_images([photos], place, descriptor=Noisy(), label_from_folder=True, regions=regions)
    searcher = cbir.Searcher.open(place, Noisy())
    described = describe_queries(searcher, queries)
    first = rank(searcher, described, k=2)
    deep = ranked_measures(searcher, described, first, ["AP@2000", "P@20"])
    whole = ranked_measures(searcher, described, first, ["AP", "P@20"])
    np.testing.assert_array_equal(deep["AP@2000"], whole["AP"])
    np.testing.assert_array_equal(deep["P@20"], whole["P@20"])
    assert 0 < deep["P@20"].mean() < 1
    searcher.close()


def test_images_that_are_queries_too_are_left_out_of_the_whole_ranking(
    indexed: cbir.Searcher, photos: Path, tmp_path: Path
) -> None:
    source = cbir.open_source(str(photos), label_from_folder=True)
    result = evaluate(indexed, source, ["AP"])
    expected = by_trec_eval(indexed, source, tmp_path, ["AP"])
    assert result.measures == pytest.approx(expected, abs=1e-6)
    assert result.unseen_index == pytest.approx(result.measures)  # the same images either way


def test_expanded_queries_have_whole_rankings_too(
    indexed: cbir.Searcher, queries: ImageSource
) -> None:
    whole = evaluate(indexed, queries, ["AP"], expand=4).measures["AP"]
    deep = evaluate(indexed, queries, ["AP@27"], expand=4).measures["AP@27"]
    assert whole == pytest.approx(deep, abs=1e-12)
    assert whole != evaluate(indexed, queries, ["AP"]).measures["AP"]


def test_a_protocol_alone_has_its_figures_and_answers(
    indexed: cbir.Searcher, queries: ImageSource
) -> None:
    both = evaluate(indexed, queries, ["P@3", "AP"])
    usual = evaluate(indexed, queries, ["P@3", "AP"], protocol="usual")
    unseen = evaluate(indexed, queries, ["P@3", "AP"], protocol="unseen")
    assert usual.measures == both.measures and usual.unseen_index is None
    assert unseen.measures == unseen.unseen_index == both.unseen_index
    assert unseen.measures != both.measures
    asked = set(unseen.queries.ids)
    for query, found in zip(unseen.queries.ids, unseen.matches, strict=True):
        assert set(found.ids) == asked - {query}
        assert list(found.scores) == sorted(found.scores, reverse=True)


def test_a_sample_cannot_be_its_own_index(indexed: cbir.Searcher, queries: ImageSource) -> None:
    with pytest.raises(QueryError, match="Leave-one-out needs all queries"):
        evaluate(indexed, queries, sample=5, protocol="unseen")


def test_shuffled_ids_change_nothing_where_scores_differ(
    indexed: cbir.Searcher, queries: ImageSource
) -> None:
    plain, other = (evaluate(indexed, queries, ["P@3", "RR@5"], shuffle=s) for s in (None, 1))
    assert plain.measures == other.measures and plain.unseen_index == other.unseen_index
    for one, another in zip(plain.matches, other.matches, strict=True):
        assert one.ids == another.ids
        np.testing.assert_array_equal(one.scores, another.scores)
    assert (plain.options.shuffle, other.to_json()["shuffle_ids"]) == (None, 1)


def test_shuffled_ids_show_what_only_the_order_of_ids_had_found(
    photos: Path, queries: ImageSource, tmp_path: Path
) -> None:
    place = tmp_path / "constant.cbir"
    cbir.index_images([photos], place, descriptor=Constant(), label_from_folder=True)
    searcher = cbir.Searcher.open(place, Constant())
    blue = evaluate(searcher, queries, ["P@9"], protocol="usual")
    labels = np.array(blue.queries.labels)
    assert (blue.per_query["P@9"][labels == "blue"] == 1).all()  # "blue" is the first of the ids
    assert (blue.per_query["P@9"][labels != "blue"] == 0).all()
    seeded = [evaluate(searcher, queries, ["P@9"], shuffle=s).measures["P@9"] for s in range(20)]
    assert len(set(seeded)) > 1
    assert np.mean(seeded) == pytest.approx(1 / 3, abs=0.08)
    searcher.close()


def test_codes_have_figures_under_each_protocol(
    indexed: cbir.Searcher, queries: ImageSource
) -> None:
    result = evaluate(indexed, queries, ["P@3"], bits=3)
    assert result.hamming is not None
    coded = result.to_json()["hamming"]
    assert (coded["bits"], coded["seed"]) == (3, 0)
    assert set(coded["measures"]) == set(coded["unseen_index"]) == {"AP", "P@3"}
    assert 1 / 3 < coded["measures"]["AP"] < 1  # three bits of noisy colours
    usual = evaluate(indexed, queries, ["P@3"], bits=3, protocol="usual").hamming
    assert usual is not None
    assert usual.means == {"usual": coded["measures"]}
    assert evaluate(indexed, queries, ["P@3"]).to_json()["hamming"] is None
    with pytest.raises(CbirError, match="codes of 64 bits need more than 6 dimensions"):
        evaluate(indexed, queries, bits=64)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"expand": -1}, "expand is -1"),
        ({"expand": -1, "protocol": "unseen"}, "expand is -1"),
        ({"bits": 999}, "999 bits"),
        ({"bits": 0}, "codes of 0 bits"),
        ({"measures": ["Bpref"]}, "Bpref"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_described(
    indexed: cbir.Searcher, queries: ImageSource, asked: dict[str, Any], told: str
) -> None:
    stages: list[str] = []
    with pytest.raises(CbirError, match=told):
        evaluate(indexed, queries, on_stage=lambda stage, *_: stages.append(stage), **asked)
    assert not stages


def test_a_sample_of_all_is_no_sample(indexed: cbir.Searcher, queries: ImageSource) -> None:
    whole = evaluate(indexed, queries)
    assert queries.count is not None and whole.options.sample is None
    for sample in (queries.count, queries.count + 5):
        result = evaluate(indexed, queries, sample=sample)
        assert (result.options.sample, result.unseen_index) == (None, whole.unseen_index)
    assert evaluate(indexed, queries, sample=queries.count - 1).unseen_index is None


def test_every_stage_is_told(indexed: cbir.Searcher, tmp_path: Path) -> None:
    others = write_textures(tmp_path / "others" / "red", 4).parent
    queries = cbir.open_source(str(others), label_from_folder=True)
    told: dict[str, list[tuple[int, int | None]]] = {}
    evaluate(
        indexed,
        queries,
        ["AP"],
        bits=3,
        without_near_duplicates=True,
        on_stage=lambda stage, done, total: told.setdefault(stage, []).append((done, total)),
    )
    assert list(told) == [
        *("describing", "comparing pictures", "searching"),
        *("measuring", "leave-one-out", "binary codes"),
    ]
    for stage in ("describing", "comparing pictures", "measuring", "leave-one-out", "binary codes"):
        done, total = told[stage][-1]
        assert done == total, stage
