"""One small picture laid over another: what counts as the same photograph."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cbir.descriptors.local.registration import SIDE, most_alike
from cbir.evaluation.near_duplicates import THRESHOLD
from cbir.types import RgbImage
from tests.descriptors.local.support_textures import texture

SEEDS = range(12)


def part(seed: int, box: tuple[float, float, float, float], turned: float = 0) -> RgbImage:
    """A part (left, top, right, bottom; shares of the whole) of a turned picture, 32 x 32."""
    picture = Image.fromarray(texture(seed, 320, 320)).rotate(turned, Image.Resampling.BICUBIC)
    cut = tuple(share * 320 for share in box)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX, cut))


def alike(one: RgbImage, other: RgbImage) -> float:
    return most_alike(one, other[None])


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (0.1, 0.05, 1, 1), (0, 0.08, 0.9, 0.95), (0.12, 0, 1, 1)]
)
def test_parts_of_a_picture_agree_with_the_whole_in_either_order(
    box: tuple[float, float, float, float],
) -> None:
    pairs = [(part(seed, (0, 0, 1, 1)), part(seed, box)) for seed in SEEDS]
    found = [alike(whole, some) for whole, some in pairs]
    assert min(found) >= THRESHOLD and max(found) <= 1 + 1e-6
    assert found == [alike(some, whole) for whole, some in pairs]


def test_what_is_turned_or_shares_little_is_another_picture() -> None:
    whole = (0.15, 0.15, 0.85, 0.85)
    for seed in SEEDS:
        picture = part(seed, whole)
        assert alike(picture, part(seed, whole, turned=8)) == 0
        assert alike(picture, part(seed, (0.3, 0.3, 0.7, 0.7))) < THRESHOLD
        assert alike(picture, part(seed, (0.55, 0.55, 1, 1))) < THRESHOLD


def test_silhouettes_of_other_shapes_before_a_plain_sky_are_not_the_same() -> None:
    wings = {30: (4, 20), 45: (2, 28), 60: (9, 16)}
    shapes = []
    for angle, (left, width) in wings.items():
        sky = Image.new("RGB", (SIDE * 8, SIDE * 8), (120, 160, 220))
        draw = ImageDraw.Draw(sky)
        draw.polygon([(left * 8, 200), (128, 40), ((left + width) * 8, 200)], fill=(20, 20, 20))
        shapes.append(np.asarray(sky.rotate(angle, fillcolor=(120, 160, 220)).resize((SIDE, SIDE))))
    for number, shape in enumerate(shapes):
        others = np.stack([other for at, other in enumerate(shapes) if at != number])
        assert most_alike(shape, others) < THRESHOLD


def test_other_pictures_and_flat_ones_are_told_apart() -> None:
    flat = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
    pictures = [part(seed, (0, 0, 1, 1)) for seed in SEEDS]
    for number, picture in enumerate(pictures):
        others = np.stack([*pictures[:number], *pictures[number + 1 :], flat])
        assert most_alike(picture, others) < THRESHOLD
    assert most_alike(flat, np.stack(pictures)) == most_alike(flat, flat[None]) == 0
    assert most_alike(flat, np.empty((0, SIDE, SIDE, 3), dtype=np.uint8)) == 0
