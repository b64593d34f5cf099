"""The classification of held-out images: against scikit-learn's own report, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cbir.descriptors.bovw import BovwCard
from cbir.errors import CbirError
from cbir.training.classification import CLASSIFICATION, classification, classification_of
from tests.descriptors import support_bovw

metrics = pytest.importorskip("sklearn.metrics", reason="needs the `bovw` extra")


def test_it_is_the_report_and_the_confusion_matrix_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    classes = ("accuracy", "bird", "macro avg", "zebra")  # keys that sklearn's report has itself
    labels = random.choice(4, 300, p=(0.6, 0.2, 0.15, 0.05))
    logits = (2 * np.eye(4)[labels] + random.normal(size=(300, 4))).astype(np.float32)
    found = classification(logits, labels, classes)
    predicted = logits.argmax(axis=1)
    counts = metrics.confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(found.counts(classes), counts)
    numbers = [str(number) for number in range(4)]
    report = metrics.classification_report(
        labels, predicted, target_names=numbers, output_dict=True
    )
    for number, label in zip(numbers, classes, strict=True):
        scores, expected = found.by_class[label], report[number]
        assert scores.precision == pytest.approx(expected["precision"], abs=1e-5)
        assert scores.recall == pytest.approx(expected["recall"], abs=1e-5)
        assert scores.f1 == pytest.approx(expected["f1-score"], abs=1e-5)
        assert scores.support == expected["support"]
    assert found.mean_f1 == pytest.approx(report["macro avg"]["f1-score"], abs=1e-5)
    assert found.images == 300


def test_classes_without_images_are_left_out_and_never_predicted_ones_score_zero() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 3, 0, 0]]
    found = classification(logits, np.array([0, 0, 2, 2]), ("a", "b", "c", "d"))
    assert found.confusion == {"a": {"a": 1, "d": 1}, "c": {"a": 2}}
    assert list(found.by_class) == ["a", "c"]
    a, c = found.by_class.values()
    assert (a.precision, a.recall, a.support) == (0.33333, 0.5, 2)
    assert a.f1 == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5), abs=1e-5)
    assert (c.precision, c.recall, c.f1, c.support) == (0, 0, 0, 2)


def card(stored: object) -> BovwCard:
    facts = {"images": "x", CLASSIFICATION: stored}
    return replace(
        support_bovw.card(support_bovw.BLOCKS["hog"]), classes=("a", "b"), training=facts
    )


def test_a_card_gives_back_what_it_was_given() -> None:
    found = classification(np.eye(2, dtype=np.float32)[[0, 1, 1]], np.array([0, 0, 1]), ("a", "b"))
    stored = json.loads(json.dumps(found.to_json()))
    assert classification_of(card(stored)) == found
    assert classification_of(support_bovw.card(support_bovw.BLOCKS["hog"])) is None


SCORES = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2}


@pytest.mark.parametrize(
    "stored",
    [
        [],
        {},
        "report",
        {"confusion": {}, "by_class": {}},
        {"confusion": {"a": 2}, "by_class": {"a": SCORES}},
        {"confusion": {"a": {"a": "many"}}, "by_class": {"a": SCORES}},
        {"confusion": {"a": {"a": 1}}, "by_class": {"a": SCORES}},
        {"confusion": {"a": {"a": 2}}, "by_class": {"a": {"f1": 1.0}}},
        {"confusion": {"a": {"a": 2}}, "by_class": {"b": SCORES}},
        {"confusion": {"a": {"zebra": 2}}, "by_class": {"a": SCORES}},
    ],
)
def test_a_damaged_classification_is_one_line(stored: Any) -> None:
    with pytest.raises(CbirError, match="damaged 'classification'"):
        classification_of(card(stored))
