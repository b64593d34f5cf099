"""Searching by words, alone and together with a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import MissingExtraError, QueryError
from cbir.search.orient import in_every_orientation
from cbir.search.query import MAX_TEXT
from cbir.types import Vectors
from tests.descriptors.local.support_textures import texture
from tests.descriptors.support_photos import (
    COLOURS,
    ColourWords,
    MeanColour,
    picture,
    write_photos,
)

WORDS = ColourWords()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("words") / "photos", per_colour=6)


@pytest.fixture(scope="module")
def searcher(folder: Path) -> Iterator[cbir.Searcher]:
    place = folder.parent / "photos.cbir"
    cbir.index_images([folder], place, descriptor=WORDS, label_from_folder=True)
    opened = cbir.Searcher.open(place, WORDS)
    yield opened
    opened.close()


def mixed(text: str, pictures: Vectors, weight: float) -> Vectors:
    """The weighted sums, with NumPy alone."""
    sums = weight * WORDS.describe_texts([text]).astype(np.float64) + (1 - weight) * pictures
    return np.float32(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def assert_answers(hits: Sequence[cbir.Hit], searcher: cbir.Searcher, vector: Vectors) -> None:
    """`hits` are the best records by a matrix product with `vector` (1, dim)."""
    ids, matrix = searcher.index.matrix()
    scores = matrix.astype(np.float64) @ vector[0].astype(np.float64)
    best = sorted(zip(-scores, ids, strict=True))[: len(hits)]
    assert [hit.id for hit in hits] == [record_id for _, record_id in best]
    np.testing.assert_allclose([hit.score for hit in hits], [-s for s, _ in best], atol=1e-6)


@pytest.mark.parametrize("colour", COLOURS)
def test_words_find_what_they_name(searcher: cbir.Searcher, colour: str) -> None:
    hits = searcher.search(cbir.Query(text=f"  something {colour}\n"), k=6)
    assert {hit.record.label for hit in hits} == {colour}
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
    assert_answers(hits, searcher, WORDS.describe_texts([colour]))


def test_filters_and_expansion_hold_for_words_too(searcher: cbir.Searcher) -> None:
    query = cbir.Query(text="red")
    hits = searcher.search(query, k=20, where=["label=green,blue"])
    assert {hit.record.label for hit in hits} == {"green", "blue"} and len(hits) == 12
    expanded = searcher.search(query, k=6, expand=3)
    assert {hit.record.label for hit in expanded} == {"red"}
    plain = searcher.search(query, k=6)
    assert [hit.score for hit in expanded] != [hit.score for hit in plain]
    # The words are averaged with red pictures, and come nearer to all of them.
    assert sum(hit.score for hit in expanded) > sum(hit.score for hit in plain)


@pytest.mark.parametrize("weight", [0, 0.2, 0.5, 0.9, 1])
def test_words_and_a_picture_are_a_weighted_sum(searcher: cbir.Searcher, weight: float) -> None:
    red = picture(COLOURS["red"], 50)
    query = cbir.Query(red, text="blue")
    hits = searcher.search(query, k=18, text_weight=weight)
    assert_answers(hits, searcher, mixed("blue", WORDS.describe([red]), weight))
    if weight == 0.5:
        assert searcher.search(query, k=18) == hits
    if weight in (0, 1):
        assert hits[0].record.label == ("blue" if weight else "red")


def test_words_with_an_indexed_image_use_its_vector_and_leave_it_out(
    searcher: cbir.Searcher,
) -> None:
    asked = cbir.IndexedId("photos/red/1.png")
    hits = searcher.search(cbir.Query(asked, text="green"), k=17, text_weight=0.3)
    assert asked.id not in [hit.id for hit in hits]
    vector = mixed("green", searcher.index.vectors(asked.id)[:1], 0.3)
    found = searcher.index.search(vector, 17, exclude=[asked.id])[0]
    assert [hit.id for hit in hits] == found.ids
    np.testing.assert_allclose([hit.score for hit in hits], found.scores, atol=1e-6)


def test_words_are_added_to_part_of_a_picture(searcher: cbir.Searcher, folder: Path) -> None:
    left, right = picture(COLOURS["red"], 1), picture(COLOURS["blue"], 2)
    query = cbir.Query(np.hstack([left, right]), region=(0.5, 0, 1, 1), text="green")
    hits = searcher.search(query, k=18)
    assert_answers(hits, searcher, mixed("green", WORDS.describe([right]), 0.5))
    pixels = np.asarray(Image.open(folder / "blue" / "4.png"))[:, :20]
    asked = cbir.Query(cbir.IndexedId("photos/blue/4.png"), region=(0, 0, 0.5, 1), text="green")
    found = searcher.index.search(
        mixed("green", WORDS.describe([pixels]), 0.5), 17, exclude=["photos/blue/4.png"]
    )[0]
    assert [hit.id for hit in searcher.search(asked, k=17)] == found.ids


class TopColour(ColourWords):
    """The colour of the upper half, so that a picture's orientations differ."""

    def describe(self, images: Sequence[np.ndarray]) -> Vectors:
        return super().describe([image[: max(1, image.shape[0] // 2)] for image in images])


def test_words_are_added_to_every_orientation(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "p.cbir"
    top = TopColour()
    cbir.index_images([folder], place, descriptor=top)
    searcher = cbir.Searcher.open(place, top)
    asked = np.vstack([picture(COLOURS["red"], 1), picture(COLOURS["blue"], 2)])
    seen = mixed("green", top.describe(in_every_orientation(asked)), 0.4)
    ids, matrix = searcher.index.matrix()
    best = (matrix.astype(np.float64) @ seen.T.astype(np.float64)).max(axis=1)
    expected = sorted(zip(-best, ids, strict=True))
    query = cbir.Query(asked, text="green")
    hits = searcher.search(query, k=18, any_orientation=True, text_weight=0.4)
    assert [hit.id for hit in hits] == [record_id for _, record_id in expected]
    np.testing.assert_allclose([h.score for h in hits], [-s for s, _ in expected], atol=1e-6)
    assert len({hit.orientation for hit in hits}) > 1
    searcher.close()


def test_verification_compares_the_picture_whatever_the_words(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for seed in range(4):
        Image.fromarray(texture(seed)).save(tmp_path / "t" / f"{seed}.png")
    cbir.index_images([tmp_path / "t"], tmp_path / "t.cbir", descriptor=WORDS)
    searcher = cbir.Searcher.open(tmp_path / "t.cbir", WORDS)
    asked = cbir.Query(texture(2)[10:150], text="red")
    hits = searcher.search(asked, k=4, verify=True, text_weight=0.9)
    assert (hits[0].id, hits[0].verified) == ("t/2.png", True)
    assert hits[0].inliers == searcher.search(asked.of, k=4, verify=True)[0].inliers
    searcher.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [("any_orientation", "search in any orientation"), ("verify", "verification")],
)
def test_an_option_that_needs_pixels_refuses_words_alone(
    searcher: cbir.Searcher, name: str, said: str
) -> None:
    options = cbir.SearchOptions(**{name: True})
    with pytest.raises(QueryError, match=f"^{said} needs a picture") as caught:
        searcher.search(cbir.Query(text="red"), options=options)
    assert name in caught.value.hint


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "the query is empty"),
        ({"text": ""}, "the text is empty"),
        ({"text": " \n\t "}, "the text is empty"),
        ({"of": "red.png", "text": ""}, "the text is empty"),
        ({"text": "a" * 100_000}, "the text has 100,000 characters"),
        ({"text": "caf\udce9"}, "the text is not valid Unicode"),
        ({"text": "red", "region": (0, 0, 0.5, 0.5)}, "a region needs a picture"),
    ],
)
def test_a_senseless_query_is_one_line_with_a_cure(query: dict[str, object], said: str) -> None:
    with pytest.raises(QueryError) as caught:
        cbir.Query(**query)  # type: ignore[arg-type]
    assert caught.value.message.startswith(said)
    assert caught.value.hint
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_the_longest_text_is_searched_for(searcher: cbir.Searcher) -> None:
    text = ("red " * MAX_TEXT)[: MAX_TEXT - 1] + "!"
    assert searcher.search(cbir.Query(text=f" {text} "), k=1)[0].record.label == "red"


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(QueryError, match=r"text_weight is .*0 to 1"):
        cbir.SearchOptions(text_weight=weight)


def test_an_index_without_a_text_tower_says_so(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "p.cbir"
    cbir.index_images([folder], place, descriptor=MeanColour())
    plain = cbir.Searcher.open(place, MeanColour())
    assert not plain.has_text
    for query in (cbir.Query(text="red"), cbir.Query(folder / "red" / "0.png", text="red")):
        with pytest.raises(QueryError, match="mean-colour@abababab cannot be searched by words"):
            plain.search(query)
    plain.warm_up()
    plain.close()


def test_whether_words_can_be_searched_is_known_without_a_search(
    searcher: cbir.Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []
    monkeypatch.setattr(
        ColourWords,
        "describe_texts",
        lambda self, texts: described.extend(texts) or self.describe([picture((1, 2, 3), 1)]),
    )
    assert searcher.has_text
    assert described == []
    searcher.warm_up()
    assert len(described) == 1  # so that the first search by words does not wait


def test_without_the_tokenizer_pictures_can_still_be_searched(folder: Path, tmp_path: Path) -> None:
    class NoTokenizer(ColourWords):
        def describe_texts(self, texts: Sequence[str]) -> Vectors:
            raise MissingExtraError("searching by words", "hub")

    place = tmp_path / "p.cbir"
    cbir.index_images([folder], place, descriptor=NoTokenizer())
    searcher = cbir.Searcher.open(place, NoTokenizer())
    searcher.warm_up()
    assert searcher.search(folder / "red" / "0.png", k=1)[0].id == "photos/red/0.png"
    with pytest.raises(MissingExtraError, match="needs the 'hub' extra"):
        searcher.search(cbir.Query(text="red"))
    searcher.close()
