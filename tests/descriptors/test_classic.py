"""The shipped model `classic`: any picture gets a vector, and on photos it beats plain features."""

from __future__ import annotations

import numpy as np
import pytest

import cbir
from benchmarks import photos as benchmark
from benchmarks.setting import photos_archive
from cbir.descriptors.contract import describe
from cbir.descriptors.models import SHIPPED, card_of, models
from cbir.files import size_of
from cbir.types import RgbImage
from tests.descriptors.support_photos import picture

MOST_BYTES = 3_000_000


def odd_pictures() -> list[RgbImage]:
    """Flat, tiny, narrow, wide, grey and noisy pictures."""
    draw = np.random.default_rng(0)
    grey = draw.integers(0, 256, (60, 80, 1), dtype=np.uint8)
    return [
        np.zeros((50, 70, 3), np.uint8),
        np.full((1, 1, 3), 200, np.uint8),
        draw.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        draw.integers(0, 256, (10, 4000, 3), dtype=np.uint8),
        draw.integers(0, 256, (4000, 10, 3), dtype=np.uint8),
        np.repeat(grey, 3, axis=2),
        picture((30, 200, 40), seed=1, size=(300, 200)),
    ]


def test_it_ships_without_labels_and_says_what_it_was_fitted_on() -> None:
    assert "classic" in SHIPPED
    (model,) = models("classic")
    card = card_of(model.descriptor)
    assert card is not None and model.origin == "shipped"
    assert (card.classes, card.licence) == ((), "MIT")
    assert "Caltech-101" in card.trained_on and "CC BY 4.0" in card.trained_on
    assert sum(map(size_of, model.descriptor.files.values())) <= MOST_BYTES


def test_every_picture_gets_a_unit_vector_of_its_own_whatever_is_beside_it() -> None:
    classic = cbir.load_descriptor("classic")
    images = odd_pictures()
    vectors = describe(classic, images)
    assert vectors.shape == (len(images), classic.spec.dim) and vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    singly = np.concatenate([describe(classic, [image]) for image in images])
    assert np.abs(vectors - singly).max() <= 1e-6


@pytest.mark.photos
@pytest.mark.slow
def test_on_photos_it_beats_colour_histograms_hog_and_the_network_of_ten_classes() -> None:
    photos = benchmark.read_photos(photos_archive())
    assert (len(photos.images), int(photos.test.sum())) == (800, 200)
    rows = {
        name: benchmark.measured(photos, describe)
        for name, describe in benchmark.descriptors().items()
    }
    classic = rows.pop("classic")
    for name, other in rows.items():
        if "efficientnet" in name:
            more, low, _ = benchmark.difference(
                other.answers["b"]["nAP@10"], classic.answers["b"]["nAP@10"]
            )
            assert low > 0.3, (name, more, low)
        else:
            for experiment in "abc":
                assert np.greater(classic.means(experiment), other.means(experiment)).all(), name
