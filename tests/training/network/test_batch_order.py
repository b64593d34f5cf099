"""Which images make up batches: counted, class by class and image by image."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytestmark = pytest.mark.training

UNEVEN = np.repeat([3, 0, 8, 5], [70, 20, 9, 1])
"""The class numbers of 100 images."""


def drawn(targets: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """The rows of a class-balanced epoch (batches, size)."""
    import torch

    from cbir.training.network.batch_order import class_balanced

    random = torch.Generator().manual_seed(seed)
    batches: np.ndarray = class_balanced(torch.from_numpy(targets), size, random).numpy()
    return batches


def test_shuffled_takes_each_image_at_most_once() -> None:
    import torch

    from cbir.training.network.batch_order import shuffled

    batches = shuffled(103, 10, torch.Generator().manual_seed(0))
    assert batches.shape == (10, 10) and batches.unique().numel() == 100
    assert set(batches.flatten().tolist()) < set(range(103))
    assert batches.flatten().tolist() != sorted(batches.flatten().tolist())
    assert shuffled(3, 10, torch.Generator()).shape == (1, 3)


@pytest.mark.parametrize(
    ("size", "shape"), [(7, (14, 7)), (10, (10, 10)), (33, (3, 33)), (500, (1, 100))]
)
def test_classes_are_equally_frequent(size: int, shape: tuple[int, int]) -> None:
    batches = drawn(UNEVEN, size)
    assert (batches.shape, batches.dtype) == (shape, np.int64)
    for rows, apart in ((batches.ravel(), 1), *((batch, 2) for batch in batches)):
        counts = Counter(dict.fromkeys((0, 3, 5, 8), 0) | Counter(UNEVEN[rows].tolist()))
        assert len(counts) == 4
        assert max(counts.values()) - min(counts.values()) <= apart


def test_images_of_a_class_come_once_before_any_comes_again() -> None:
    rows = drawn(UNEVEN, 10).ravel()
    for one, images in ((3, 70), (0, 20), (8, 9), (5, 1)):
        of_class = rows[UNEVEN[rows] == one].tolist()
        assert len(of_class) == 25
        for start in range(0, 25, images):
            some = of_class[start : start + images]
            assert len(set(some)) == len(some)


def test_each_image_of_a_class_is_equally_probable() -> None:
    epochs = 300
    rows = np.concatenate([drawn(UNEVEN, 10, seed).ravel() for seed in range(epochs)])
    times = np.bincount(rows, minlength=len(UNEVEN))
    expected = epochs * 25 / np.bincount(UNEVEN)[UNEVEN]
    # 25 of 70 images, 300 times: a standard deviation of 8.3. The others vary less.
    np.testing.assert_allclose(times, expected, atol=5 * 8.3)


def test_equal_classes_lose_no_image_and_repeat_none() -> None:
    assert sorted(drawn(np.arange(60) % 6, 12).ravel().tolist()) == list(range(60))


def test_the_order_is_that_of_the_generator() -> None:
    first, again, other = (drawn(UNEVEN, 10, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_places_for_fewer_images_than_classes_are_drawn() -> None:
    batches = [drawn(np.arange(6), 4, seed) for seed in range(30)]
    assert {batch.shape for batch in batches} == {(1, 4)}
    assert {len(set(batch[0].tolist())) for batch in batches} == {4}
    assert {row for batch in batches for row in batch[0].tolist()} == set(range(6))
