"""Small changes of images do what their tables say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.perturbations import brightened, cropped, mirrored, reencoded, shifted


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("down", [-2, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 2])
def test_a_shift_moves_every_pixel(images: np.ndarray, down: int, right: int) -> None:
    """Each pixel comes from `down` rows above and `right` columns to the left, or from outside."""
    edge, black = (shifted(images, down, right, fill) for fill in ("edge", "constant"))
    for y in range(32):
        for x in range(32):
            above, left = y - down, x - right
            inside = 0 <= above < 32 and 0 <= left < 32
            nearest = images[:, min(max(above, 0), 31), min(max(left, 0), 31)]
            assert (edge[:, y, x] == nearest).all()
            assert (black[:, y, x] == (nearest if inside else 0)).all()


def test_brightness_is_clipped() -> None:
    grey = np.array([0, 100, 230], dtype=np.uint8).reshape(1, 1, 3, 1).repeat(3, axis=3)
    assert brightened(grey, 1.2)[0, 0, :, 0].tolist() == [0, 120, 255]
    assert brightened(grey, 0.8)[0, 0, :, 0].tolist() == [0, 80, 184]
    assert brightened(grey, 1.2).dtype == np.uint8


def test_a_crop_enlarges_the_inner_part(images: np.ndarray) -> None:
    images[:, 2:30, 2:30] = 77
    assert (cropped(images, 2) == 77).all()
    assert cropped(images, 2).shape == images.shape
    assert (cropped(images, 1) != 77).any()


def test_a_mirror_image_mirrors_back(images: np.ndarray) -> None:
    assert (mirrored(images)[:, :, 0] == images[:, :, 31]).all()
    assert (mirrored(mirrored(images)) == images).all()


def test_lower_quality_changes_more(images: np.ndarray) -> None:
    def error(quality: int) -> float:
        changed = reencoded(images, quality)
        assert changed.shape == images.shape
        return float(np.abs(changed.astype(float) - images).mean())

    assert 0 < error(90) < error(50) < error(10)
