"""Comparing runs, against SciPy's tests and against what must hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.measures.significance import (
    ClassMeans,
    Comparison,
    class_means,
    compare_runs,
    holm,
    mean_intervals,
    randomisation_p,
)

few_values = st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 0.5, 1.0])
pairs = st.lists(st.tuples(few_values, few_values), min_size=2, max_size=9)


def values(count: int, better_by: float, seed: int) -> tuple[NDArray, NDArray]:
    """Two runs of one measure over the same queries, which are easy and hard for both."""
    random = np.random.default_rng(seed)
    a = random.beta(2, 2, count)
    return a, np.clip(a + random.normal(better_by, 0.1, count), 0, 1)


def compare(
    a: NDArray,
    b: NDArray,
    labels: list[str | None] | None = None,
    names: tuple[str, str] = ("a", "b"),
    measure: str = "P@1",
    **options: Any,
) -> Comparison:
    """Two runs in one measure."""
    runs = [(name, {measure: of}) for name, of in zip(names, (a, b), strict=True)]
    (found,) = compare_runs(runs, labels, **options)
    return found


def mean_of(x: NDArray, axis: int = -1) -> NDArray:
    return np.mean(x, axis=axis)


def scipy_p(differences: NDArray, rounds: float) -> float:
    from scipy.stats import permutation_test

    # One sample under "samples" is paired with its own negative: signs are exchanged.
    return float(
        permutation_test(
            (differences,),
            mean_of,
            permutation_type="samples",
            vectorized=True,
            n_resamples=rounds,
            rng=np.random.default_rng(3),
        ).pvalue
    )


@settings(deadline=None, max_examples=200)
@given(pairs)
def test_p_of_few_queries_is_exact_as_scipys(both: list[tuple[float, float]]) -> None:
    a, b = np.array(both).T
    # SciPy forgives less rounding; in thirtieths all sums are exact.
    in_thirtieths = np.rint((b - a) * 30)
    assert compare(a, b).p == pytest.approx(scipy_p(in_thirtieths, np.inf), abs=1e-12)


@pytest.mark.parametrize("better_by", [0.0, 0.005, 0.02])
def test_p_of_many_queries_is_that_of_scipy_within_chance(better_by: float) -> None:
    a, b = values(300, better_by, seed=1)
    ours, theirs = compare(a, b).p, scipy_p(b - a, 9_999)
    error = math.sqrt(2 * max(theirs * (1 - theirs), 1e-4) / 10_000)
    assert abs(ours - theirs) < 4 * error


def test_p_is_the_sign_test_where_all_differences_are_equal() -> None:
    from scipy.stats import binomtest

    for wins in range(13):
        differences = np.array([0.1] * wins + [-0.1] * (12 - wins))
        expected = binomtest(wins, 12).pvalue
        assert randomisation_p(differences) == pytest.approx(expected)
        random = randomisation_p(differences, rounds=4_000)  # fewer than the 4,096 sign changes
        assert random == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4_000))
        assert random != randomisation_p(differences) or expected == 1


def test_p_is_uniform_where_nothing_differs_but_chance() -> None:
    random = np.random.default_rng(5)
    p = np.array([compare(*random.normal(size=(2, 25)), rounds=500).p for _ in range(600)])
    for level in (0.05, 0.2, 0.5):
        error = math.sqrt(level * (1 - level) / len(p))
        assert abs((p <= level).mean() - level) < 4 * error
    assert p.min() >= 1 / 501  # never 0


@pytest.mark.parametrize("count", [40, 1_500])
def test_the_interval_is_that_of_scipys_bootstrap(count: int) -> None:
    from scipy.stats import bootstrap

    a, b = values(count, 0.01, seed=2)
    theirs = bootstrap(
        (b - a,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    )
    expected = theirs.confidence_interval
    within = 0.12  # standard errors: 0.027 is that of a 2.5th percentile of 10,000 resamples
    assert compare(a, b).interval == pytest.approx(
        (expected.low, expected.high), abs=within * theirs.standard_error
    )
    of_mean = bootstrap(
        (a,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    )
    low, high = mean_intervals({"AP": a})["AP"]
    assert (low, high) == pytest.approx(
        tuple(of_mean.confidence_interval), abs=within * of_mean.standard_error
    )
    assert low < a.mean() < high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        a = random.normal(0, 1, 80)
        low, high = compare(a, a + random.normal(0.3, 1, 80), rounds=400).interval
        held += low <= 0.3 <= high
    assert 0.95 - 4 * math.sqrt(0.05 * 0.95 / 400) < held / 400 < 0.99


@settings(deadline=None, max_examples=100)
@given(pairs)
def test_exchanging_the_runs_exchanges_everything(both: list[tuple[float, float]]) -> None:
    a, b = np.array(both).T
    labels = ["cat" if n % 2 else None for n in range(len(both))]
    one, other = compare(a, b, labels, rounds=300), compare(b, a, labels, rounds=300)
    assert one.p == other.p
    assert one.difference == pytest.approx(-other.difference)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.wins + one.ties + one.losses == one.n_queries == len(both)
    assert one.difference == pytest.approx(one.mean_b - one.mean_a)
    assert one.classes["cat"].difference == pytest.approx(-other.classes["cat"].difference)
    assert one.classes["cat"].n_queries == len(both) // 2


def test_queries_that_do_not_differ_change_no_p() -> None:
    a, b = values(9, 0.05, seed=4)
    same = np.linspace(0, 1, 200)
    assert compare(a, b).p == compare(np.append(a, same), np.append(b, same)).p


def test_what_differs_by_rounding_only_is_a_tie() -> None:
    a = np.array([0.1 + 0.2, 0.5, 0.7])
    comparison = compare(a, np.array([0.3, 0.5, 0.7]))
    assert (comparison.wins, comparison.ties, comparison.losses, comparison.p) == (0, 3, 0, 1)
    assert comparison.in_words == "a and b have the same P@1 for every query."


def test_the_same_seed_gives_the_same_figures() -> None:
    a, b = values(200, 0.01, seed=6)
    assert compare(a, b) == compare(a, b)
    assert compare(a, b).p != compare(a, b, seed=1).p
    assert compare(a, b).interval != compare(a, b, seed=1).interval


def test_holm_is_holms() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.5]) == pytest.approx([0.8, 0.8])  # never below one that was smaller
    assert holm([0.9, 0.7, 0.8]) == [1, 1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_step_by_step_until_one_is_kept(p_values: list[float]) -> None:
    level, rejected = 0.05, set()
    for place, p in enumerate(sorted(p_values)):
        if p * (len(p_values) - place) >= level:
            break
        rejected.add(p)
    adjusted = holm(p_values)
    assert {p for p, a in zip(p_values, adjusted, strict=True) if a < level} == rejected


def test_several_runs_are_compared_in_pairs_and_corrected() -> None:
    a, b = values(120, 0.05, seed=7)
    c = np.clip(a + 0.001, 0, 1)
    labels = ["cat", "dog", None] * 40
    runs = [(name, {"P@1": of, "AP@5": of / 2}) for name, of in (("a", a), ("b", b), ("c", c))]
    answers = compare_runs(runs, labels)
    assert [(one.measure, one.a, one.b) for one in answers] == [
        (measure, *pair)
        for measure in ("P@1", "AP@5")
        for pair in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    first = answers[0]
    alone = compare(a, b, labels)
    assert (first.p, first.pairs, alone.pairs) == (alone.p, 3, 1)
    assert first.interval == pytest.approx(alone.interval)
    assert first.p_adjusted == holm([one.p for one in answers[:3]])[0]
    assert first.significant is True and answers[2].p_adjusted <= 1
    assert set(first.classes) == {"cat", "dog"}
    dogs = first.classes["dog"]
    assert (dogs.n_queries, dogs.mean_a) == (40, pytest.approx(a[1::3].mean()))
    assert (dogs.mean_b, dogs.difference) == pytest.approx((b[1::3].mean(), (b - a)[1::3].mean()))
    assert "after correction for 3 pairs" in first.in_words
    assert compare_runs(runs[:1]) == []


def test_a_comparison_as_json_has_every_promised_key() -> None:
    a, b = values(60, 0.05, seed=7)
    found = compare(a, b, ["cat", "dog", None] * 20, ("old", "new"), under=" (leave-one-out)")
    figures = json.loads(json.dumps(found.to_json()))
    assert {key: figures[key] for key in ("measure", "a", "b", "n_queries")} == {
        "measure": "P@1",
        "a": "old",
        "b": "new",
        "n_queries": 60,
    }
    assert set(figures) == {
        *("measure", "a", "b", "mean_a", "mean_b", "difference", "interval", "p", "p_adjusted"),
        *("significant", "wins", "ties", "losses", "n_queries", "in_words", "classes"),
    }
    assert figures["interval"] == list(found.interval)
    assert set(figures["classes"]["cat"]) == {"n_queries", "mean_a", "mean_b", "difference"}
    assert " in P@1 (leave-one-out) by " in figures["in_words"]


def test_words_say_which_is_better_and_whether_it_is_luck() -> None:
    a, b = values(400, 0.02, seed=9)
    comparison = compare(a, b, names=("old.run", "new.run"), measure="AP@10")
    low, high = comparison.interval
    assert comparison.in_words == (
        f"new.run is better than old.run in AP@10 by {comparison.difference:.4f} (95% interval "
        f"{low:.4f} to {high:.4f}); a difference like this would come about by chance in fewer "
        f"than 1 of 1,000 such experiments (p = 0.0001), so it is significant."
    )
    exchanged = compare(b, a, names=("new.run", "old.run"), measure="AP@10")
    assert exchanged.in_words == comparison.in_words
    a, b = values(50, 0.0, seed=9)
    by_chance = compare(a, b)
    assert by_chance.p > 0.05
    said = by_chance.in_words
    assert said.startswith("a and b cannot be told apart in P@1: ")
    assert f"about {by_chance.p * 100:.0f} of 100" in said and "significant" not in said


def with_p(p: float, p_adjusted: float | None = None, pairs: int = 1) -> Comparison:
    adjusted = p if p_adjusted is None else p_adjusted
    return replace(compare(*values(50, 0.1, seed=9)), p=p, p_adjusted=adjusted, pairs=pairs)


def test_how_often_chance_does_it_is_told_by_p_and_the_verdict_by_what_is_corrected() -> None:
    said = with_p(0.4, 1.0, pairs=3).in_words
    assert "by chance in about 40 of 100 such experiments (p = 0.4, 1 after correction" in said
    assert "for 3 pairs)" in said and "cannot be told apart" in said
    said = with_p(0.03, 0.09, pairs=3).in_words
    assert "cannot be told apart" in said and "about 3 of 100" in said
    assert "there are too many pairs for that to be significant" in said


@pytest.mark.parametrize(
    ("p", "how_often", "significant"),
    [
        (0.0496, "slightly fewer than 5 of 100 such experiments (p = 0.0496)", True),
        (0.0504, "slightly more than 5 of 100 such experiments (p = 0.0504)", False),
        (0.05, "5 of 100 such experiments (p = 0.05)", False),
        (0.034, "about 3 of 100 such experiments (p = 0.034)", True),
        (0.999, "nearly all such experiments (p = 0.999)", False),
    ],
)
def test_words_near_the_limit_agree_with_the_verdict(
    p: float, how_often: str, significant: bool
) -> None:
    said = with_p(p).in_words
    assert how_often in said
    assert ("so it is significant" in said) == significant


def test_means_that_differ_by_rounding_only_are_equal() -> None:
    a = np.random.default_rng(0).random(97)
    for seed in range(50):
        b = np.random.default_rng(seed).permutation(a)
        assert "their means are equal" in compare(a, b).in_words


def test_words_say_when_the_queries_are_too_few() -> None:
    comparison = compare(np.zeros(5), np.ones(5))
    assert comparison.p == 2 / 2**5
    assert "only 5 queries differ, too few" in comparison.in_words
    assert "their means are equal" in compare(np.array([0.0, 1]), np.array([1.0, 0])).in_words


def test_what_does_not_go_together_is_refused() -> None:
    three, four = np.zeros(3), np.zeros(4)
    with pytest.raises(CbirError, match=r"shape \(3,\) and \(4,\) cannot be compared"):
        compare(three, four)
    with pytest.raises(CbirError, match=r"2 labels do not match 3 queries"):
        compare(three, three, ["cat", "dog"])
    with pytest.raises(CbirError, match="no queries to compare"):
        compare(np.zeros(0), np.zeros(0))
    with pytest.raises(CbirError, match="finite"):
        compare(three, np.array([0, np.nan, 1]))


def test_class_means_leave_out_what_has_no_class() -> None:
    per_query = {"P@1": np.array([1.0, 0, 1, 1]), "AP@5": np.array([0.5, 0, 1, 0.25])}
    assert class_means(per_query, ["dog", None, "cat", "dog"]) == {
        "cat": ClassMeans(1, {"P@1": 1.0, "AP@5": 1.0}),
        "dog": ClassMeans(2, {"P@1": 1.0, "AP@5": 0.375}),
    }
    assert list(class_means(per_query, ["dog", None, "cat", "dog"])) == ["cat", "dog"]
