"""Searching with the second look (`verify`) and in any orientation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.descriptors.local.geometry import MIN_INLIERS
from cbir.errors import ImageError
from cbir.images import limits
from cbir.search.orient import ORIENTATIONS, in_every_orientation
from cbir.types import Hit, RgbImage, Verification
from tests.descriptors.local.support_textures import texture
from tests.web.support_web import Grid

COUNT = 12


def write(folder: Path, count: int = COUNT) -> Path:
    """`folder`/NN.png, too large to be kept whole in the index."""
    folder.mkdir(parents=True)
    for seed in range(count):
        Image.fromarray(texture(seed)).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cbir.Searcher]:
    folder = write(tmp_path_factory.mktemp("verified") / "photos")
    place = folder.parent / "photos.cbir"
    cbir.index_images([folder], place, descriptor=Grid())
    opened = cbir.Searcher.open(place, Grid())
    yield opened
    opened.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[cbir.Searcher]:
    """An index whose originals a test may change."""
    place = tmp_path / "photos.cbir"
    cbir.index_images([write(tmp_path / "photos", 6)], place, descriptor=Grid())
    opened = cbir.Searcher.open(place, Grid())
    yield opened
    opened.close()


def corner(seed: int) -> RgbImage:
    """A quarter of a picture, which the descriptor does not know again."""
    return np.ascontiguousarray(texture(seed)[:90, 120:])


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


# Verification


def test_the_pixels_of_an_indexed_query_count_as_in_use(
    searcher: cbir.Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_SMALL", 0)
    before, seen = limits._kept, []

    def go_on() -> bool:
        seen.append(limits._kept - before)
        return True

    searcher.search(cbir.IndexedId("photos/00.png"), verify=True, go_on=go_on)
    assert min(seen) == texture(0).nbytes
    assert limits._kept == before


def test_inliers_come_first_then_the_score_which_stays_the_cosine(
    searcher: cbir.Searcher,
) -> None:
    for seed in range(COUNT):
        plain = searcher.search(corner(seed), k=COUNT)
        looked = searcher.search(corner(seed), k=COUNT, verify=True)
        assert looked[0].id == f"photos/{seed:02}.png"
        assert looked[0].inliers is not None and looked[0].inliers >= MIN_INLIERS
        assert (looked[0].verified, looked[0].mirrored) == (True, False)
        assert {hit.id: hit.score for hit in looked} == {hit.id: hit.score for hit in plain}
        assert [hit.rank for hit in looked] == list(range(1, COUNT + 1))
        others = [hit for hit in plain if hit.id != looked[0].id]
        assert ids(looked[1:]) == ids(others)
        assert all((hit.inliers, hit.verified) == (0, False) for hit in looked[1:])
        assert all(hit.inliers is None and hit.verified is None for hit in plain)


def test_more_inliers_come_before_fewer_whatever_their_scores(searcher: cbir.Searcher) -> None:
    both = np.hstack([texture(3)[:, :80], texture(5)[:, 60:]])
    looked = searcher.search(both, k=COUNT, verify=True)
    assert ids(looked[:2]) == ["photos/05.png", "photos/03.png"]
    assert looked[0].inliers > looked[1].inliers >= MIN_INLIERS


def test_the_k_that_are_returned_are_chosen_after_verification(
    searcher: cbir.Searcher,
) -> None:
    below = [
        seed
        for seed in range(COUNT)
        if searcher.search(corner(seed), k=1)[0].id[-6:-4] != f"{seed:02}"
    ]
    assert below  # the test is about those that the score alone does not put first
    for seed in below:
        assert ids(searcher.search(corner(seed), k=1, verify=True)) == [f"photos/{seed:02}.png"]


def test_only_the_first_hits_are_looked_at_but_all_k(
    searcher: cbir.Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.search.verify.LOOKED_AT", 3)
    for seed in range(COUNT):
        plain = ids(searcher.search(corner(seed), k=COUNT))
        assert set(ids(searcher.search(corner(seed), k=2, verify=True))) <= set(plain[:3])
        assert set(ids(searcher.search(corner(seed), k=5, verify=True))) == set(plain[:5])


def test_a_mirrored_copy_is_found_and_its_points_are_those_of_the_query(
    searcher: cbir.Searcher,
) -> None:
    query = texture(7)[:, ::-1]
    hit = searcher.search(query, k=1, verify=True)[0]
    assert (hit.id, hit.verified, hit.mirrored) == ("photos/07.png", True, True)
    assert hit.matches is not None and hit.matches.shape == (hit.inliers, 4)
    np.testing.assert_allclose(1 - hit.matches[:, 0], hit.matches[:, 2], atol=0.02)
    np.testing.assert_allclose(hit.matches[:, 1], hit.matches[:, 3], atol=0.02)


def test_json_says_what_was_found_but_not_the_points(searcher: cbir.Searcher) -> None:
    first, second = (hit.to_json() for hit in searcher.search(corner(1), k=2, verify=True))
    assert (first["verified"], first["mirrored"]) == (True, False)
    assert first["inliers"] >= MIN_INLIERS
    assert (second["inliers"], second["verified"], second["mirrored"]) == (0, False, None)
    assert "matches" not in first


def test_an_original_that_is_gone_is_unverified_and_comes_after_the_verified(
    own: cbir.Searcher, tmp_path: Path
) -> None:
    plain = own.search(texture(2), k=6)
    assert plain[0].id == "photos/02.png"
    (tmp_path / "photos" / "02.png").unlink()
    whole = own.search(texture(2), k=6, verify=True)
    assert ids(whole) == ids(plain)  # nothing is verified: the order of the scores
    assert (whole[0].inliers, whole[0].verified, whole[0].score) == (None, False, plain[0].score)
    both = np.vstack([texture(2)[:120], texture(4)[:60]])
    looked = own.search(both, k=6, verify=True)
    assert looked[0].id == "photos/04.png"
    gone = next(hit for hit in looked if hit.id == "photos/02.png")
    assert (gone.inliers, gone.verified) == (None, False)
    assert [hit.score for hit in looked[1:]] == sorted((h.score for h in looked[1:]), reverse=True)


def test_another_picture_at_the_originals_place_is_not_taken_for_it(
    own: cbir.Searcher, tmp_path: Path
) -> None:
    Image.fromarray(texture(99)).save(tmp_path / "photos" / "03.png")
    looked = own.search(texture(99), k=6, verify=True)
    changed = next(hit for hit in looked if hit.id == "photos/03.png")
    assert (changed.inliers, changed.verified) == (None, False)


def test_a_source_that_is_gone_leaves_the_order_of_the_scores(
    own: cbir.Searcher, tmp_path: Path
) -> None:
    plain = own.search(corner(2), k=6)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    looked = own.search(corner(2), k=6, verify=True)
    assert ids(looked) == ids(plain)
    assert all(hit.inliers is None and hit.verified is False for hit in looked)


def test_an_indexed_id_is_verified_by_its_original(own: cbir.Searcher, tmp_path: Path) -> None:
    Image.fromarray(corner(4)).save(tmp_path / "photos" / "part.png")
    cbir.index_images([tmp_path / "photos"], tmp_path / "photos.cbir", descriptor=Grid())
    asked = cbir.IndexedId("photos/part.png")
    looked = own.search(asked, k=6, verify=True)
    assert looked[0].id == "photos/04.png" and looked[0].verified
    assert asked.id not in ids(looked)
    (tmp_path / "photos" / "04.png").unlink()
    with pytest.raises(ImageError, match=r"the original of photos/04\.png is gone"):
        own.search(cbir.IndexedId("photos/04.png"), k=3, verify=True)
    with pytest.raises(ImageError, match=r"the original of photos/04\.png is gone"):
        own.search(cbir.IndexedId("photos/04.png"), k=3, any_orientation=True)
    assert own.search(cbir.IndexedId("photos/04.png"), k=3)


def test_a_region_of_the_query_is_what_is_verified(searcher: cbir.Searcher) -> None:
    both = np.hstack([texture(3), texture(5)])
    left = searcher.search(cbir.Query(both, (0, 0, 0.5, 1)), k=1, verify=True)[0]
    right = searcher.search(cbir.Query(both, (0.5, 0, 1, 1)), k=1, verify=True)[0]
    assert (left.id, right.id) == ("photos/03.png", "photos/05.png")


def test_a_query_with_nothing_on_it_verifies_nothing(searcher: cbir.Searcher) -> None:
    flat = np.full((1, 1, 3), 77, dtype=np.uint8)
    looked = searcher.search(flat, k=4, verify=True)
    assert ids(looked) == ids(searcher.search(flat, k=4))
    assert all(hit.inliers == 0 for hit in looked)


def test_threads_and_repetitions_answer_the_same(searcher: cbir.Searcher) -> None:
    queries = [corner(seed) for seed in range(5)]
    alone = [searcher.search(query, k=4, verify=True) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(lambda n: searcher.search(queries[n % 5], k=4, verify=True), range(20))
        for number, hits in enumerate(again):
            assert hits == alone[number % 5]
            np.testing.assert_array_equal(hits[0].matches, alone[number % 5][0].matches)


def test_progress_is_told_and_an_interruption_leaves_no_thread_behind(
    searcher: cbir.Searcher,
) -> None:
    told: list[tuple[int, int | None]] = []
    searcher.search(corner(1), k=3, verify=True, on_done=lambda *done: told.append(done))
    assert told == [(number, COUNT) for number in range(1, COUNT + 1)]

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searcher.search(corner(1), k=3, verify=True, on_done=interrupt)
    assert not [t for t in threading.enumerate() if t.name.startswith("cbir-verify")]


# Any orientation


@pytest.mark.parametrize(("k", "expand"), [(1, 0), (3, 0), (5, 2), (COUNT, 0), (COUNT, 3)])
def test_any_orientation_is_the_best_of_eight_searches(
    searcher: cbir.Searcher, k: int, expand: int
) -> None:
    for seed in (2, 31):
        query = texture(seed)
        best: dict[str, tuple[float, int]] = {}
        for number, turned in enumerate(in_every_orientation(query)):
            for hit in searcher.search(turned, k=COUNT, expand=expand):
                best[hit.id] = max(best.get(hit.id, (-2.0, 0)), (hit.score, -number))
        expected = sorted(best.items(), key=lambda pair: (-pair[1][0], pair[0].encode()))[:k]
        hits = searcher.search(query, k=k, any_orientation=True, expand=expand)
        assert [(h.id, h.score) for h in hits] == [(i, score) for i, (score, _) in expected]
        assert [h.orientation for h in hits] == [ORIENTATIONS[-n] for _, (_, n) in expected]
        assert [h.rank for h in hits] == list(range(1, k + 1))


def test_the_eight_orientations_are_all_different_and_named_as_they_are() -> None:
    image = texture(1, 20, 10)
    seen = in_every_orientation(image)
    assert len({(one.shape, one.tobytes()) for one in seen}) == 8
    named = dict(zip(ORIENTATIONS, seen, strict=True))
    np.testing.assert_array_equal(named["as it is"], image)
    np.testing.assert_array_equal(named["mirrored"], image[:, ::-1])
    picture = Image.fromarray(image)
    np.testing.assert_array_equal(named["turned 90"], picture.transpose(Image.Transpose.ROTATE_90))
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(
        named["mirrored, turned 270"], mirrored.transpose(Image.Transpose.ROTATE_270)
    )


@pytest.mark.parametrize("number", range(8))
def test_a_picture_is_found_however_it_is_turned(searcher: cbir.Searcher, number: int) -> None:
    query = in_every_orientation(texture(6))[number]
    for verify in (False, True):
        hit = searcher.search(query, k=1, any_orientation=True, verify=verify)[0]
        assert hit.id == "photos/06.png"
        assert hit.score == pytest.approx(1, abs=1e-5)
    assert hit.verified
    assert hit.mirrored == (number >= 4)


def test_any_orientation_of_an_indexed_id_leaves_it_out(searcher: cbir.Searcher) -> None:
    asked = cbir.IndexedId("photos/08.png")
    by_id = searcher.search(asked, k=4, any_orientation=True)
    by_pixels = searcher.search(texture(8), k=5, any_orientation=True)
    assert ids(by_id) == [hit.id for hit in by_pixels if hit.id != asked.id][:4]


def test_equal_scores_are_ordered_by_id(tmp_path: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for number, turned in enumerate(in_every_orientation(texture(1, 180, 180))):
        Image.fromarray(turned).save(folder / f"{7 - number}.png")
    cbir.index_images([folder], tmp_path / "same.cbir", descriptor=Grid())
    searcher = cbir.Searcher.open(tmp_path / "same.cbir", Grid())
    hits = searcher.search(texture(1, 180, 180), k=5, any_orientation=True)
    assert all(hit.score > 0.9999 for hit in hits)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    searcher.close()


# Time


class Patience:
    """Goes on for the first `count` questions."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.mark.parametrize("count", [0, 1, 5, COUNT, COUNT + 3])
