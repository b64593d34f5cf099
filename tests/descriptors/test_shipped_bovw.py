"""The shipped model of CIFAR-10's visual words, on images that it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

import cbir
from cbir.descriptors.contract import describe
from cbir.descriptors.models import card_of, load_descriptor
from cbir.images.decode import load_pixels
from cbir.measures.by_class import class_measures
from cbir.testing import check_descriptor

COUNT = 400


@pytest.mark.parametrize("name", ["cifar10-bovw", "cifar10-bovw:embedding"])
def test_it_keeps_the_contract(name: str) -> None:
    check_descriptor(load_descriptor(name))


@pytest.mark.cifar10
@pytest.mark.slow
def test_it_knows_classes_of_images_that_it_has_not_seen() -> None:
    """Far from chance (0.1 and, for nAP@10, about 0.05), by a margin that no luck explains."""
    descriptor = load_descriptor("cifar10-bovw")
    card = card_of(descriptor)
    assert card is not None
    items = list(cbir.open_source("cifar10:test").items())[:: 10_000 // COUNT]
    vectors = describe(descriptor, [load_pixels(item.read()) for item in items])
    labels = np.array([card.classes.index(item.label or "") for item in items])
    assert np.mean(descriptor.predicted(vectors) == labels) > 0.65  # type: ignore[attr-defined]
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    ranked = labels[np.argsort(-scores, axis=1)[:, :10]]
    relevant = np.bincount(labels)[labels] - 1
    assert class_measures(ranked, labels, relevant, ["nAP@10"])["nAP@10"].mean() > 0.45


def test_the_model_says_what_it_was_fitted_to() -> None:
    card = card_of(load_descriptor("cifar10-bovw"))
    assert card is not None
    assert card.trained_on == "CIFAR-10 (JPEG copy), 45,000 images"
    assert {"training_accuracy", "held_out_accuracy", "test_accuracy"} <= set(card.quality)
