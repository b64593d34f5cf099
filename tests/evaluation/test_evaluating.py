from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError, QueryError
from cbir.evaluation import (
    EvaluationOptions,
    Queries,
    describe_queries,
    evaluate,
    query_labels,
    rank,
)
from cbir.evaluation.protocols import unseen_trial
from cbir.evaluation.queries import labelled, require_labels_in, require_relevant
from cbir.evaluation.rankings import trial_measures
from cbir.images.folders import FolderSource
from cbir.images.items import ImageSource, SourceItem
from cbir.measures.by_class import class_qrels
from cbir.measures.trec import read_qrels, read_run, write_run
from cbir.measures.trec_eval import evaluate_run
from cbir.types import RgbImage, Vectors
from tests.cli.support_cli import call
from tests.descriptors.support_photos import COLOURS, MeanColour, picture, write_photos

MEASURES = ("AP@5", "P@3", "R@5", "RR@5")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> cbir.Searcher:
    folder = tmp_path_factory.mktemp("experiment")
    photos = write_photos(folder / "photos", per_colour=9)
    cbir.index_images(
        [str(photos)], str(folder / "p.cbir"), descriptor=MeanColour(), label_from_folder=True
    )
    return cbir.Searcher.open(str(folder / "p.cbir"), MeanColour())


@pytest.fixture
def queries(tmp_path: Path) -> ImageSource:
    # Mean colours say little about these: the classes overlap, so the figures are not all 1.
    folder = write_photos(tmp_path / "queries", per_colour=5)
    (folder / "red" / "0.png").rename(folder / "blue" / "9.png")
    return cbir.open_source(str(folder), label_from_folder=True)


def test_figures_equal_trec_evals_on_the_written_run(
    indexed: cbir.Searcher, queries: ImageSource, tmp_path: Path
) -> None:
    result = evaluate(indexed, queries, MEASURES)
    described = describe_queries(indexed, queries)
    matches = rank(indexed, described, k=5)
    write_run(
        tmp_path / "a.run",
        ((q, m.ids, m.scores) for q, m in zip(described.ids, matches, strict=True)),
        "test",
    )
    qrels: dict[str, dict[str, int]] = {}
    for query, document, relevance in class_qrels(
        query_labels(indexed.index, queries), indexed.index.labels()
    ):
        qrels.setdefault(query, {})[document] = relevance
    expected = evaluate_run(qrels, read_run(tmp_path / "a.run"), list(result.measures))
    assert set(result.measures) == {"AP@5", "nAP@5", "P@3", "R@5", "RR@5"}
    for name, value in result.measures.items():
        assert value == pytest.approx(expected.means[name], abs=1e-6)
        per_query = dict(zip(described.ids, result.per_query[name], strict=True))
        assert per_query == pytest.approx(expected.per_query[name], abs=1e-6)
    assert 0 < result.measures["AP@5"] < 1


def test_queries_that_are_indexed_are_left_out_of_their_own_answers(
    indexed: cbir.Searcher,
) -> None:
    folder = indexed.index.sources()["photos"]
    source = cbir.open_source(folder, label_from_folder=True)
    described = describe_queries(indexed, source)
    assert set(described.ids) == set(indexed.index.ids())
    for query, found in zip(described.ids, rank(indexed, described, k=100), strict=True):
        assert query not in found.ids
        assert len(found.ids) == 26
    assert evaluate(indexed, source, ["R@100"]).measures["R@100"] == pytest.approx(1)


class _Counting:
    """Mean colours, and how many pictures were described."""

    def __init__(self) -> None:
        self.spec, self.described = MeanColour().spec, 0

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        self.described += len(images)
        return MeanColour().describe(images)


