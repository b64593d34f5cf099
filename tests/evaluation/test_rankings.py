from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.errors import CbirError
from cbir.evaluation.hamming import fit_codes, hamming_measures, require_bits
from cbir.evaluation.rankings import (
    Trial,
    answers,
    by_cosine,
    full_measures,
    kept,
    shuffled,
    trial_measures,
)
from cbir.index.exact import rescored
from cbir.measures.by_class import PADDING, class_measures
from cbir.testing import unit

NAMES = ("AP", "AP@5", "nAP@5", "P@3", "R@10", "RR")


def make_trial(seed: int, count: int, queries: int, levels: int, classes: int = 4) -> Trial:
    """A trial with many equal vectors and scores; every other query is one of the images."""
    draw = np.random.default_rng(seed)
    matrix = draw.integers(-levels, levels + 1, (count, 6)).astype(np.float32)
    matrix[~matrix.any(axis=1)] = 1
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    codes = draw.integers(0, classes, count).astype(np.int32)
    rows = draw.integers(0, count, queries)
    itself = np.where(np.arange(queries) % 2, rows, -1)
    asked = np.where(itself >= 0, codes[rows], draw.integers(0, classes, queries))
    ids = [f"{row:06}" for row in range(count)]
    places = np.arange(count)
    return Trial(ids, matrix, codes, matrix[rows], asked.astype(np.int32), itself, places)


def expected_order(trial: Trial, query: int) -> np.ndarray:
    """Rows in the defined order, by a plain sort."""
    everything = np.arange(len(trial.matrix))[None]
    scores = rescored(trial.vectors[query : query + 1], trial.matrix, everything)[0]
    order = np.lexsort((trial.places, -scores))
    return order[order != trial.itself[query]]


def expected_measures(trial: Trial) -> dict[str, np.ndarray]:
    ranked = np.full((len(trial.asked), len(trial.codes)), PADDING, dtype=np.int32)
    for query in range(len(trial.asked)):
        codes = trial.codes[expected_order(trial, query)]
        ranked[query, : len(codes)] = codes
    return class_measures(ranked, trial.asked, trial.relevant, NAMES)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 300),
    st.integers(1, 40),
    st.sampled_from([1, 3, 1000]),
    st.sampled_from([None, 0, 7]),
)
def test_the_whole_ranking_measures_as_a_plain_sort(
    seed: int, count: int, queries: int, levels: int, shuffle: int | None
) -> None:
    trial = replace(make_trial(seed, count, queries, levels), places=shuffled(count, shuffle))
    expected = expected_measures(trial)
    for name, values in full_measures(trial, by_cosine(trial), NAMES).items():
        np.testing.assert_array_equal(values, expected[name])
    for found, query in zip(answers(trial, 10), range(queries), strict=True):
        assert found.ids == [trial.ids[row] for row in expected_order(trial, query)[:10]]


def test_a_large_collection_is_measured_in_pieces_as_a_plain_sort_does() -> None:
    trial = make_trial(0, count=30_000, queries=200, levels=50)
    expected = expected_measures(trial)
    for name, values in full_measures(trial, by_cosine(trial), NAMES).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-12)


def test_the_first_ranks_and_the_whole_ranking_say_the_same() -> None:
    trial = make_trial(3, count=400, queries=50, levels=2)
    shallow, whole = ("AP@5", "P@3"), full_measures(trial, by_cosine(trial), NAMES)
    for name, values in trial_measures(trial, shallow).items():
        np.testing.assert_array_equal(values, whole[name])


def test_deep_cut_offs_are_read_from_the_whole_ranking_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cbir.evaluation.rankings.usable_cores", lambda: 1)
    trial = make_trial(5, count=20_000, queries=600, levels=50)
    deep, whole = ("AP@20000", "nDCG@1001"), full_measures(trial, by_cosine(trial), ("AP", "nDCG"))
    tracemalloc.start()
    try:
        values = trial_measures(trial, deep)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(values["AP@20000"], whole["AP"])
    assert most < 120_000_000  # 12 million ranks of 12 bytes each would be more


def test_what_is_kept_of_an_answer_is_what_is_measured_or_its_first_hits() -> None:
    assert kept(["P@10", "AP@250"], available=5_000) == 250
    assert kept(["P@10", "AP@1000"], available=5_000) == 1_000
    assert kept(["P@10", "AP@1001"], available=5_000) == 100
    assert kept(["P@10", "AP"], available=5_000) == 100
    assert kept(["AP"], available=27) == kept(["P@100"], available=27) == 27
    assert kept(["AP"], available=0) == kept(["P@10"], available=0) == 1
    assert kept([], available=5_000) == 100


