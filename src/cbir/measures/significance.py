"""Is one run better than another, or by chance? Paired tests over per-query values.

Smucker, Allan & Carterette, "A comparison of statistical significance tests for information
retrieval evaluation" (CIKM 2007), recommend the distribution-free randomisation test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.measures.by_class import class_names, encode_labels
from cbir.wording import counted

ROUNDS = 10_000
SEED = 0
SIGNIFICANT = 0.05
"""A difference is significant if the corrected p is below this level."""

_PERCENTILES = (2.5, 97.5)
_NOISE = 1e-12
"""Values that differ by less than this are equal up to rounding."""

_DRAWS_AT_ONCE = 1 << 20
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")

Values = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """One class's queries: their number, both means, and the mean of b - a."""

    n_queries: int
    mean_a: float
    mean_b: float
    difference: float


@dataclass(frozen=True, slots=True)
class ClassMeans:
    """One class's queries: their number, and measure -> mean."""

    n_queries: int
    measures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run `b` against run `a` in one measure.

    `difference` is the mean of b - a over the queries, `interval` its 95% bootstrap interval. `p`
    is the probability of a difference at least as large, in either direction, if each query's two
    values were assigned to the runs at random. `p_adjusted` is p after Holm's correction for
    `pairs` comparisons. `wins`, `ties` and `losses` count queries from b's side. `classes` covers
    the queries with labels. `under` qualifies the measure in sentences.
    """

    measure: str
    a: str
    b: str
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    p: float
    p_adjusted: float
    wins: int
    ties: int
    losses: int
    n_queries: int
    classes: dict[str, ClassDifference]
    pairs: int = 1
    under: str = ""

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below `SIGNIFICANT`."""
        return self.p_adjusted < SIGNIFICANT

    @property
    def in_words(self) -> str:
        """The comparison as a sentence."""
        measure = f"{self.measure}{self.under}"
        if self.wins == self.losses == 0:
            return f"{self.a} and {self.b} have the same {measure} for every query."
        alike = f"{self.a} and {self.b} cannot be told apart in {measure}"
        if abs(self.difference) <= _NOISE:
            return f"{alike}: their means are equal."
        better, worse = (self.b, self.a) if self.difference > 0 else (self.a, self.b)
        digits = 4 if abs(self.difference) >= 0.001 else 6
        size = f"{abs(self.difference):.{digits}f}"
        low, high = sorted(end if self.difference > 0 else -end for end in self.interval)
        interval = f"95% interval {low:.{digits}f} to {high:.{digits}f}"
        p = f"p = {_shown(self.p)}"
        if self.pairs > 1:
            p += f", {_shown(self.p_adjusted)} after correction for {self.pairs} pairs"
        chance = f"come about by chance in {_how_often(self.p)} such experiments ({p})"
        if self.significant:
            return (
                f"{better} is better than {worse} in {measure} by {size} ({interval}); a "
                f"difference like this would {chance}, so it is significant."
            )
        few, reason = self.wins + self.losses, ""
        if few < 6:
            reason = f"; only {counted(few, 'query')} differ, too few for any to be significant"
        elif self.p < SIGNIFICANT:
            reason = "; there are too many pairs for that to be significant"
        return (
            f"{alike}: {better} has {size} more ({interval}), and a difference like this would "
            f"{chance}{reason}."
        )

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON, for `cbir evaluate --json`."""
        figures = asdict(self)
        del figures["pairs"], figures["under"]
        return {**figures, "significant": self.significant, "in_words": self.in_words}


def compare_runs(
    runs: Sequence[tuple[str, Mapping[str, Values]]],
    labels: Sequence[str | None] | None = None,
    *,
    under: str = "",
    rounds: int = ROUNDS,
    seed: int = SEED,
) -> list[Comparison]:
    """Compare every pair of `runs` in every measure; a single run gives no comparisons.

    A run is its name and measure -> values, float64 (q,), for the same queries in the same order.
    `labels` (q,) are the queries' classes, None for unlabelled queries. Uses the two-sided paired
    randomisation test: all sign flips of the differences if there are at most `rounds`, else
    `rounds` random ones, with p = (1 + count) / (1 + rounds), so that p is never 0 (Davison &
    Hinkley, "Bootstrap methods and their application", 1997). The interval comes from `rounds`
    bootstrap resamples of the queries (`bootstrap_means`). With several pairs, `holm` corrects each
    measure's p values. `under` qualifies the measures in sentences. Raises `CbirError` for
    mismatched arrays, non-finite values and an empty query set.
    """
    measures = list(runs[0][1]) if runs else []
    if len(runs) < 2 or not measures:
        return []
    columns = _checked([of[measure] for measure in measures for _, of in runs], labels)
    resampled = bootstrap_means(columns, rounds, seed)
    by_label = _rows_by_label(labels or ())
    found: list[Comparison] = []
    for number, measure in enumerate(measures):
        of_runs = slice(number * len(runs), (number + 1) * len(runs))
        columns_of_runs = zip(columns[:, of_runs].T, resampled[:, of_runs].T, strict=True)
        several = [_Run(name, *each) for (name, _), each in zip(runs, columns_of_runs, strict=True)]
        compared = [
            _compare(measure, a, b, by_label, rounds, seed) for a, b in combinations(several, 2)
        ]
        corrected = holm([one.p for one in compared])
        found += [
            replace(one, p_adjusted=p, pairs=len(compared), under=under)
            for one, p in zip(compared, corrected, strict=True)
        ]
    return found


def mean_intervals(per_query: Mapping[str, Values]) -> dict[str, Interval]:
    """Measure -> 95% bootstrap interval of its mean, from values float64 (q,)."""
    resampled = bootstrap_means(_checked(list(per_query.values())))
    return {name: _interval(means) for name, means in zip(per_query, resampled.T, strict=True)}


def bootstrap_means(columns: Values, rounds: int = ROUNDS, seed: int = SEED) -> Values:
    """The means (rounds, m) of `columns` (q, m) over bootstrap resamples of q queries.

    All columns share the resamples, so differences of means are means of differences. The 2.5th and
    97.5th percentiles are the percentile interval of Efron & Tibshirani, "An introduction to the
    bootstrap" (1993), chapter 13.
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
    """The two-sided p of the paired randomisation test of `differences`, float64 (q,).

    Each group of eight queries uses a byte of random signs and a table of 256 sums, so 10,000
    rounds over ten thousand queries take a tenth of a second.
    """
    differing = differences[differences != 0]  # flipping the sign of zero changes nothing
    count = len(differing)
    exact = 2**count <= rounds
    padded = np.zeros(-(-count // 8) * 8)
    padded[:count] = differing
    sums = padded.reshape(-1, 8) @ (1.0 - 2.0 * _BITS).T
    # Count sums that equal the observed one up to rounding as being as large.
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
    """Holm-corrected p values, in the same order.

    Multiplies the smallest of m values by m, the next by m - 1 and so on; preserves the order and
    caps results at 1. Holm, "A simple sequentially rejective multiple test procedure"
    (Scandinavian Journal of Statistics, 1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def class_means(
    per_query: Mapping[str, Values], labels: Sequence[str | None]
) -> dict[str, ClassMeans]:
    """Label -> means of its queries, in label order."""
    return {
        label: ClassMeans(
            len(rows), {name: float(values[rows].mean()) for name, values in per_query.items()}
        )
        for label, rows in _rows_by_label(labels)
    }


class _Run(NamedTuple):
    """A run's values in one measure (q,), and their bootstrap means (rounds,)."""

    name: str
    values: Values
    resampled: Values


def _compare(
    measure: str,
    a: _Run,
    b: _Run,
    by_label: Sequence[tuple[str, NDArray[np.int64]]],
    rounds: int,
    seed: int,
) -> Comparison:
    difference = b.values - a.values
    differences = np.where(np.abs(difference) <= _NOISE, 0.0, difference)
    p = randomisation_p(differences, rounds, seed)
    return Comparison(
        measure=measure,
        a=a.name,
        b=b.name,
        mean_a=float(a.values.mean()),
        mean_b=float(b.values.mean()),
        difference=float(differences.mean()),
        interval=_interval(b.resampled - a.resampled),
        p=p,
        p_adjusted=p,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        n_queries=len(differences),
        classes={
            label: ClassDifference(
                len(rows), *(float(of[rows].mean()) for of in (a.values, b.values, differences))
            )
            for label, rows in by_label
        },
    )


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
    """`p` for tables, without trailing zeros."""
    return f"{p:.4f}".rstrip("0").rstrip(".")


def _interval(means: Values) -> Interval:
    low, high = np.percentile(means, _PERCENTILES).tolist()
    return low, high


def _in_parts(total: int, width: int) -> Iterator[slice]:
    """Slices of `range(total)` whose rows of `width` values fit the cache."""
    step = max(1, _DRAWS_AT_ONCE // width)
    return (slice(start, min(total, start + step)) for start in range(0, total, step))


def _rows_by_label(labels: Sequence[str | None]) -> list[tuple[str, NDArray[np.int64]]]:
    classes = class_names(labels)
    codes = encode_labels(labels, classes)
    return [(label, np.flatnonzero(codes == code)) for code, label in enumerate(classes)]


def _checked(columns: Sequence[Values], labels: Sequence[str | None] | None = None) -> Values:
    """`columns` stacked as (q, m); raises `CbirError` if they are not comparable."""
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or len(columns[0].shape) != 1:
        shown = " and ".join(map(str, sorted(shapes)))
        raise CbirError(
            f"values of shape {shown} cannot be compared", "give (q,) values of one query set"
        )
    if not len(columns[0]):
        raise CbirError("there are no queries to compare")
    if labels is not None and len(labels) != len(columns[0]):
        raise CbirError(f"{len(labels)} labels do not match {len(columns[0])} queries")
    stacked = np.stack(columns, axis=1).astype(np.float64)
    if not np.isfinite(stacked).all():
        raise CbirError("compared values must be finite numbers")
    return stacked
