"""The figures of a report against their definitions, written down in the plainest way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.evaluation import Queries
from cbir.evaluation.rankings import Hits, Trial, first_hits
from cbir.index.base import Matches
from cbir.measures.by_class import PADDING, UNLABELLED
from cbir.report.examples import lowest_queries, random_queries
from cbir.report.statistics import (
    RECALL_LEVELS,
    full_curve,
    interpolated_precision,
    precision_at_ranks,
    sampled,
    score_for,
    taken_for,
)
from cbir.testing import unit


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 10))
def test_interpolated_precision_is_the_best_from_each_recall_on(
    found: list[bool], never_found: int
) -> None:
    relevant = sum(found) + never_found
    curve = interpolated_precision(np.flatnonzero(found), relevant)
    for level in range(RECALL_LEVELS):
        reaching = [
            sum(found[:k]) / k
            for k in range(1, len(found) + 1)
            if relevant and 100 * sum(found[:k]) >= level * relevant and sum(found[:k])
        ]
        assert curve[level] == pytest.approx(max(reaching, default=0.0))


def made_up(seed: int = 0) -> Hits:
    """Twelve queries of three classes and nine hits each, some without a label, some missing."""
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 4, (12, 9)).astype(np.int32)
    scores = -np.sort(-random.random((12, 9)).round(1), axis=1).astype(np.float32)
    labels[3, 5:] = PADDING
    scores[3, 5:] = np.nan
    asked = random.integers(0, 3, 12).astype(np.int32)
    asked[7] = UNLABELLED
    return Hits(("ant", "bee", "cow", "dog"), asked, labels, scores, np.full(12, 9))


def test_precision_at_every_rank() -> None:
    hits = made_up()
    for k, precision in enumerate(precision_at_ranks(hits.found), 1):
        right = [
            sum(h == a and a >= 0 for h in row[:k].tolist()) / k
            for a, row in zip(hits.asked.tolist(), hits.labels, strict=True)
        ]
        assert precision == pytest.approx(np.mean(right))


def test_what_is_taken_for_what() -> None:
    hits = made_up()
    shares = taken_for(hits, np.full(12, 4))
    assert shares.shape == (4, 5)
    assert np.isnan(shares[3]).all()  # no query is a dog
    for asked in range(3):
        rows = hits.labels[hits.asked == asked][:, :4].ravel().tolist()
        there = [label for label in rows if label != PADDING]
        for label in range(4):
            assert shares[asked, label] == pytest.approx(there.count(label) / len(there))
        assert shares[asked, 4] == pytest.approx(there.count(UNLABELLED) / len(there))


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_from_which_score_on_so_many_hits_are_right(share: float, seed: int) -> None:
    hits = made_up(seed)
    there = hits.retrieved
    scores, found = hits.scores[there], hits.found[there]
    enough = [float(s) for s in np.unique(scores) if found[scores >= s].mean() >= share]
    assert score_for(hits, share) == (min(enough) if enough else None)


def test_the_curve_of_full_rankings_leaves_the_query_itself_out() -> None:
    random = np.random.default_rng(2)
    matrix = unit(random.normal(size=(71, 5)))
    labels = random.integers(-1, 3, 70).astype(np.int32)
    itself = np.array([4, -1, 30])
    matrix, vectors = matrix[:70], matrix[[4, 70, 30]]
    asked = np.array([labels[4], 1, labels[30]], dtype=np.int32)
    curves = []
    for vector, code, own in zip(vectors, asked, itself, strict=True):
        order = [row for row in np.argsort(-(matrix @ vector), kind="stable") if row != own]
        right = [labels[row] == code and code >= 0 for row in order]
        curves.append(interpolated_precision(np.flatnonzero(right), sum(right)))
    ids = [f"{row:02}" for row in range(70)]
    trial = Trial(ids, matrix, labels, vectors, asked, itself, np.arange(70))
    assert full_curve(trial) == pytest.approx(np.mean(curves, axis=0))


def test_equal_scores_stand_in_a_curve_as_they_do_in_its_measures() -> None:
    """Two images of another class and two of the query's own, all alike: a seed decides."""
    matrix = np.ones((4, 1), dtype=np.float32)
    labels = np.array([1, 1, 0, 0], dtype=np.int32)
    asked, itself = np.array([0], dtype=np.int32), np.array([-1])
    for places in ([0, 1, 2, 3], [2, 3, 0, 1], [1, 3, 0, 2]):
        trial = Trial(list("abcd"), matrix, labels, matrix[:1], asked, itself, np.array(places))
        ranked = labels[np.argsort(places)]
        expected = interpolated_precision(np.flatnonzero(ranked == 0), 2)
        assert full_curve(trial) == pytest.approx(expected)


def test_rankings_of_different_lengths_are_filled_up() -> None:
    matches = [
        Matches(["d", "b"], np.array([0.9, 0.8], dtype=np.float32), [None, None]),
        Matches(["c"], np.array([0.7], dtype=np.float32), [None]),
    ]
    queries = Queries(["a", "q"], ["cow", None], np.zeros((2, 1), dtype=np.float32))
    hits = first_hits(queries, matches, {"a": "cow", "b": "cow", "c": None, "d": "bee"}, depth=5)
    assert hits.classes == ("bee", "cow")
    assert hits.relevant.tolist() == [1, 0]  # `a` is not relevant to itself
    assert hits.labels.tolist() == [[0, 1], [UNLABELLED, PADDING]]
    assert hits.found.tolist() == [[False, True], [False, False]]
    assert hits.retrieved.tolist() == [[True, True], [True, False]]


def test_a_large_index_is_ranked_to_the_end_for_a_sample_always_the_same() -> None:
    assert sampled(300, 1_000).tolist() == list(range(300))
    some = sampled(10_000, 50_000)
    assert len(some) == 500 and np.all(np.diff(some) > 0)
    assert some.tolist() == sampled(10_000, 50_000).tolist()
    assert len(sampled(3, 10**9)) == 1


def test_the_worst_the_best_and_random_queries() -> None:
    asked = np.array([0, 0, 0, 1, 1, 2], dtype=np.int32)
    scores = np.array([[0.3], [0.9], [0.5], [0.8], [0.2], [0.1]], dtype=np.float32)
    labels, relevant = np.zeros((6, 1), dtype=np.int32), np.ones(6, dtype=np.int64)
    hits = Hits(("ant", "bee", "cow"), asked, labels, scores, relevant)
    values = np.array([0.0, 0.0, 0.0, 1.0, 0.5, 1.0])
    assert lowest_queries(values, hits, 3, 2) == [1, 2, 4]  # the surest mistakes, two of a class
    assert lowest_queries(-values, hits, 3, 1) == [3, 5, 1]  # one of a class
    assert random_queries(50, 6) == random_queries(50, 6) == sorted(random_queries(50, 6))
