"""The checks on the vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cbir.descriptors.contract import describe_texts, has_text
from cbir.errors import CbirError, QueryError
from cbir.testing import check_descriptor
from cbir.types import Vectors
from tests.descriptors.support_photos import COLOURS, ColourWords, MeanColour


def test_texts_are_described_in_their_order() -> None:
    words = ColourWords()
    assert has_text(words)
    vectors = describe_texts(words, ["red", "blue", "red"])
    expected = words.describe([np.full((1, 1, 3), COLOURS[c]) for c in ("red", "blue", "red")])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.dtype == np.float32
    assert describe_texts(words, []).shape == (0, words.spec.dim)
    check_descriptor(words)


def test_a_descriptor_without_a_text_tower_is_one_line_with_a_cure() -> None:
    class Switched(ColourWords):
        has_text = False

    for descriptor in (MeanColour(), Switched()):
        assert not has_text(descriptor)
        with pytest.raises(QueryError, match="cannot be searched by words") as caught:
            describe_texts(descriptor, ["red"])
        assert descriptor.spec.short in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (np.eye(4)[:1], r"shape \(1, 4\) for 2 texts; expected \(2, 4\)"),
        (np.eye(5)[:2], r"shape \(2, 5\) for 2 texts"),
        (np.eye(4)[0], r"shape \(4,\) for 2 texts"),
        (np.diag([1, 2, 1, 1])[:2], "norm 2 for text 1"),
        (np.diag([1, 0, 1, 1])[:2], "norm 0 for text 1"),
        (np.diag([np.nan, 1, 1, 1])[:2], "norm nan for text 0"),
        (np.diag([1, np.inf, 1, 1])[:2], "for text"),
    ],
)
def test_wrong_vectors_of_texts_are_refused(made: np.ndarray, said: str) -> None:
    class Wrong(ColourWords):
        def describe_texts(self, texts: Sequence[str]) -> Vectors:
            return made

    with pytest.raises(CbirError, match=f"descriptor colour-words returned .*{said}"):
        describe_texts(Wrong(), ["red", "blue"])


def test_vectors_of_another_type_become_float32() -> None:
    class Double(ColourWords):
        def describe_texts(self, texts: Sequence[str]) -> Vectors:
            return super().describe_texts(texts).astype(np.float64)

    assert describe_texts(Double(), ["red"]).dtype == np.float32
