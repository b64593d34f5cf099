"""Is one run better than another, or was it luck? Paired tests over per-query values.

Smucker, Allan & Carterette, "A comparison of statistical significance tests for information
retrieval evaluation" (CIKM 2007): the randomisation test, where the t-test would assume a shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError

ROUNDS = 10_000
SEED = 0
SIGNIFICANT = 0.05
"""A corrected p below this is called significant."""

_PERCENTILES = (2.5, 97.5)
_NOISE = 1e-12
"""Values closer than this are equal: what is between them is rounding."""

_DRAWS_AT_ONCE = 1 << 20
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")

Values = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """The queries of one class: how many, both means, and b's less a's."""

    n_queries: int
    mean_a: float
    mean_b: float
    difference: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run b against run a in one measure.

    `difference` is the mean of b - a over the queries, `interval` its 95 % bootstrap interval.
    `p`: how often a difference as large, in either direction, comes about when it is left to
    chance which of a query's two values belongs to which run. `p_adjusted` is p after Holm's
    correction for `pairs` comparisons. `wins`, `ties`, `losses` count queries, from b's side.
    `classes` by label, for queries that have one.
    """

    n_queries: int
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    p: float
    wins: int
    ties: int
    losses: int
    classes: dict[str, ClassDifference]
    p_adjusted: float
    pairs: int = 1

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below `SIGNIFICANT`."""
        return self.p_adjusted < SIGNIFICANT


def compare(
    a: Values,
    b: Values,
    labels: Sequence[str | None] | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = SEED,
) -> Comparison:
    """Compare two runs in one measure, given its values for the same queries, float64 (q,) each.

    `labels` (q,) are the queries' classes, None where there is none. The test is the two-sided
    paired randomisation test: all sign changes of the differences where there are at most
    `rounds` of them, else `rounds` random ones, with p = (1 + count) / (1 + rounds), so that p is
    never 0 (Davison & Hinkley, "Bootstrap methods and their application", 1997). The interval
    is from `rounds` resamples of the queries (`bootstrap_means`). Raises `CbirError` for arrays
    that do not go together, values that are not finite, and no query at all.
    """
    resampled = bootstrap_means(_checked([a, b], labels), rounds, seed)
    return _compare(a, b, labels, _interval(resampled[:, 1] - resampled[:, 0]), rounds, seed)


def compare_runs(
    runs: Sequence[tuple[str, Mapping[str, Values]]],
    labels: Sequence[str | None] | None = None,
    *,
    under: str = "",
    rounds: int = ROUNDS,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """Every pair of `runs` in every measure, as `cbir evaluate --json` prints them.

    A run is its name and measure -> values, float64 (q,), of the same queries in the same order.
    With several pairs, each measure's p values are corrected for their number (`holm`). `under`
    is what the sentences say after a measure's name.
    """
    names = [name for name, _ in runs]
    measures = list(runs[0][1]) if runs else []
    if len(runs) < 2 or not measures:
        return []
    columns = _checked([of[measure] for measure in measures for _, of in runs], labels)
    resampled = bootstrap_means(columns, rounds, seed)
    pairs = list(combinations(range(len(runs)), 2))
    answers = []
    for number, measure in enumerate(measures):
        of_runs = slice(number * len(runs), (number + 1) * len(runs))
        values, means = columns[:, of_runs].T, resampled[:, of_runs].T
        compared = [
            _compare(values[a], values[b], labels, _interval(means[b] - means[a]), rounds, seed)
            for a, b in pairs
        ]
        corrected = holm([comparison.p for comparison in compared])
        for (a, b), comparison, p in zip(pairs, compared, corrected, strict=True):
            comparison = replace(comparison, p_adjusted=p, pairs=len(pairs))
            answers.append(_to_json(measure, names[a], names[b], comparison, under))
    return answers


def mean_intervals(
    per_query: Mapping[str, Values], *, rounds: int = ROUNDS, seed: int = SEED
) -> dict[str, Interval]:
    """Measure -> 95 % bootstrap interval of its mean, from values float64 (q,)."""
    resampled = bootstrap_means(_checked(list(per_query.values())), rounds, seed)
    return {name: _interval(means) for name, means in zip(per_query, resampled.T, strict=True)}


def bootstrap_means(columns: Values, rounds: int = ROUNDS, seed: int = SEED) -> Values:
    """Means (rounds, m) of `columns` (q, m) over queries drawn with replacement, q at a time.

    All columns share their draws, so that differences of means are means of differences. Their
    2.5th and 97.5th percentiles are the percentile interval of Efron & Tibshirani, "An
    introduction to the bootstrap" (1993), chapter 13.
    """
    queries = len(columns)
    random = np.random.default_rng(seed)
    means = np.empty((rounds, columns.shape[1]))
    for some in _in_parts(rounds, queries):
        rows = some.stop - some.start
        drawn = random.integers(0, queries, (rows, queries))
        drawn += np.arange(rows)[:, None] * queries
        times = np.bincount(drawn.ravel(), minlength=rows * queries).reshape(rows, queries)
        means[some] = times @ columns / queries
    return means


def randomisation_p(differences: Values, rounds: int = ROUNDS, seed: int = SEED) -> float:
    """Two-sided p of the paired randomisation test of `differences`, float64 (q,); see `compare`.

    Eight queries share a byte of random signs and a table of their 256 sums: ten thousand rounds
    over ten thousand queries take a tenth of a second.
    """
    differing = differences[differences != 0]  # a sign changes nothing where there is no difference
    count = len(differing)
    exact = 2**count <= rounds
    padded = np.zeros(-(-count // 8) * 8)
    padded[:count] = differing
    sums = padded.reshape(-1, 8) @ (1.0 - 2.0 * _BITS).T
    # Sums that differ by rounding only are as large as what was observed.
    observed = abs(float(differing.sum())) - _NOISE * float(np.abs(differing).sum())
    places = np.arange(len(sums)) * 256
    random = np.random.default_rng(seed)
    as_large = 0
    for some in _in_parts(2**count if exact else rounds, max(1, len(sums))):
        if exact:
            numbers = np.arange(some.start, some.stop, dtype="<u8")
            signs = numbers[:, None].view(np.uint8)[:, : len(sums)]
        else:
            signs = random.integers(0, 256, (some.stop - some.start, len(sums)), dtype=np.uint8)
        totals = sums.ravel()[signs + places].sum(axis=1)
        as_large += int((np.abs(totals) >= observed).sum())
    return as_large / 2**count if exact else (1 + as_large) / (1 + rounds)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the same order.

    Of m, the smallest is multiplied by m, the next by m - 1 and so on; none ends below one that
    was smaller, none above 1. Holm, "A simple sequentially rejective multiple test procedure"
    (Scandinavian Journal of Statistics, 1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def in_words(comparison: Comparison, name_a: str, name_b: str, measure: str) -> str:
    """The comparison as one plain sentence."""
    if comparison.wins == comparison.losses == 0:
        return f"{name_a} and {name_b} have the same {measure} for every query."
    if abs(comparison.difference) <= _NOISE:
        return f"{name_a} and {name_b} cannot be told apart in {measure}: their means are equal."
    better, worse = (name_b, name_a) if comparison.difference > 0 else (name_a, name_b)
    digits = 4 if abs(comparison.difference) >= 0.001 else 6
    size = f"{abs(comparison.difference):.{digits}f}"
    ends = sorted(end if comparison.difference > 0 else -end for end in comparison.interval)
    interval = f"95% interval {ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
    p = f"p = {_shown(comparison.p)}"
    if comparison.pairs > 1:
        corrected = _shown(comparison.p_adjusted)
        p += f", {corrected} after correction for {comparison.pairs} pairs"
    chance = f"come about by chance in {_how_often(comparison.p)} such experiments ({p})"
    if comparison.significant:
        return (
            f"{better} is better than {worse} in {measure} by {size} ({interval}); a difference "
            f"like this would {chance}, so it is significant."
        )
    few = comparison.wins + comparison.losses
    reason = ""
    if few < 6:
        reason = f"; only {few} queries differ, too few for any to be significant"
    elif comparison.p < SIGNIFICANT:
        reason = "; there are too many pairs for that to be significant"
    return (
        f"{name_a} and {name_b} cannot be told apart in {measure}: {better} has {size} more "
        f"({interval}), and a difference like this would {chance}{reason}."
    )


def class_means(
    per_query: Mapping[str, Values], labels: Sequence[str | None]
) -> dict[str, dict[str, Any]]:
    """Label -> {"n_queries", "measures": measure -> mean}, in the order of the labels."""
    return {
        label: {
            "n_queries": len(rows),
            "measures": {name: float(values[rows].mean()) for name, values in per_query.items()},
        }
        for label, rows in _rows_by_label(labels)
    }


def _compare(
    a: Values,
    b: Values,
    labels: Sequence[str | None] | None,
    interval: Interval,
    rounds: int,
    seed: int,
) -> Comparison:
    differences = np.where(np.abs(b - a) <= _NOISE, 0.0, b - a)
    p = randomisation_p(differences, rounds, seed)
    return Comparison(
        n_queries=len(differences),
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=float(differences.mean()),
        interval=interval,
        p=p,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        classes={
            label: ClassDifference(
                len(rows),
                float(a[rows].mean()),
                float(b[rows].mean()),
                float(differences[rows].mean()),
            )
            for label, rows in _rows_by_label(labels or ())
        },
        p_adjusted=p,
    )


def _to_json(
    measure: str, name_a: str, name_b: str, comparison: Comparison, under: str
) -> dict[str, Any]:
    return {
        "measure": measure,
        "a": name_a,
        "b": name_b,
        "mean_a": comparison.mean_a,
        "mean_b": comparison.mean_b,
        "difference": comparison.difference,
        "interval": list(comparison.interval),
        "p": comparison.p,
        "p_adjusted": comparison.p_adjusted,
        "significant": comparison.significant,
        "wins": comparison.wins,
        "ties": comparison.ties,
        "losses": comparison.losses,
        "n_queries": comparison.n_queries,
        "in_words": in_words(comparison, name_a, name_b, f"{measure}{under}"),
        "classes": {
            label: {
                "n_queries": one.n_queries,
                "mean_a": one.mean_a,
                "mean_b": one.mean_b,
                "difference": one.difference,
            }
            for label, one in comparison.classes.items()
        },
    }


def _how_often(p: float) -> str:
    if p < 0.001:
        return "fewer than 1 of 1,000"
    if p < 0.01:
        return "fewer than 1 of 100"
    if round(100 * p) == 100 * SIGNIFICANT and p != SIGNIFICANT:
        return (
            f"slightly {'fewer' if p < SIGNIFICANT else 'more'} than {100 * SIGNIFICANT:.0f} of 100"
        )
    about = "" if p == SIGNIFICANT else "about "
    return f"{about}{round(100 * p)} of 100" if p < 0.995 else "nearly all"


def _shown(p: float) -> str:
    """`p` as tables show it, without zeros at the end."""
    return f"{p:.4f}".rstrip("0").rstrip(".")


def _interval(means: Values) -> Interval:
    low, high = np.percentile(means, _PERCENTILES).tolist()
    return low, high


def _in_parts(total: int, width: int) -> Iterator[slice]:
    """`range(total)` in parts of rows, so that a part of `width` columns stays in cache."""
    step = max(1, _DRAWS_AT_ONCE // width)
    return (slice(start, min(total, start + step)) for start in range(0, total, step))


def _rows_by_label(labels: Sequence[str | None]) -> list[tuple[str, NDArray[np.int64]]]:
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        if label is not None:
            rows.setdefault(label, []).append(row)
    return [(label, np.array(rows[label])) for label in sorted(rows)]


def _checked(columns: Sequence[Values], labels: Sequence[str | None] | None = None) -> Values:
    """`columns` as (q, m), or one line about what is wrong with them."""
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or len(columns[0].shape) != 1:
        shown = " and ".join(map(str, sorted(shapes)))
        raise CbirError(f"values of shape {shown} cannot be compared", "give (q,) of one query set")
    if not len(columns[0]):
        raise CbirError("without a query there is nothing to compare")
    if labels is not None and len(labels) != len(columns[0]):
        raise CbirError(f"{len(labels)} labels do not go with {len(columns[0])} queries")
    stacked = np.stack(columns, axis=1).astype(np.float64)
    if not np.isfinite(stacked).all():
        raise CbirError("values that are compared must be finite numbers")
    return stacked