def test_what_is_indexed_is_not_described_again_and_the_figures_are_the_same(
    indexed: cbir.Searcher, tmp_path: Path
) -> None:
    """Copies under other names, with other labels, beside new and changed pictures."""
    photos = Path(indexed.index.sources()["photos"])
    folder = write_photos(tmp_path / "mixed", per_colour=12)
    shutil.copy(photos / "red" / "1.png", folder / "red" / "copy.png")
    shutil.copy(photos / "red" / "2.png", folder / "blue" / "not blue.png")
    for place, new in ((photos, 0), (folder, 9)):
        counting = _Counting()
        with cbir.Searcher.open(indexed.index.url, counting) as searcher:
            source = cbir.open_source(str(place), label_from_folder=True)
            found = evaluate(searcher, source, MEASURES, bits=3)
            assert counting.described == new
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(searcher.index, "stamps", lambda source: {})
                anew = evaluate(searcher, source, MEASURES, bits=3)
            assert counting.described == new + len(found.queries.ids)
        assert found.to_json() == {**anew.to_json(), "seconds": found.seconds}
        assert found.per_query.keys() == anew.per_query.keys()
        for name, values in found.per_query.items():
            np.testing.assert_array_equal(values, anew.per_query[name])
        assert found.queries.ids == anew.queries.ids
        assert found.queries.labels == anew.queries.labels
        assert found.queries.hashes == anew.queries.hashes
        assert found.queries.thumbnails == anew.queries.thumbnails
        np.testing.assert_array_equal(found.queries.vectors, anew.queries.vectors)


def test_the_unseen_index_is_the_queries_searched_among_each_other(
    indexed: cbir.Searcher, queries: ImageSource, tmp_path: Path
) -> None:
    result = evaluate(indexed, queries, MEASURES)
    described = describe_queries(indexed, queries)
    labels = np.array(described.labels)
    scores = described.vectors @ described.vectors.T
    np.fill_diagonal(scores, -2)
    precision = [
        float((labels[np.argsort(-row, kind="stable")[:3]] == label).mean())
        for row, label in zip(scores, labels, strict=True)
    ]
    assert result.unseen_index is not None
    assert result.unseen_index["P@3"] == pytest.approx(np.mean(precision))


def test_a_sample_is_the_same_every_time(indexed: cbir.Searcher, queries: ImageSource) -> None:
    first = describe_queries(indexed, queries, sample=6)
    assert len(first.ids) == 6
    assert first.ids == describe_queries(indexed, queries, sample=6).ids
    assert evaluate(indexed, queries, sample=6).n_queries == 6


def test_queries_without_labels_are_refused(indexed: cbir.Searcher, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "plain", per_colour=1)
    with pytest.raises(QueryError, match=r"queries of .* have no label"):
        evaluate(indexed, cbir.open_source(str(folder)))


