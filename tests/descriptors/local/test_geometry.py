from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from cbir.descriptors.local.geometry import (
    MIN_INLIERS,
    Verdict,
    keypoints,
    query_keypoints,
    verdict,
)
from cbir.types import RgbImage
from tests.descriptors.local.support_textures import texture


def compare(query: RgbImage, candidate: RgbImage) -> Verdict:
    found = verdict(query_keypoints(query), keypoints(candidate))
    assert found.points.shape == (found.inliers, 4)
    assert found.points.dtype == np.float32
    assert found.inliers == 0 or found.inliers >= MIN_INLIERS
    assert ((found.points >= 0) & (found.points <= 1)).all()
    return found


def pixels(found: Verdict, query: RgbImage, candidate: RgbImage) -> tuple[np.ndarray, np.ndarray]:
    """The matched places in pixels of the query and of the candidate."""
    sizes = [query.shape[1], query.shape[0], candidate.shape[1], candidate.shape[0]]
    places = found.points * sizes
    return places[:, :2], places[:, 2:]


@pytest.mark.parametrize("area", [1.0, 0.6, 0.36, 0.25, 0.16])
def test_a_crop_is_found_where_it_was_cut(area: float) -> None:
    whole = texture(1)
    width, height = round(240 * math.sqrt(area)), round(180 * math.sqrt(area))
    left, top = (240 - width) // 2, (180 - height) // 3
    part = whole[top : top + height, left : left + width]
    found = compare(part, whole)
    assert found.inliers >= 15
    assert not found.mirrored
    there, here = pixels(found, part, whole)
    assert np.abs(there + np.array([left, top]) - here).max() < 4


@pytest.mark.parametrize("degrees", [15, 90, 200])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_a_turned_and_scaled_copy_is_found_and_points_say_how(degrees: float, scale: float) -> None:
    whole = texture(2)
    sized = Image.fromarray(whole).resize((round(240 * scale), round(180 * scale)))
    turned = np.asarray(sized.rotate(degrees, Image.Resampling.BICUBIC, expand=True))
    found = compare(turned, whole)
    assert found.inliers >= 30
    there, here = pixels(found, turned, whole)
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centred = (here - np.array([120, 90])) * scale @ turn.T
    assert np.abs(there - np.array(turned.shape[1::-1]) / 2 - centred).max() < 5 * max(1, scale)


def test_a_mirrored_copy_is_found_and_said_to_be_one() -> None:
    whole = texture(3)
    mirrored = whole[:, ::-1]
    found = compare(mirrored, whole)
    assert found.mirrored
    assert found.inliers >= 50
    there, here = pixels(found, mirrored, whole)
    assert np.abs(240 - there[:, 0] - here[:, 0]).max() < 4
    assert np.abs(there[:, 1] - here[:, 1]).max() < 4


def test_a_small_part_of_a_large_picture_and_the_other_way_round() -> None:
    small = texture(4, 120, 90)
    sheet = np.vstack([np.hstack([texture(5, 120, 90), small]), texture(6, 240, 90)])
    assert compare(small, sheet).inliers >= 15
    assert compare(sheet, small).inliers >= 15


def test_unrelated_pictures_have_nothing_in_common() -> None:
    pictures = [texture(seed) for seed in range(10, 22)]
    for number, query in enumerate(pictures):
        for other in pictures[:number]:
            assert compare(query, other).inliers == 0


def test_what_only_repeats_itself_is_not_taken_for_a_copy() -> None:
    one, other = np.zeros((2, 160, 160, 3), dtype=np.uint8) + 128
    one[::16] = 255  # lines: every place on them looks like every other
    other[:, ::16] = 255
    assert compare(one, other).inliers == 0


def test_places_on_one_line_are_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both pictures carry the same line of marks on grey, and nothing else is alike.
    one, other = texture(8, 320), texture(9, 320)
    one[:80], other[80:] = 128, 128
    draw = np.random.default_rng(2)
    for left in range(10, 310, 12):
        grey, side = int(draw.integers(0, 256)), int(draw.integers(2, 4))
        for picture, middle in ((one, 40), (other, 120)):
            picture[middle - side : middle + side + 1, left - side : left + side + 1] = grey
    assert compare(one, other).inliers == 0
    monkeypatch.setattr("cbir.descriptors.local.geometry.MIN_SPREAD", 0.0)
    assert compare(one, other).inliers > 0  # it is the line that made the difference


@pytest.mark.parametrize(
    "nothing",
    [
        np.full((120, 90, 3), 200, dtype=np.uint8),
        np.zeros((1, 1, 3), dtype=np.uint8),
        np.full((1, 400, 3), 9, dtype=np.uint8),
        np.full((3000, 2, 3), 9, dtype=np.uint8),
        texture(1, 8, 8),
    ],
    ids=["flat", "1x1", "400x1", "2x3000", "8x8"],
)
def test_a_picture_without_keypoints_matches_nothing(nothing: RgbImage) -> None:
    whole = texture(1)
    for query, candidate in ((nothing, whole), (whole, nothing), (nothing, nothing)):
        found = compare(query, candidate)
        assert (found.inliers, found.mirrored) == (0, False)


def test_the_answer_is_the_same_on_every_run_and_thread() -> None:
    whole = texture(1)
    candidates = [keypoints(picture) for picture in (whole, texture(2), whole[20:120, 30:200])]
    query = query_keypoints(whole[10:110, 10:150])
    first = [verdict(query, candidate) for candidate in candidates]
    assert first[0].inliers > 0
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda n: verdict(query, candidates[n % 3]), range(24)))
        anew = list(pool.map(lambda _: keypoints(whole), range(8)))
    for number, found in enumerate(again):
        expected = first[number % 3]
        assert (found.inliers, found.mirrored) == (expected.inliers, expected.mirrored)
        np.testing.assert_array_equal(found.points, expected.points)
    for found in anew:
        np.testing.assert_array_equal(found.points, candidates[0].points)
        np.testing.assert_array_equal(found.descriptors, candidates[0].descriptors)
