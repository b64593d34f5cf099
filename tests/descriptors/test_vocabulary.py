"""Visual vocabularies against brute force, and what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cbir.descriptors.arrays import fingerprint, npz_bytes, read_npz
from cbir.descriptors.vocabulary import (
    Vocabulary,
    cells_of,
    inverse_document_frequency,
    vocabulary_of,
)
from cbir.errors import CbirError

DRAW = np.random.default_rng(5)
WHOLE_NUMBERS = st.integers(-50, 50).map(float)
"""Distances between these are exact in float32, so that brute force has the same ties."""


def some(*shape: int) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


def squared_distances(descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
    differences = descriptors[:, None].astype(np.float64) - words
    return np.sum(differences**2, axis=2)


@settings(deadline=None)
@given(
    arrays(np.float32, (7, 5), elements=WHOLE_NUMBERS),
    arrays(np.float32, (9, 5), elements=WHOLE_NUMBERS),
)
def test_hard_assignment_is_the_first_of_the_nearest_words(
    words: np.ndarray, descriptors: np.ndarray
) -> None:
    found = Vocabulary(words).hard(descriptors)
    expected = squared_distances(descriptors, words).argmin(axis=1)
    np.testing.assert_array_equal(found.words, expected[:, None])
    np.testing.assert_array_equal(found.weights, np.ones((9, 1)))


@settings(deadline=None)
@given(st.integers(1, 9), st.floats(0.2, 3), st.integers(0, 99))
def test_soft_assignment_is_a_gaussian_over_the_nearest_words(
    nearest: int, sigma: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    words, descriptors = (draw.standard_normal((n, 4)).astype(np.float32) for n in (7, 6))
    found = Vocabulary(words).soft(descriptors, nearest, sigma)
    dense = np.zeros((6, 7))
    np.put_along_axis(dense, found.words, found.weights, axis=1)
    distances = squared_distances(descriptors, words)
    ranks = distances.argsort(axis=1).argsort(axis=1)
    expected = np.where(ranks < nearest, np.exp(-distances / (2 * sigma**2)), 0)
    np.testing.assert_allclose(dense, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_soft_assignment_far_from_all_words_still_sums_to_one() -> None:
    found = Vocabulary(some(6, 3)).soft(some(4, 3) + 1e4, 3, sigma=1e-3)
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-6)


def test_one_word_of_soft_assignment_is_hard_assignment() -> None:
    vocabulary, descriptors = Vocabulary(some(20, 8)), some(50, 8)
    hard, soft = vocabulary.hard(descriptors), vocabulary.soft(descriptors, 1, 0.1)
    np.testing.assert_array_equal(hard.words, soft.words)
    np.testing.assert_array_equal(hard.weights, soft.weights)


@settings(deadline=None)
@given(
    st.integers(0, 40),
    st.sampled_from([(1,), (2,), (1, 2), (1, 2, 4), (1, 3)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_each_level_of_a_pyramid_holds_its_share_of_all_descriptors(
    n: int, grids: tuple[int, ...], soft: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    vocabulary = Vocabulary(draw.standard_normal((5, 3)).astype(np.float32))
    descriptors = draw.standard_normal((n, 3)).astype(np.float32)
    points = (draw.random((n, 4)) * [30, 20, 1, 1]).astype(np.float32)
    found = vocabulary.soft(descriptors, 3, 0.7) if soft else vocabulary.hard(descriptors)
    row = vocabulary.histogram(found, points, (20, 30, 3), grids)
    levels = np.split(row, np.cumsum([5 * grid**2 for grid in grids])[:-1])
    whole = np.zeros(5)
    np.add.at(whole, found.words, found.weights)
    weights = {1: [1], 2: [1 / 2, 1 / 2], 3: [1 / 4, 1 / 4, 1 / 2]}[len(grids)]  # Lazebnik 2006
    for level, weight in zip(levels, weights, strict=True):
        np.testing.assert_allclose(
            level.reshape(-1, 5).sum(axis=0), weight * whole / max(1, n), atol=1e-5
        )
    assert row.dtype == np.float32 and (row >= 0).all()


def test_the_cells_of_a_pyramid_are_by_row_and_column_and_hold_every_point() -> None:
    points = np.array([[0, 0], [29.9, 0], [0, 19.9], [29.9, 19.9], [30, 20], [-0.4, 9]], np.float32)
    assert cells_of(points, (20, 30), 2).tolist() == [0, 1, 2, 3, 3, 0]
    assert cells_of(points, (20, 30), 1).tolist() == [0] * 6


def test_a_histogram_counts_the_words_in_the_cell_where_they_are() -> None:
    vocabulary = Vocabulary(np.array([[0.0], [10.0]], dtype=np.float32))
    found = vocabulary.hard(np.array([[1.0], [9.0], [11.0], [8.0]], dtype=np.float32))
    points = np.array([[1, 1], [8, 1], [8, 2], [1, 8]], dtype=np.float32)
    row = vocabulary.histogram(found, points, (10, 10), [1, 2])
    expected = np.array([[1, 3], [1, 0], [0, 2], [0, 1], [0, 0]]) / 8
    np.testing.assert_allclose(row, expected.ravel())


def test_idf_weighs_each_cell_alike_and_a_word_of_all_images_says_nothing() -> None:
    idf = inverse_document_frequency(np.array([[1, 0, 2], [3, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(idf, [0, np.log(2), np.log(2)], rtol=1e-6)
    vocabulary = Vocabulary(some(3, 2), idf)
    row = np.arange(6, dtype=np.float32)
    np.testing.assert_allclose(vocabulary.weighted(row), row * np.tile(idf, 2))
    np.testing.assert_array_equal(Vocabulary(some(3, 2)).weighted(row), row)


@settings(deadline=None)
@given(st.integers(0, 99))
def test_vlad_of_one_point_is_the_direction_from_its_word(seed: int) -> None:
    draw = np.random.default_rng(seed)
    words = draw.standard_normal((4, 3)).astype(np.float32)
    point = draw.standard_normal((1, 3)).astype(np.float32)
    row = Vocabulary(words).vlad(point).reshape(4, 3)
    nearest = int(squared_distances(point, words)[0].argmin())
    away = point[0].astype(np.float64) - words[nearest]
    np.testing.assert_allclose(row[nearest], away / np.linalg.norm(away), atol=1e-6)
    assert not np.delete(row, nearest, axis=0).any()


def test_vlad_sums_what_descriptors_differ_from_their_words_by() -> None:
    words, descriptors = some(5, 8), some(200, 8)
    nearest = squared_distances(descriptors, words).argmin(axis=1)
    expected = np.zeros((5, 8))
    for word, descriptor in zip(nearest, descriptors, strict=True):
        expected[word] += descriptor - words[word]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(Vocabulary(words).vlad(descriptors), expected.ravel(), atol=1e-5)


def test_vlad_of_descriptors_that_are_words_or_none_is_zero() -> None:
    words = some(5, 8)
    for descriptors in (words, np.empty((0, 8), dtype=np.float32)):
        np.testing.assert_array_equal(Vocabulary(words).vlad(descriptors), np.zeros(40))


def test_an_image_without_descriptors_has_an_empty_histogram() -> None:
    vocabulary, none = Vocabulary(some(6, 4)), np.empty((0, 4), dtype=np.float32)
    for found in (vocabulary.hard(none), vocabulary.soft(none, 3, 0.2)):
        row = vocabulary.histogram(found, none, (10, 10), [1, 2])
        np.testing.assert_array_equal(row, np.zeros(30))


# --- Files -----------------------------------------------------------------------------------


def vocabulary_in(data: bytes) -> Vocabulary:
    return vocabulary_of(read_npz(data, "model.npz"), "model.npz")


def test_a_vocabulary_comes_back_from_its_arrays_as_it_was() -> None:
    words, idf = some(6, 4), np.abs(some(6))
    back = vocabulary_in(npz_bytes({"words": words, "idf": idf}))
    np.testing.assert_array_equal(back.words, words)
    np.testing.assert_array_equal(back.idf, idf)
    assert vocabulary_in(npz_bytes({"words": words})).idf is None


def test_words_and_idf_change_the_fingerprint() -> None:
    words, idf = some(6, 4), np.abs(some(6))
    fingerprints = {
        fingerprint({"words": words}),
        fingerprint({"words": words, "idf": idf}),
        fingerprint({"words": words, "idf": idf + 1}),
        fingerprint({"words": words[::-1]}),
        fingerprint({"words": words.reshape(4, 6)}),
    }
    assert len(fingerprints) == 5


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is damaged"),
        (b"PK\x03\x04 nothing", "is damaged"),
        (zipped({"words.npy": b"\x93NUMPY"}), "is damaged"),
        (
            zipped({"words.npy": saved(np.ones((2, 2), np.float32))[:-1]}),
            "is truncated",
        ),
        (zipped({"words.npy": saved(np.ones((2, 2), np.float64))}), "is float64; expected float16"),
        (zipped({"words.npy": saved(np.array([{}, []], dtype=object))}), "is object; expected"),
        (zipped({"words.npy": saved(np.full((2, 2), np.nan, np.float32))}), "non-finite"),
        (zipped({"words.npy": saved(np.full((2, 2), np.inf, np.float16))}), "non-finite"),
        (zipped({"idf.npy": saved(np.ones(2, np.float32))}), "lacks 'words'"),
        (zipped({"words.npy": saved(np.ones(4, np.float32))}), "are not a matrix"),
        (zipped({"words.npy": saved(np.ones((0, 4), np.float32))}), "are not a matrix"),
        (npz_bytes({"words": some(3, 2), "idf": np.ones(2, np.float32)}), "does not fit 3 words"),
        (npz_bytes({"words": some(3, 2), "idf": -np.ones(3, np.float32)}), "negative"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_words_that_are_damaged_or_fit_nothing_are_refused_in_one_line(
    data: bytes, why: str
) -> None:
    with pytest.raises(CbirError, match=why) as caught:
        vocabulary_in(data)
    assert "\n" not in caught.value.message


def test_descriptors_of_another_width_are_refused() -> None:
    vocabulary = Vocabulary(some(3, 128))
    calls: list[Callable[[], object]] = [
        lambda: vocabulary.hard(some(5, 64)),
        lambda: vocabulary.soft(some(5, 64), 2, 0.1),
        lambda: vocabulary.vlad(some(5, 64)),
    ]
    for call in calls:
        with pytest.raises(CbirError, match=r"of 64 dimensions do not fit words of 128"):
            call()


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("abc/09-", min_size=1, max_size=6),
        st.one_of(
            arrays(np.float32, (2, 3), elements=st.floats(-9, 9, width=16)),
            arrays(np.float16, (4,), elements=st.floats(-9, 9, width=16)),
        ),
        max_size=4,
    )
)
def test_arrays_come_back_from_npz_as_they_were(given_arrays: dict[str, np.ndarray]) -> None:
    data = npz_bytes(given_arrays)
    back = read_npz(data, "it")
    assert set(back) == set(given_arrays)
    for name, array in given_arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    with np.load(io.BytesIO(data), allow_pickle=False) as numpys:
        assert set(numpys.files) == set(given_arrays)


def test_a_compressed_member_is_refused_before_it_expands() -> None:
    """It may state any size and expand to gigabytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros(3, np.float32))
    with pytest.raises(CbirError, match=r"model.npz is damaged: it is compressed"):
        read_npz(stream.getvalue(), "model.npz")


def test_only_half_and_single_precision_are_written() -> None:
    with pytest.raises(CbirError, match="'x' is int64"):
        npz_bytes({"x": np.arange(3)})