def test_an_archive_that_holds_an_image_twice_asks_once_and_with_the_last_as_ingest_does(
    tmp_path: Path,
) -> None:
    names = ("red/a.png", "blue/b.png", "red/a.png", "./red/a.png")
    members = zip(names, ("red", "blue", "green", "blue"), strict=True)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for number, (name, colour) in enumerate(members):
            data = io.BytesIO()
            Image.fromarray(picture(COLOURS[colour], seed=number)).save(data, "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(data.getvalue())
            archive.addfile(info, io.BytesIO(data.getvalue()))
    archive_path, place = str(tmp_path / "t.tar"), str(tmp_path / "t.cbir")
    cbir.index_images([archive_path], place, descriptor=MeanColour(), label_from_folder=True)
    searcher = cbir.Searcher.open(place, MeanColour())
    source = cbir.open_source(archive_path, label_from_folder=True)
    labels = {"t/red/a.png": "red", "t/blue/b.png": "blue"}
    assert query_labels(searcher.index, source) == list(labels.items())
    for sample in (None, 2, 3):
        told: list[int] = []
        on_done = lambda done, _, told=told: told.append(done)  # noqa: E731
        found = describe_queries(searcher, source, sample, on_done)
        assert dict(zip(found.ids, found.labels, strict=True)) == labels
        assert len(found.vectors) == len(found.thumbnails) == 2
        for query, vector in zip(found.ids, found.vectors, strict=True):
            assert np.array_equal(vector, searcher.index.vectors(query)[0])
        assert told == [4 if sample is None else 2]
    searcher.close()


def test_queries_without_a_label_are_split_off_and_named(
    indexed: cbir.Searcher, tmp_path: Path
) -> None:
    class FirstUnlabelled(FolderSource):
        def items(self) -> Iterator[SourceItem]:
            for number, item in enumerate(super().items()):
                yield replace(item, label=item.label if number else None)

    folder = write_photos(tmp_path / "some", per_colour=1)
    source = FirstUnlabelled(folder, label_from_folder=True)
    require_labels_in(indexed, source)  # though its first image has none
    described = describe_queries(indexed, source)
    assert None in described.labels
    some = labelled(source, described)
    assert (some.ids, some.labels) == (["some/green/0.png", "some/red/0.png"], ["green", "red"])
    assert some.unlabelled == ["some/blue/0.png"]
    assert np.array_equal(some.vectors, described.vectors[1:])
    assert some.chosen([1]).unlabelled == some.unlabelled
    assert labelled(source, some).unlabelled == some.unlabelled
    plain = cbir.open_source(str(folder))
    for check in (
        lambda: require_labels_in(indexed, plain),
        lambda: labelled(plain, describe_queries(indexed, plain)),
    ):
        with pytest.raises(QueryError, match=r"queries of .* have no label"):
            check()


def test_labels_that_no_indexed_image_has_are_found(indexed: cbir.Searcher, tmp_path: Path) -> None:
    source = cbir.open_source(str(write_photos(tmp_path / "asked", per_colour=1)))
    asked = ["zebra", "red", None, "lion", "zebra", "red"]
    assert require_relevant(indexed.index, source, asked) == ["lion", "zebra"]
    assert require_relevant(indexed.index, source, ["blue"]) == []
    with pytest.raises(QueryError) as error:
        require_relevant(indexed.index, source, ["zebra", "lion", None])
    assert error.value.message == (
        f"no image of {indexed.index.url} has a label of {source.uri}, "
        "so nothing is relevant to any query"
    )
    assert error.value.hint == (
        "the queries have 'lion', 'zebra', the index has 'blue', 'green', 'red'"
    )


def test_queries_that_fail_are_named_and_left_out(indexed: cbir.Searcher, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "mixed", per_colour=1)
    (folder / "red" / "bad.jpg").write_text("no picture")
    result = evaluate(indexed, cbir.open_source(str(folder), label_from_folder=True))
    assert result.n_queries == len(COLOURS)
    assert [failure.location for failure in result.failures] == ["red/bad.jpg"]


def test_every_family_is_measured_by_class(indexed: cbir.Searcher, queries: ImageSource) -> None:
    result = evaluate(indexed, queries, ["nDCG@5", "Rprec"])
    assert set(result.measures) == {"nDCG@5", "Rprec"}
    assert 0 < result.measures["Rprec"] < 1
    with pytest.raises(CbirError, match="'Bpref' is for incomplete judgements"):
        evaluate(indexed, queries, ["Bpref"])


def test_a_descriptor_without_training_has_no_accuracies(
    indexed: cbir.Searcher, queries: ImageSource
) -> None:
    result = evaluate(indexed, queries)
    assert result.accuracy is None
    assert result.trained_on == ""


def test_a_trained_descriptor_shows_its_three_figures(tmp_path: Path) -> None:
    place = str(tmp_path / "d.cbir")
    cbir.index_images(["digits:train"], place, descriptor="cifar10-cnn:embedding")
    searcher = cbir.Searcher.open(place)
    result = evaluate(searcher, cbir.open_source("digits:test"))
    assert result.n_queries == 1797 - result.n_indexed
    assert result.measures["P@10"] > 0.3  # digits are not its classes; chance is 0.1
    assert result.unseen_index is not None
    assert result.accuracy == {
        "training_images": None,
        "queries": None,
    }  # none of its classes are here
    assert "CIFAR-10" in result.trained_on and not result.training_images_indexed
    searcher.close()


def test_queries_of_another_folder_of_the_same_name_keep_their_twins(tmp_path: Path) -> None:
    indexed = write_photos(tmp_path / "train" / "images", per_colour=3)
    queries = write_photos(tmp_path / "test" / "images", per_colour=3)
    place = tmp_path / "p.cbir"
    cbir.index_images([indexed], place, descriptor=MeanColour(), label_from_folder=True)
    searcher = cbir.Searcher.open(place, MeanColour())
    described = describe_queries(searcher, cbir.open_source(str(queries), label_from_folder=True))
    assert all(query.startswith("images-2/") for query in described.ids)
    assert all(len(found.ids) == 9 for found in rank(searcher, described, k=100))
    searcher.close()


def test_an_index_without_labels_is_refused_before_anything_is_described(
    tmp_path: Path, queries: ImageSource
) -> None:
    place = tmp_path / "p.cbir"
    photos = write_photos(tmp_path / "photos", per_colour=1)
    cbir.index_images([photos], place, descriptor=MeanColour())

    class Silent(MeanColour):
        def describe(self, images: object) -> np.ndarray:  # type: ignore[override]
            raise AssertionError("described")

    searcher = cbir.Searcher.open(place, Silent())
    with pytest.raises(QueryError, match="has no labels"):
        evaluate(searcher, queries)
    searcher.close()


def test_a_measure_without_a_cutoff_reads_a_ranking_longer_than_k_may_be(tmp_path: Path) -> None:
    from cbir.index.base import Entry
    from cbir.index.open import create_index
    from cbir.types import WHOLE, ImageRecord

    count = 10_500
    vectors = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place = str(tmp_path / "large.cbir")
    index = create_index(place, MeanColour.spec)
    source = index.register_source("many", "/many")
    records = [
        ImageRecord(f"many/{n}", source, str(n), list(COLOURS)[n % 3], f"{n:064x}", 1, 1)
        for n in range(count)
    ]
    index.add([Entry(r, vectors[n : n + 1], [WHOLE], b"t") for n, r in enumerate(records)])
    index.close()
    searcher = cbir.Searcher.open(place, MeanColour())
    queries = cbir.open_source(str(write_photos(tmp_path / "q", per_colour=1)), True)
    result = evaluate(searcher, queries, ["AP"])
    assert result.measures["AP"] == pytest.approx(1 / 3, abs=0.02)  # random vectors
    searcher.close()


def test_the_unseen_index_expands_queries_too() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 16))
    labels = np.arange(200) % 4
    vectors = (centres[labels] + 2 * random.normal(size=(200, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = Queries([f"q/{n:03}" for n in range(200)], [str(x) for x in labels], vectors)
    plain = trial_measures(unseen_trial(queries), ["AP@20"])["AP@20"].mean()
    options = EvaluationOptions(search=cbir.SearchOptions(expand=5))
    expanded = trial_measures(unseen_trial(queries, options), ["AP@20"])["AP@20"].mean()
    assert expanded > plain + 0.01


@pytest.mark.parametrize("text", ["digits:test", "queries", "queries/blue/9.png"])
def test_an_evaluation_says_what_was_asked(
    indexed: cbir.Searcher, queries: ImageSource, text: str
) -> None:
    place = text if text.startswith("digits") else f"{Path(queries.uri).parent}/{text}"
    source = cbir.open_source(place, label_from_folder=True)
    result = evaluate(indexed, source, ["P@1"], protocol="unseen")
    assert result.source == result.to_json()["source"] == place


def test_a_sample_has_no_unseen_index(indexed: cbir.Searcher, queries: ImageSource) -> None:
    assert evaluate(indexed, queries, sample=6).unseen_index is None


def test_only_what_was_trained_on_counts_as_training_images(tmp_path: Path) -> None:
    place = tmp_path / "d.cbir"
    cbir.index_images(["digits:test"], place, descriptor="cifar10-cnn")
    searcher = cbir.Searcher.open(place)
    assert not evaluate(searcher, cbir.open_source("digits:train"), ["P@1"]).training_images_indexed
    searcher.close()


def write_labels(file: Path, photos: Path) -> Path:
    """A table that labels the photos by their paths, each class under a name of its own."""
    named = {"red": "blue", "green": "red", "blue": "green"}
    rows = [
        f"{path.relative_to(photos).as_posix()},{named[path.parent.name]}"
        for path in sorted(photos.rglob("*.png"))
    ]
    file.write_text("\n".join(["path,label", *rows]))
    return file


def test_queries_are_labelled_by_a_table(indexed: cbir.Searcher, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "asked", per_colour=2)
    table = write_labels(tmp_path / "labels.csv", photos)
    source = cbir.open_source(str(photos))
    result = evaluate(indexed, source, ["P@1"], metadata=table)
    assert result.queries.labels == ["green"] * 2 + ["red"] * 2 + ["blue"] * 2
    assert result.measures["P@1"] == 0  # what is red is called blue
    # It wins over the folder's name.
    folders = cbir.open_source(str(photos), label_from_folder=True)
    assert evaluate(indexed, folders, ["P@1"], metadata=table).measures["P@1"] == 0
    assert evaluate(indexed, folders, ["P@1"]).measures["P@1"] == 1
    asked = ["--in", indexed.index.url, "--metadata", table]
    assert call("qrels", photos, *asked, "-o", tmp_path / "q").code == 0
    judged = read_qrels(tmp_path / "q")
    assert all("/blue/" in document for document in judged["asked/red/0.png"])
    # Several tables add up: a later label counts, an empty cell changes nothing.
    later = tmp_path / "later.csv"
    later.write_text("path,label\nred/0.png,red\nred/1.png,\n")
    result = evaluate(indexed, source, ["P@1"], metadata=[table, later])
    by_id = dict(zip(result.queries.ids, result.queries.labels, strict=True))
    assert (by_id["asked/red/0.png"], by_id["asked/red/1.png"]) == ("red", "blue")
    assert call("qrels", photos, *asked, "--metadata", later, "-o", tmp_path / "q").code == 0
    judged = read_qrels(tmp_path / "q")
    assert all("/red/" in document for document in judged["asked/red/0.png"])
    assert all("/blue/" in document for document in judged["asked/red/1.png"])
    told = call(
        "evaluate",
        "--queries",
        photos,
        *asked,
        "--metadata",
        later,
        "--json",
        "--descriptor",
        "tests.descriptors.support_photos:MeanColour",
    ).json
    assert told["measures"]["P@10"] > 0


def test_an_indexed_query_has_the_label_that_the_index_knows(
    indexed: cbir.Searcher, tmp_path: Path
) -> None:
    [photos] = indexed.index.sources().values()
    result = evaluate(indexed, cbir.open_source(photos), ["P@1"])
    assert set(result.queries.labels) == {"red", "green", "blue"}
    assert result.overlap.indexed == result.n_queries == indexed.index.count()
    assert (
        "27 of 27 queries are indexed, each left out of its own results."
        in result.to_json()["notes"]
    )


def test_what_queries_and_index_have_in_common_is_told(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=3)
    place = tmp_path / "p.cbir"
    cbir.index_images([photos], place, descriptor=MeanColour(), label_from_folder=True)
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.fromarray(picture((90, 90, 90), seed=77)).save(bare / "x.png")
    cbir.index_images([bare], place, descriptor=MeanColour())
    asked = tmp_path / "asked"
    for name, source in (("red/a.png", "red/1.png"), ("red/b.png", ""), ("blue/c.png", "")):
        (asked / name).parent.mkdir(parents=True, exist_ok=True)
        if source:
            shutil.copy(photos / source, asked / name)
        else:
            Image.fromarray(picture((200, 60, 60), seed=len(name))).save(asked / name)
    with closing(cbir.Searcher.open(place, MeanColour())) as searcher:
        result = evaluate(searcher, cbir.open_source(str(asked), label_from_folder=True), ["P@1"])
    assert asdict(result.overlap) == {"indexed": 0, "same_file": 1, "alone": 1, "unlabelled": 1}
    assert result.to_json()["notes"] == [
        "1 of 10 indexed images have no label and are never relevant.",
        "Leave-one-out: 1 query whose label no other query has, counted as 0.",
        "1 of 3 queries find their own file under another id, which is an easy match.",
    ]