def test_what_is_not_reached_in_time_keeps_its_score_and_is_counted(
    searcher: cbir.Searcher, count: int
) -> None:
    plain = searcher.search(corner(4), k=COUNT)
    reached = min(count, COUNT)
    position = ids(plain).index("photos/04.png")
    told: list[Verification] = []
    looked = searcher.search(
        corner(4), k=COUNT, verify=True, go_on=Patience(count), on_verified=told.append
    )
    found = position < reached
    assert told == [Verification(COUNT, reached, int(found), 0, COUNT - reached)]
    late = {hit.id for hit in plain[reached:]}
    assert {hit.id for hit in looked if hit.inliers is None} == late
    assert {hit.id for hit in looked if hit.verified is None} == late
    rest = [one for one in ids(plain) if not (found and one == "photos/04.png")]
    assert ids(looked) == ["photos/04.png"] * found + rest


def test_what_the_question_raises_ends_the_search(searcher: cbir.Searcher) -> None:
    def gone() -> bool:
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError, match="the client is gone"):
        searcher.search(corner(4), verify=True, go_on=gone)
    assert not [t for t in threading.enumerate() if t.name.startswith("cbir-verify")]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((200, 200, 0, 0, 0), "200 compared, none agreed"),
        ((200, 200, 3, 0, 0), "200 compared, 3 agreed"),
        ((200, 120, 0, 0, 80), "120 of 200 compared, none agreed; 80 not reached in time"),
        (
            (1500, 1499, 1, 1, 0),
            "1,499 of 1,500 compared, 1 agreed; 1 original gone, changed or not confirmed",
        ),
    ],
)
def test_counts_are_said_in_a_sentence(counts: tuple[int, ...], sentence: str) -> None:
    assert Verification(*counts).sentence() == sentence