def test_measures_of_other_families_read_the_whole_ranking() -> None:
    trial = make_trial(4, count=60, queries=9, levels=2)
    values = full_measures(trial, by_cosine(trial), ("Rprec", "AP"))
    for query in range(9):
        relevant = int(trial.relevant[query])
        first = trial.codes[expected_order(trial, query)][:relevant]
        share = float((first == trial.asked[query]).mean()) if relevant else 0.0
        assert values["Rprec"][query] == pytest.approx(share, abs=1e-6)


def test_ids_that_hold_the_class_decide_among_equals_and_a_seed_does_not() -> None:
    count = 400
    same = np.full((count, 4), 0.5, dtype=np.float32)
    codes = np.repeat(np.arange(4, dtype=np.int32), count // 4)  # as ids sorted by class
    nobody = np.full(4, -1, dtype=np.int64)
    ids = [f"{code}/{row:03}" for row, code in enumerate(codes.tolist())]
    asked = np.arange(4, dtype=np.int32)
    by_id = Trial(ids, same, codes, same[:4], asked, nobody, np.arange(count))
    first = trial_measures(by_id, ["AP"])["AP"]
    assert first[0] == 1 and first[3] < 0.2
    seeded = [
        trial_measures(replace(by_id, places=shuffled(count, seed)), ["AP"])["AP"]
        for seed in range(5)
    ]
    assert np.abs(np.array(seeded) - 0.25).max() < 0.1
    assert not np.array_equal(seeded[0], seeded[1])
    again = trial_measures(replace(by_id, places=shuffled(count, 0)), ["AP"])["AP"]
    np.testing.assert_array_equal(seeded[0], again)


# --- binary codes ----------------------------------------------------------------------------


def clustered(seed: int, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (count, dim) around eight centres, and the number of each one's centre."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(8, dim))
    labels = draw.integers(0, 8, count)
    rows = centres[labels] + 0.7 * draw.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def coded_trial(bits: int) -> Trial:
    rows, labels = clustered(0, 600, 24)
    ids = [f"{row}" for row in range(500)]
    codes = labels.astype(np.int32)
    nobody = np.full(100, -1, dtype=np.int64)
    return Trial(ids, rows[:500], codes[:500], rows[500:], codes[500:], nobody, np.arange(500))


def test_codes_are_measured_by_hamming_distance_with_ties_by_seed() -> None:
    trial = coded_trial(16)
    coder = fit_codes(trial.matrix, 16)
    values = hamming_measures(trial, coder, ["P@10"], seed=3)
    assert list(values) == ["P@10", "AP"]
    indexed = [int("".join(map(str, row)), 2) for row in (coder.codes(trial.matrix) > 0) * 1]
    places = shuffled(500, 3)
    for query, bits in enumerate((coder.codes(trial.vectors) > 0) * 1):
        asked = int("".join(map(str, bits)), 2)
        distances = [(asked ^ code).bit_count() for code in indexed]
        order = np.lexsort((places, distances))
        right = trial.codes[order] == trial.asked[query]
        ranks = np.flatnonzero(right) + 1
        precision = np.arange(1, len(ranks) + 1) / ranks
        assert values["AP"][query] == pytest.approx(precision.mean())
        assert values["P@10"][query] == pytest.approx(right[:10].mean())


def test_the_rotation_brings_vectors_nearer_to_their_codes_and_is_a_rotation() -> None:
    rows, _ = clustered(1, 2000, 32)
    coder = fit_codes(rows, 16)
    np.testing.assert_allclose(coder.axes.T @ coder.axes, np.eye(16), atol=1e-4)
    projected = (rows - coder.mean) @ coder.axes

    def loss(values: np.ndarray) -> float:
        return float(np.square(np.where(values >= 0, 1, -1) - values).sum())

    for seed in range(3):
        draw = np.random.default_rng(100 + seed).standard_normal((16, 16))
        assert loss(projected) < loss(projected @ np.linalg.qr(draw)[0])
    np.testing.assert_array_equal(coder.axes, fit_codes(rows, 16).axes)


def test_more_bits_than_numbers_are_refused() -> None:
    rows, _ = clustered(2, 100, 12)
    with pytest.raises(CbirError, match="codes of 16 bits need more than 12 dimensions"):
        fit_codes(rows, 16)
    with pytest.raises(CbirError, match=r"codes of 0 bits"):
        fit_codes(rows, 0)
    require_bits(12, 12)
    with pytest.raises(CbirError, match="codes of 13 bits need more than 12 dimensions"):
        require_bits(13, 12)


def test_vectors_that_vary_in_fewer_directions_than_bits_have_codes() -> None:
    draw = np.random.default_rng(0)
    rows = unit(draw.normal(size=(300, 4)) @ draw.normal(size=(4, 20)))
    codes = fit_codes(rows, 16).codes(rows)
    distances = (16 - codes @ codes.T) / 2
    near = rows @ rows.T > 0.9
    assert distances[near].mean() < 4 < distances[rows @ rows.T < 0].mean()
