"""The protocols of an evaluation.

`usual` searches the index. `unseen` is leave-one-out: it searches the other queries, which
training has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cbir.errors import QueryError
from cbir.evaluation.queries import Queries
from cbir.evaluation.rankings import (
    Trial,
    by_cosine,
    first_hits,
    full_measures,
    reads_whole,
    shuffled,
)
from cbir.index.base import Index, Matches
from cbir.index.exact import Space, nearest
from cbir.measures.by_class import class_names, encode_labels
from cbir.measures.names import depth
from cbir.search.asking import first_search
from cbir.search.expand import expanded, expanded_query
from cbir.search.query import SearchOptions
from cbir.search.searcher import Searcher
from cbir.types import OnDone

OneProtocol = Literal["usual", "unseen"]
Protocol = Literal["usual", "unseen", "both"]

_RANKS_AT_ONCE = 1 << 20


EXACT = SearchOptions(exact=True)


@dataclass(frozen=True)
class EvaluationOptions:
    """How queries are searched for, and under which protocols; see `evaluate`."""

    protocol: Protocol = "both"
    sample: int | None = None
    search: SearchOptions = EXACT
    bits: int | None = None
    shuffle: int | None = None

    def protocols(self, queries: int) -> list[OneProtocol]:
        """The protocols for this many queries; leave-one-out needs all of them, at least two."""
        if self.protocol != "both":
            return [self.protocol]
        return ["usual"] if self.sample is not None or queries < 2 else ["usual", "unseen"]


PLAIN = EvaluationOptions()


def rank(
    searcher: Searcher, queries: Queries, k: int, options: SearchOptions = EXACT
) -> list[Matches]:
    """The exact k best records for each query; an indexed query is left out of its own results."""
    exclude = _itself(searcher, queries)
    vectors = expanded(searcher.index, queries.vectors, options, exclude)
    return first_search(searcher.index, vectors, k, options, exclude)


def ranked_measures(
    searcher: Searcher,
    queries: Queries,
    matches: Sequence[Matches],
    names: Sequence[str],
    options: EvaluationOptions = PLAIN,
    on_done: OnDone = lambda _done, _total: None,
) -> dict[str, NDArray[np.float64]]:
    """Measures of the results of `rank`, float64 (q,) each; searches deeper if they need it.

    `matches`: at least the first `kept(names, count)` hits.
    """
    if not reads_whole(names):
        return first_hits(queries, matches, searcher.index.labels()).measures(names)
    if has_parts(searcher.index):
        return _measured_by_engine(searcher, queries, names, options.search, on_done)
    trial = usual_trial(searcher, queries, options)
    return full_measures(trial, by_cosine(trial), names, on_done)


def usual_trial(searcher: Searcher, queries: Queries, options: EvaluationOptions = PLAIN) -> Trial:
    """The queries against the indexed images.

    Raises `QueryError` for an index with several vectors per image.
    """
    require_whole_images(searcher.index)
    return whole_image_trial(searcher, queries, options)


def whole_image_trial(
    searcher: Searcher, queries: Queries, options: EvaluationOptions = PLAIN
) -> Trial:
    """The queries against the vectors of whole images; those of parts are ignored."""
    index = searcher.index
    ids, matrix = index.matrix()
    labels = index.labels()
    classes = class_names(labels.values(), queries.labels)
    codes = encode_labels([labels[record_id] for record_id in ids], classes)
    asked = encode_labels(queries.labels, classes)
    row_of = {record_id: row for row, record_id in enumerate(ids)}
    itself = np.array([row_of.get(query, -1) for query in queries.ids], dtype=np.int64)
    exclude = _itself(searcher, queries)
    vectors = expanded(searcher.index, queries.vectors, options.search, exclude)
    return Trial(ids, matrix, codes, vectors, asked, itself, shuffled(len(ids), options.shuffle))


def unseen_trial(queries: Queries, options: EvaluationOptions = PLAIN) -> Trial:
    """Leave-one-out: each query against all others."""
    codes = encode_labels(queries.labels, class_names(queries.labels))
    order = np.argsort(np.array([i.encode() for i in queries.ids], dtype=object), kind="stable")
    ids = [queries.ids[number] for number in order.tolist()]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    matrix = np.ascontiguousarray(queries.vectors[order])
    vectors = queries.vectors
    if options.search.expand:
        space = Space(matrix, np.arange(len(order) + 1))
        first = nearest(space, vectors, min(options.search.expand, len(order) - 1), excluded=place)
        expansions = zip(vectors, first.records, first.scores, strict=True)
        vectors = np.stack([expanded_query(v, matrix[r], s) for v, r, s in expansions])
    places = shuffled(len(ids), options.shuffle)
    return Trial(ids, matrix, codes[order], vectors, codes, place, places)


def require_whole_images(index: Index) -> None:
    """Raise `QueryError` for an index with several vectors per image."""
    if has_parts(index):
        raise QueryError(
            f"{index.url} holds several vectors per image", "index again without --regions"
        )


def has_parts(index: Index) -> bool:
    """Whether images of the index have more than one vector."""
    facts = index.info()
    return bool(facts["vectors"] != facts["count"])


def _itself(searcher: Searcher, queries: Queries) -> list[str | None]:
    indexed = searcher.index.labels()
    return [query if query in indexed else None for query in queries.ids]


def _measured_by_engine(
    searcher: Searcher,
    queries: Queries,
    names: Sequence[str],
    options: SearchOptions,
    on_done: OnDone,
) -> dict[str, NDArray[np.float64]]:
    """Deep rankings from the engine: a record's score is that of its best part."""
    count, labels = searcher.index.count(), searcher.index.labels()
    k = min(depth(names) or count, count)
    step = max(1, _RANKS_AT_ONCE // k)
    pieces = []
    for start in range(0, len(queries.ids), step):
        some = queries.chosen(range(start, min(start + step, len(queries.ids))))
        matches = rank(searcher, some, k, options)
        pieces.append(first_hits(some, matches, labels).measures(names))
        on_done(min(start + step, len(queries.ids)), len(queries.ids))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
