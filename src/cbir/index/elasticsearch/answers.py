"""The best records for a query, from what the server finds: true cosines, ties by id, at any cut.

The server's own order of equal scores is its own affair, also at the end of what it returns. So a
query is done only when the scores have dropped below the k-th one: until then more is asked for,
and beyond the server's limit, those of the tied records whose ids come earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cbir.index.base import Matches
from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch.address import Options
from cbir.index.elasticsearch.documents import box
from cbir.types import Box, Vectors

_BEYOND_K = 1
_GROWTH = 8
_NOTHING = -2.0  # below any cosine

Body = dict[str, Any]
Ask = Callable[[Sequence[Body]], list[Mapping[str, Any]]]
"""Sends search bodies, returns the answers in their order."""


@dataclass(frozen=True)
class Plan:
    """How an index is searched: the fields that hold vectors, their type, filters, exactness."""

    fields: tuple[str, ...]
    kind: str
    options: Options
    where: tuple[Mapping[str, Any], ...] = ()
    exact: bool = False

    @property
    def by_script(self) -> bool:
        """Over a `flat` field kNN looks at every vector by itself."""
        return self.exact and self.kind != "flat"


@dataclass
class _Query:
    vector: Any
    k: int
    exclude: str | None
    size: int
    below: str | None = None
    found: dict[str, tuple[float, Box | None]] = field(default_factory=dict)
    done: bool = False

    def ranked(self) -> list[tuple[str, float, Box | None]]:
        """The best so far, in the defined order."""
        order = sorted(self.found.items(), key=lambda item: (-item[1][0], item[0].encode()))
        return [(record_id, *rest) for record_id, rest in order[: self.k]]


def search(
    ask: Ask, plan: Plan, vectors: Vectors, k: int, exclude: Sequence[str | None] | None
) -> list[Matches]:
    """The k best records for each row of `vectors` (q, dim); k is at most `queries.LIMIT`."""
    excluded = exclude or [None] * len(vectors)
    # One more than asked for shows whether the score drops; one more makes up for the excluded.
    size = min(queries.LIMIT, k + _BEYOND_K + (exclude is not None))
    asked = [_Query(v, k, out, size) for v, out in zip(vectors, excluded, strict=True)]
    waiting = asked
    while waiting:
        bodies = [_body(plan, query, name) for query in waiting for name in plan.fields]
        answers = ask(bodies)
        width = len(plan.fields)
        for number, query in enumerate(waiting):
            _take(plan, query, answers[number * width : (number + 1) * width])
        waiting = [query for query in waiting if not query.done]
    return [_matches(query) for query in asked]


def _body(plan: Plan, query: _Query, name: str) -> Body:
    where = list(plan.where)
    if query.exclude is not None and query.size < query.k + 2:
        where.append({"bool": {"must_not": [{"term": {"id": query.exclude}}]}})
    if query.below is not None:
        where.append({"range": {"id": {"lt": query.below}}})
    if plan.by_script:
        return queries.scripted(name, query.vector, query.size, where)
    return queries.knn(name, query.vector, query.size, where, plan.kind, plan.options)


def _take(plan: Plan, query: _Query, answers: Sequence[Mapping[str, Any]]) -> None:
    """Merge what came; say whether more of the same score may be left at the server."""
    lowest = _NOTHING
    for name, answer in zip(plan.fields, answers, strict=True):
        hits = [_hit(hit, name, plan.by_script) for hit in answer["hits"]["hits"]]
        for record_id, score, where in hits:
            _keep(query, record_id, score, where)
        if len(hits) >= query.size:
            lowest = max(lowest, min(score for _, score, _ in hits))
    if lowest == _NOTHING or plan.by_script:  # all there is, or ordered by score and id already
        query.done = True
        return
    ranked = query.ranked()
    last_id, last_score, _ = ranked[-1]
    query.done = len(ranked) < query.k or lowest < last_score
    if query.size < queries.LIMIT:
        query.size = min(queries.LIMIT, query.size * _GROWTH)
    elif not query.done:
        query.done = query.below == last_id
        query.below = last_id


def _keep(query: _Query, record_id: str, score: float, where: Box | None) -> None:
    known = query.found.get(record_id)
    # Of equal parts the first one counts: the whole image comes before all others.
    if record_id != query.exclude and (known is None or known[0] < score):
        query.found[record_id] = (score, where)


def _hit(hit: Mapping[str, Any], name: str, by_script: bool) -> tuple[str, float, Box | None]:
    """Id, true cosine and box of a hit.

    The server's score is never negative: (1 + cosine) / 2, or 1 + cosine by our script. Of parts
    it is the inner hit's that counts: over quantised vectors the record's own may be another's.
    """
    (record_id,) = hit["fields"]["id"]
    score, where = hit["_score"], None
    if name.startswith("parts."):
        (best,) = hit["inner_hits"]["parts"]["hits"]["hits"]
        score = best["_score"]
        where = box({edge: best["fields"][f"parts.{edge}"][0] for edge in queries.BOX})
    return record_id, score - 1.0 if by_script else 2.0 * score - 1.0, where


def _matches(query: _Query) -> Matches:
    ranked = query.ranked()
    scores = np.array([score for _, score, _ in ranked], dtype=np.float32)
    np.clip(scores, -1.0, 1.0, out=scores)
    return Matches([name for name, _, _ in ranked], scores, [where for _, _, where in ranked])
