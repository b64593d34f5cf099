"""Class relevance: an indexed image is relevant to queries with the same label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.measures.binary import BINARY_FAMILIES, binary_measure, rankings
from cbir.measures.names import Measure, depth, parse_measures

UNLABELLED = -1
"""Code of an image without a label: relevant to nothing."""

PADDING = -2
"""Code that pads a ranking shorter than the others."""

_RANKS_AT_ONCE = 1 << 22


def class_names(*groups: Iterable[str | None]) -> tuple[str, ...]:
    """The distinct labels of all `groups`, sorted."""
    return tuple(sorted({label for label in chain(*groups) if label is not None}))


def encode_labels(labels: Sequence[str | None], classes: Sequence[str]) -> NDArray[np.int32]:
    """The index of each label in `classes`, int32 (n,); UNLABELLED for None."""
    codes: dict[str | None, int] = {label: code for code, label in enumerate(classes)}
    codes[None] = UNLABELLED
    return np.fromiter((codes[label] for label in labels), dtype=np.int32, count=len(labels))


def relevant_counts(
    indexed: NDArray[np.int32], queries: NDArray[np.int32], counts_itself: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """R, int64 (q,): the number of indexed images relevant to each query.

    `indexed` (n,) and `queries` (q,) are codes of `encode_labels`. `counts_itself` (q,) marks
    queries that are indexed under their own label, as a query is not relevant to itself.
    """
    classes = max(int(queries.max(initial=0)), int(indexed.max(initial=0))) + 1
    sizes = np.bincount(indexed[indexed >= 0], minlength=classes)
    counts: NDArray[np.int64] = np.where(queries >= 0, sizes[queries] - counts_itself, 0)
    return counts.astype(np.int64)


def class_qrels(
    queries: Iterable[tuple[str, str | None]], indexed: Mapping[str, str | None]
) -> Iterator[tuple[str, str, int]]:
    """The qrels rows (query, document, relevance) for `write_qrels`.

    `queries` are ids and labels, `indexed` maps id to label. A query is never relevant to itself.
    An unlabelled query has no row and is excluded from means. A labelled query without relevant
    images is judged irrelevant to itself, so that it counts as zero in means.
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


def require_class_measures(names: Iterable[str]) -> tuple[Measure, ...]:
    """The measures called `names`, for class relevance.

    Raises `CbirError` as `parse_measures` does, and for measures that are meaningless with complete
    binary judgements: Bpref, infAP and relevance levels above 1.
    """
    measures = parse_measures(names)
    for measure in measures:
        if measure.family not in BINARY_FAMILIES:
            reason = "incomplete judgements: by class, every image is judged"
        elif measure.rel != 1:
            reason = "graded judgements: by class, relevance is binary"
        else:
            continue
        raise CbirError(
            f"measure '{measure.name}' is for {reason}",
            "evaluate a run file with --qrels, or omit the measure",
        )
    return measures


def class_measures(
    ranked_labels: NDArray[np.integer],
    query_labels: NDArray[np.integer],
    relevant: NDArray[np.integer],
    names: Iterable[str],
) -> dict[str, NDArray[np.float64]]:
    """Measure -> its value for every query, float64 (q,), as trec_eval computes it.

    `ranked_labels` (q, k): label codes of the ranked images, best first, padded with PADDING;
    `query_labels` (q,): the queries' codes; `relevant` (q,): see `relevant_counts`. k must be at
    least `depth(names)`, or the whole ranking if that is None; ranks beyond k count as not
    retrieved. Raises `CbirError` if the arrays are inconsistent, and as `require_class_measures`
    does.
    """
    measures = require_class_measures(names)
    shape = ranked_labels.shape
    if len(shape) != 2 or query_labels.shape != shape[:1] or relevant.shape != shape[:1]:
        raise CbirError(
            f"rankings of shape {shape} do not match {query_labels.shape} query labels "
            f"and {relevant.shape} counts of relevant images"
        )
    values = {measure.name: np.zeros(shape[0]) for measure in measures}
    deepest = depth(values)
    rows_at_once = max(1, _RANKS_AT_ONCE // max(1, shape[1]))
    for start in range(0, shape[0], rows_at_once):
        rows = slice(start, start + rows_at_once)
        asked, answered = query_labels[rows, None], ranked_labels[rows]
        found = (answered == asked) & (asked >= 0)
        _check_counts(np.count_nonzero(found, axis=1), relevant[rows], start)
        retrieved = np.count_nonzero(answered != PADDING, axis=1)
        ranked = rankings(found[:, :deepest], retrieved, relevant[rows])
        for measure in measures:
            values[measure.name][rows] = binary_measure(measure, ranked)
    return values


def _check_counts(
    found: NDArray[np.integer], relevant: NDArray[np.integer], first_row: int
) -> None:
    wrong = np.flatnonzero(found > relevant)
    if wrong.size:
        row = int(wrong[0])
        raise CbirError(
            f"query {first_row + row} has {int(found[row])} relevant images in its ranking "
            f"but only {int(relevant[row])} in the index"
        )
