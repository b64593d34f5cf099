"""The vectors of `python -m benchmarks seed_vgg`, without its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cbir.types import Floats

if TYPE_CHECKING:
    from benchmarks.seed_vgg import Described

pytestmark = pytest.mark.training


def some_images(seed: int, count: int) -> Described:
    """Images whose embeddings and predicted classes say nothing of their true class."""
    from benchmarks.seed_vgg import CLASSES, Described

    random = np.random.default_rng(seed)
    embeddings = 5 * random.normal(size=(count, 8)).astype(np.float32)
    true = np.arange(count) % CLASSES
    return Described(embeddings, random.integers(CLASSES, size=count), true)


def cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("share", [None, 0.5, 0.2])
def test_a_class_adds_its_share_to_the_cosine(share: float | None) -> None:
    from benchmarks.seed_vgg import with_class

    one, other = some_images(0, 100), some_images(1, 100)
    a = with_class(one.embeddings, one.predicted, share)
    b = with_class(other.embeddings, other.predicted, share)
    assert np.linalg.norm(a, axis=1) == pytest.approx(1)
    same = one.predicted == other.predicted
    assert 0 < same.sum() < 100
    for row, alike in enumerate(same):
        x, y = one.embeddings[row], other.embeddings[row]
        if share is None:
            expected = (x @ y + alike) / np.sqrt((x @ x + 1) * (y @ y + 1))
        else:
            expected = (1 - share) * cosine(x, y) + share * alike
        assert a[row] @ b[row] == pytest.approx(expected, abs=1e-6)


def test_true_classes_reach_only_the_index_of_marked_forms() -> None:
    from benchmarks.seed_vgg import CLASSES, LEAK, Described, forms

    pair = some_images(0, 100), some_images(1, 100)
    relabelled = [
        Described(one.embeddings, one.predicted, (one.true + 1) % CLASSES) for one in pair
    ]
    names = []
    for (name, indexed, queries), other in zip(forms(*pair), forms(*relabelled), strict=True):
        names.append(name)
        assert np.array_equal(queries, other[2])
        assert np.array_equal(indexed, other[1]) is (LEAK not in name)
    assert sum(LEAK in name for name in names) == 2
    assert sum("predicted" in name for name in names) == 2


def test_a_leak_shows_in_its_rows_and_has_no_leave_one_out() -> None:
    from benchmarks.seed_vgg import LEAK, MEASURES, Described, rows

    indexed, queries = some_images(0, 400), some_images(1, 200)
    queries = Described(queries.embeddings, queries.true, queries.true)  # a perfect classifier
    found = rows(indexed, queries)
    for name, figures in found.items():
        assert len(figures) == len(MEASURES) * (1 if LEAK in name else 2)
    assert found[f"{LEAK}: true class in the index, half of the cosine"][2] > 0.9
    assert found["predicted class, half of the cosine"][2] < 0.2
    assert found["predicted class, half of the cosine"][5] > 0.9  # its queries know their class
