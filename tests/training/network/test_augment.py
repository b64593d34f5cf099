from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.training

SIZE = 16
STILL: dict[str, Any] = {"flip": False, "shift": 0}


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def changed(images: np.ndarray, mirrored: bool = False, **settings: Any) -> np.ndarray:
    """`images` after augmentation, (n, height, width, 3)."""
    import torch

    from cbir.training.network.augment import augmented
    from cbir.training.network.settings import TrainSettings

    random = torch.Generator().manual_seed(3)
    which = torch.full((len(images),), mirrored)
    chosen = TrainSettings(size=SIZE + 1, **{**STILL, **settings})
    fill = torch.tensor([10.0, 20.0, 30.0])
    return augmented(images, which, chosen, fill, random).permute(0, 2, 3, 1).numpy()


def test_nothing_changes_without_augmentation() -> None:
    images = pictures(3)
    np.testing.assert_array_equal(changed(images), images)


def test_the_chosen_images_are_mirrored() -> None:
    images = pictures(3)
    np.testing.assert_array_equal(changed(images, True, flip=True), images[:, :, ::-1])
    np.testing.assert_array_equal(changed(images, False, flip=True), images)


def test_shifts_reach_all_places_with_reflected_edges() -> None:
    images = np.repeat(pictures(1), 200, axis=0)
    padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {
        padded[y : y + SIZE, x : x + SIZE].tobytes(): (y, x) for y in range(5) for x in range(5)
    }
    moved = changed(images, shift=2).astype(np.uint8)
    assert {windows[one.tobytes()] for one in moved} == set(windows.values())


def test_cutout_covers_a_square_in_the_mean_colour() -> None:
    images = pictures(200)
    result = changed(images, cutout=4)
    covered = (result != images).any(3)
    assert (result[covered] == [10, 20, 30]).all()
    areas = covered.sum((1, 2))
    assert areas.max() == 16 and areas.min() < 16  # at the edge, part of it lies outside
    for mask in covered[areas == 16]:
        rows, columns = np.nonzero(mask)
        assert np.ptp(rows) == np.ptp(columns) == 3


def test_brightness_scales_an_image_as_a_whole() -> None:
    images = np.full((300, SIZE, SIZE, 3), 100, np.uint8)
    means = changed(images, brightness=0.2)
    assert np.ptp(means, axis=(1, 2, 3)).max() < 1e-3
    assert 80 <= means.min() < 83 and 117 < means.max() <= 120


def test_recompression_is_that_of_a_jpeg_library() -> None:
    from PIL import Image

    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    image = np.stack([x * 15, y * 15, (x + y) * 7], axis=2).astype(np.uint8)
    images = np.repeat(image[None], 40, axis=0)
    result = changed(images, jpeg=0.5)
    differ = (result != images).any((1, 2, 3))
    assert 8 < differ.sum() < 32
    candidates = []
    for quality in range(30, 97):
        data = io.BytesIO()
        Image.fromarray(image).save(data, "JPEG", quality=quality)
        candidates.append(np.asarray(Image.open(data)).astype(float))
    for one in result[differ]:
        assert min(np.abs(one - other).mean() for other in candidates) < 1


def test_random_crops_are_parts_of_the_image_enlarged() -> None:
    ramp = np.broadcast_to(
        (np.arange(SIZE, dtype=np.uint8) * 16)[:, None], (300, SIZE, SIZE)
    )  # values tell the row
    result = changed(np.repeat(ramp[..., None], 3, axis=3), crop=0.25)[..., 0]
    spans = (result[:, -1] - result[:, 0]).mean(1) / (ramp[0, -1, 0] - ramp[0, 0, 0])
    assert spans.min() > 0.35 and spans.max() < 1.02  # a quarter of the area, at most 3:4 wide
    assert spans.min() < 0.55 and spans.max() > 0.9
    assert (result.max(2) - result.min(2)).max() < 1e-3  # rows stay rows


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_mixed_images_have_the_classes_in_the_same_shares(how: str) -> None:
    import torch

    from cbir.training.network.augment import mixed

    values = torch.arange(8.0)
    batch = values[:, None, None, None].expand(8, 3, SIZE, SIZE).clone()
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        images, shares = mixed(batch.clone(), torch.eye(8), how, random)
        torch.testing.assert_close(shares.sum(1), torch.ones(8))
        # The mean of an image whose value is its number is the mean of numbers by share.
        torch.testing.assert_close(images.mean((1, 2, 3)), shares @ values)


def test_the_same_seed_gives_the_same_batch() -> None:
    images = pictures(20)
    settings = {"shift": 2, "crop": 0.5, "cutout": 4, "jpeg": 0.5, "brightness": 0.1}
    np.testing.assert_array_equal(changed(images, **settings), changed(images, **settings))
