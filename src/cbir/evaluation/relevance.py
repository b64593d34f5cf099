"""Class relevance: an indexed image is relevant to a query that has the same label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.evaluation.measures import Measure, parse_measures
from cbir.evaluation.trec_eval import evaluate_run

UNLABELLED = -1
"""Code of an image without a label: relevant to nothing."""

PADDING = -2
"""Code that fills a ranking shorter than the others."""

_RANKS_AT_ONCE = 1 << 22
_JUDGEMENTS_AT_ONCE = 500_000


def encode_labels(
    indexed: Sequence[str | None], queries: Sequence[str | None]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Codes (n,) and (q,) of the labels, equal where the labels are; UNLABELLED for None."""
    codes: dict[str | None, int] = {None: UNLABELLED}
    for label in chain(indexed, queries):
        codes.setdefault(label, len(codes) - 1)
    return _encode(codes, indexed), _encode(codes, queries)


def _encode(codes: Mapping[str | None, int], labels: Sequence[str | None]) -> NDArray[np.int32]:
    return np.fromiter((codes[label] for label in labels), dtype=np.int32, count=len(labels))


def relevant_counts(
    indexed: NDArray[np.int32], queries: NDArray[np.int32], counts_itself: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """R, int64 (q,): how many indexed images are relevant to each query.

    `indexed` (n,) and `queries` (q,) are codes of `encode_labels`. `counts_itself` (q,) marks the
    queries that are themselves indexed under the label they have: one image less is relevant.
    """
    classes = max(int(queries.max(initial=0)), int(indexed.max(initial=0))) + 1
    sizes = np.bincount(indexed[indexed >= 0], minlength=classes)
    counts: NDArray[np.int64] = np.where(queries >= 0, sizes[queries] - counts_itself, 0)
    return counts.astype(np.int64)


def class_qrels(
    queries: Iterable[tuple[str, str | None]], indexed: Mapping[str, str | None]
) -> Iterator[tuple[str, str, int]]:
    """Rows (query, document, relevance) of the qrels, for `write_qrels`.

    `queries` are ids and labels, `indexed` maps id to label. A query is never relevant to itself.
    A query without a label has no row, so that it is in no mean. A labelled query without any
    relevant image is judged irrelevant to itself: it stays in the mean, as zero.
    """
    by_label: dict[str, list[str]] = {}
    for document, label in indexed.items():
        if label is not None:
            by_label.setdefault(label, []).append(document)
    for query, label in queries:
        if label is None:
            continue
        relevant = [document for document in by_label.get(label, ()) if document != query]
        yield from ((query, document, 1) for document in relevant)
        if not relevant:
            yield (query, query, 0)


def class_measures(
    ranked_labels: NDArray[np.integer],
    query_labels: NDArray[np.integer],
    relevant: NDArray[np.integer],
    names: Iterable[str],
) -> dict[str, NDArray[np.float64]]:
    """Measure -> its value for every query, float64 (q,): what trec_eval says of the same data.

    `ranked_labels` (q, k): codes of the ranked images' labels, best first, filled with PADDING;
    `query_labels` (q,): the queries' codes; `relevant` (q,): see `relevant_counts`. k is at least
    `depth(names)`, or the whole ranking where that is None: deeper ranks than k count as not
    retrieved. AP, nAP@k, P@k, R@k and RR are computed here, the others by trec_eval, for which
    the `evaluation` extra must be installed. Raises `CbirError` if the arrays contradict each
    other.
    """
    measures = parse_measures(names)
    shape = ranked_labels.shape
    if len(shape) != 2 or query_labels.shape != shape[:1] or relevant.shape != shape[:1]:
        raise CbirError(
            f"rankings of shape {shape} do not go with {query_labels.shape} query labels "
            f"and {relevant.shape} counts of relevant images"
        )
    values = {measure.name: np.zeros(shape[0]) for measure in measures}
    rows_at_once = max(1, _RANKS_AT_ONCE // max(1, shape[1]))
    for start in range(0, shape[0], rows_at_once):
        rows = slice(start, start + rows_at_once)
        labels = query_labels[rows, None]
        found = (ranked_labels[rows] == labels) & (labels >= 0)
        _check_counts(found, relevant[rows], start)
        for measure in (measure for measure in measures if measure.plain):
            values[measure.name][rows] = _plain(measure, found, relevant[rows])
        others = [measure.name for measure in measures if not measure.plain]
        if others:
            retrieved = ranked_labels[rows] != PADDING
            for name, column in _by_trec_eval(others, found, retrieved, relevant[rows]).items():
                values[name][rows] = column
    return values


def _check_counts(found: NDArray[np.bool_], relevant: NDArray[np.integer], first_row: int) -> None:
    wrong = np.flatnonzero(found.sum(axis=1) > relevant)
    if wrong.size:
        row = int(wrong[0])
        raise CbirError(
            f"query {first_row + row} has {int(found[row].sum())} relevant images in its ranking "
            f"but only {int(relevant[row])} in the index"
        )


def _plain(
    measure: Measure, found: NDArray[np.bool_], relevant: NDArray[np.integer]
) -> NDArray[np.float64]:
    """One measure, float64 (q,), of rankings (q, k) that say which ranks are relevant."""
    found = found[:, : measure.cutoff]
    ranks = np.arange(1, found.shape[1] + 1)
    values: NDArray[np.float64]
    if measure.family == "RR":
        values = (found / ranks).max(axis=1, initial=0.0)
    elif measure.family == "P":
        values = found.sum(axis=1) / float(measure.cutoff or 1)
    elif measure.family == "R":
        values = found.sum(axis=1) / np.maximum(relevant, 1)
    else:
        limit = relevant
        if measure.family == "nAP" and measure.cutoff is not None:
            limit = np.minimum(relevant, measure.cutoff)
        precisions = np.cumsum(found, axis=1) / ranks
        values = (precisions * found).sum(axis=1) / np.maximum(limit, 1)
    return values


def _by_trec_eval(
    names: Sequence[str],
    found: NDArray[np.bool_],
    retrieved: NDArray[np.bool_],
    relevant: NDArray[np.integer],
) -> dict[str, NDArray[np.float64]]:
    """The measures `names`, float64 (q,) each, from a run and qrels made up from the arrays.

    Documents are named after their ranks, relevant ones that were not retrieved `unseen`: no
    measure depends on a document's name where no scores are equal.
    """
    values = {name: np.zeros(len(found)) for name in names}
    unseen = [f"unseen{number}" for number in range(int(relevant.max(initial=0)))]
    held = np.cumsum(relevant + found.shape[1]) // _JUDGEMENTS_AT_ONCE
    for rows in np.split(np.arange(len(found)), np.flatnonzero(np.diff(held)) + 1):
        qrels: dict[str, dict[str, int]] = {}
        run: dict[str, list[tuple[str, float]]] = {}
        for row in rows.tolist():
            seen = [str(rank) for rank in np.flatnonzero(found[row])]
            qrels[str(row)] = dict.fromkeys(seen + unseen[: int(relevant[row]) - len(seen)], 1)
            run[str(row)] = [(str(rank), -float(rank)) for rank in np.flatnonzero(retrieved[row])]
        for name, of_query in evaluate_run(qrels, run, names).per_query.items():
            values[name][rows] = [of_query[str(row)] for row in rows.tolist()]
    return values
