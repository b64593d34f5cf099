"""Measures of a run against qrels, computed by trec_eval's own code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError, MissingExtraError
from cbir.measures.names import Measure, ir_measure, parse_measures
from cbir.types import OnDone

_JUDGEMENTS_AT_ONCE = 500_000  # trec_eval's copy takes about 70 bytes per judgement


@dataclass(frozen=True, slots=True)
class RunMeasures:
    """The evaluation of one run.

    `per_query`: measure -> query -> value, for every query in the qrels. `means`: measure -> mean
    over the queries in the qrels. `missing`: queries in the qrels but not in the run; each counts
    as zero. `unjudged`: queries in the run but not in the qrels; not counted.
    """

    per_query: dict[str, dict[str, float]]
    means: dict[str, float]
    missing: list[str]
    unjudged: list[str]

    @property
    def queries(self) -> list[str]:
        """The queries in qrels order."""
        return list(next(iter(self.per_query.values())))

    @property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """Measure -> its value for each of the `queries`, float64 (q,)."""
        return {name: np.array(list(of.values())) for name, of in self.per_query.items()}


def evaluate_run(
    qrels: Mapping[str, dict[str, int]],
    run: Mapping[str, Sequence[tuple[str, float]]],
    names: Iterable[str],
    on_done: OnDone = lambda _done, _total: None,
) -> RunMeasures:
    """Evaluate the measures `names` of `run`, per query and on average.

    `qrels` and `run` come from `read_qrels` and `read_run`. Documents are ranked as in trec_eval:
    by descending float32 score, then by descending id. A query without relevant documents has the
    value 0. `nAP@k` is AP@k x R / min(k, R), where R is the query's number of relevant documents;
    Google Landmarks v2 (Weyand et al. 2020) calls its mean mAP@k. `on_done` is a progress callback
    in queries; each distinct `rel` among the measures adds a pass. Raises `MissingExtraError`
    without the `evaluation` extra, and `CbirError` for empty qrels and unknown measures.
    """
    require_trec_eval()
    if not qrels:
        raise CbirError("the qrels contain no queries", "create them with `cbir qrels`")
    measures = parse_measures(names)
    by_rel = {rel: list(same) for rel, same in groupby(sorted(measures, key=_rel), key=_rel)}
    total = len(qrels) * len(by_rel)
    values: dict[str, dict[str, float]] = {}
    done = 0
    for rel, same_rel in by_rel.items():
        values |= {measure.name: {} for measure in same_rel}
        for queries in _parts(qrels):
            for name, of_query in _evaluate_at(rel, queries, qrels, run, same_rel).items():
                values[name] |= of_query
            done += len(queries)
            on_done(done, total)
    per_query = {measure.name: values[measure.name] for measure in measures}
    means = {name: math.fsum(of.values()) / len(qrels) for name, of in per_query.items()}
    missing = [query for query in qrels if not run.get(query)]
    return RunMeasures(per_query, means, missing, [query for query in run if query not in qrels])


def cut_short(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Sequence[tuple[str, float]]],
    names: Iterable[str],
) -> tuple[int, list[str]]:
    """The length of the longest ranking in `run`, and the measures that a longer one could raise.

    These are the `names` that use more ranks while some query's ranking lacks relevant documents.
    `qrels` and `run` as in `evaluate_run`.
    """
    answered = [query for query in qrels if run.get(query)]
    longest = max((len(run[query]) for query in answered), default=0)
    deeper = [m for m in parse_measures(names) if m.cutoff is not None and m.cutoff > longest]
    short = {
        rel
        for rel in {measure.rel for measure in deeper}
        if any(_lacks(qrels[query], run[query], rel) for query in answered)
    }
    return longest, [measure.name for measure in deeper if measure.rel in short]


def _lacks(judged: Mapping[str, int], ranking: Sequence[tuple[str, float]], rel: int) -> bool:
    relevant = sum(value >= rel for value in judged.values())
    return relevant > sum(judged.get(document, 0) >= rel for document, _ in ranking)


def _rel(measure: Measure) -> int:
    return measure.rel


def _parts(qrels: Mapping[str, Mapping[str, int]]) -> Iterator[list[str]]:
    """The queries in batches, so that trec_eval copies a bounded number of judgements at once."""
    part: list[str] = []
    held = 0
    for query, judged in qrels.items():
        if part and held + len(judged) > _JUDGEMENTS_AT_ONCE:
            yield part
            part, held = [], 0
        part.append(query)
        held += len(judged)
    yield part


def _evaluate_at(
    rel: int,
    queries: Sequence[str],
    qrels: Mapping[str, dict[str, int]],
    run: Mapping[str, Sequence[tuple[str, float]]],
    measures: Sequence[Measure],
) -> dict[str, dict[str, float]]:
    """Measure -> query -> value for some queries; relevance `rel` or higher counts."""
    import ir_measures

    counts = {query: sum(value >= rel for value in qrels[query].values()) for query in queries}
    # trec_eval reads out of bounds for a query without documents of relevance `rel`.
    judged = {query: qrels[query] for query in queries if counts[query] and run.get(query)}
    computed: dict[str, dict[str, float]] = {}
    if judged:
        wanted = {ir_measure(_computed_as(measure)) for measure in measures}
        answered = {query: dict(run[query]) for query in judged}
        for metric in ir_measures.pytrec_eval.evaluator(wanted, judged).iter_calc(answered):
            computed.setdefault(str(metric.measure), {})[metric.query_id] = metric.value
    return {
        measure.name: {
            query: _finish(measure, computed[_computed_as(measure)][query], counts[query])
            if query in judged
            else 0.0
            for query in queries
        }
        for measure in measures
    }


def _computed_as(measure: Measure) -> str:
    """The trec_eval measure from which `measure` is derived; trec_eval lacks nAP@k and RR@k."""
    if measure.family == "nAP":
        return measure.name.removeprefix("n")
    if measure.family == "RR":
        return measure.name.partition("@")[0]
    return measure.name


def _finish(measure: Measure, value: float, relevant: int) -> float:
    if measure.family == "nAP" and measure.cutoff is not None:
        return value * relevant / min(measure.cutoff, relevant)
    if measure.family == "RR" and measure.cutoff is not None and value > 0:
        return value if round(1 / value) <= measure.cutoff else 0.0
    return value


def require_trec_eval() -> None:
    """Raise `MissingExtraError` without the `evaluation` extra, before reading files."""
    try:
        import ir_measures  # noqa: F401
        import pytrec_eval  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("evaluating a run against qrels", "evaluation") from error
