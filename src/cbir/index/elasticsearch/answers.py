"""Exact top-k results from the server's hits: true cosines, tie-breaking by id.

The server orders equal scores arbitrarily, even at the cutoff. So a query is done only once the
scores drop below the k-th one. Until then it requests more hits and, beyond the server's limit, the
tied records with smaller ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.index.base import Matches
from cbir.index.elasticsearch.address import Options
from cbir.index.elasticsearch.bodies import BOX, LIMIT, knn, scripted
from cbir.index.elasticsearch.documents import box
from cbir.types import Box, Vectors

_BEYOND_K = 1
_GROWTH = 8
_NOTHING = -2.0  # below any cosine

Body = dict[str, Any]
Ask = Callable[[Sequence[Body]], list[Mapping[str, Any]]]
"""Sends search bodies and returns the responses in the same order."""


@dataclass(frozen=True)
class Plan:
    """How to search an index: vector fields, their type, filters and exactness."""

    fields: tuple[str, ...]
    kind: str
    options: Options
    where: tuple[Mapping[str, Any], ...] = ()
    exact: bool = False

    @property
    def by_script(self) -> bool:
        """Whether exact search needs a script; kNN over a `flat` field is already exact."""
        return self.exact and self.kind != "flat"


@dataclass
class Query(ABC):
    """The state of one query: `size` hits per request, and the best hits so far in `found`.

    `found`: id -> true cosine and box of the best part. `vector`: float32 (dim,).
    """

    vector: NDArray[np.float32]
    k: int
    exclude: str | None
    size: int
    found: dict[str, tuple[float, Box | None]] = field(default_factory=dict)
    done: bool = False

    @abstractmethod
    def bodies(self, plan: Plan) -> list[Body]:
        """The next search body."""

    @abstractmethod
    def take(self, plan: Plan, answers: Sequence[Mapping[str, Any]]) -> None:
        """Add the hits to `found`; set `done` unless the server may have better ones."""

    def ranked(self) -> list[tuple[str, float, Box | None]]:
        """The best hits so far, by score, then id."""
        order = sorted(self.found.items(), key=lambda item: (-item[1][0], item[0].encode()))
        return [(record_id, *rest) for record_id, rest in order[: self.k]]

    def matches(self) -> Matches:
        """The final results."""
        ranked = self.ranked()
        scores = np.array([score for _, score, _ in ranked], dtype=np.float32)
        np.clip(scores, -1.0, 1.0, out=scores)
        return Matches([name for name, _, _ in ranked], scores, [where for _, _, where in ranked])


def answered(ask: Ask, plan: Plan, queries: Sequence[Query]) -> list[Matches]:
    """The results of `queries`, requested in batches until all are done."""
    waiting = list(queries)
    while waiting:
        asked = [query.bodies(plan) for query in waiting]
        answers = iter(ask([body for bodies in asked for body in bodies]))
        for query, bodies in zip(waiting, asked, strict=True):
            query.take(plan, list(islice(answers, len(bodies))))
        waiting = [query for query in waiting if not query.done]
    return [query.matches() for query in queries]


def search(
    ask: Ask, plan: Plan, vectors: Vectors, k: int, exclude: Sequence[str | None] | None
) -> list[Matches]:
    """The k best records for each row of `vectors` (q, dim); k is at most `bodies.LIMIT`."""
    excluded = exclude or [None] * len(vectors)
    # One extra hit shows whether the score drops; another replaces the excluded record.
    size = min(LIMIT, k + _BEYOND_K + (exclude is not None))
    queries = [_Nearest(v, k, out, size) for v, out in zip(vectors, excluded, strict=True)]
    return answered(ask, plan, queries)


@dataclass
class _Nearest(Query):
    below: str | None = None

    def bodies(self, plan: Plan) -> list[Body]:
        where = list(plan.where)
        if self.exclude is not None and self.size < self.k + 2:
            where.append({"bool": {"must_not": [{"term": {"id": self.exclude}}]}})
        if self.below is not None:
            where.append({"range": {"id": {"lt": self.below}}})
        if plan.by_script:
            return [scripted(name, self.vector, self.size, where) for name in plan.fields]
        return [
            knn(name, self.vector, self.size, where, plan.kind, plan.options)
            for name in plan.fields
        ]

    def take(self, plan: Plan, answers: Sequence[Mapping[str, Any]]) -> None:
        lowest = _NOTHING
        for name, answer in zip(plan.fields, answers, strict=True):
            hits = [_hit(hit, name, plan.by_script) for hit in answer["hits"]["hits"]]
            for record_id, score, where in hits:
                self._keep(record_id, score, where)
            if len(hits) >= self.size:
                lowest = max(lowest, min(score for _, score, _ in hits))
        if lowest == _NOTHING or plan.by_script:  # all hits, or already ordered by score and id
            self.done = True
            return
        ranked = self.ranked()
        last_id, last_score, _ = ranked[-1]
        self.done = len(ranked) < self.k or lowest < last_score
        if self.size < LIMIT:
            self.size = min(LIMIT, self.size * _GROWTH)
        elif not self.done:
            self.done = self.below == last_id
            self.below = last_id

    def _keep(self, record_id: str, score: float, where: Box | None) -> None:
        known = self.found.get(record_id)
        # Of equal parts, keep the first one: the whole image comes first.
        if record_id != self.exclude and (known is None or known[0] < score):
            self.found[record_id] = (score, where)


def _hit(hit: Mapping[str, Any], name: str, by_script: bool) -> tuple[str, float, Box | None]:
    """The id, true cosine and box of a hit.

    The server's scores are never negative: (1 + cosine) / 2, or 1 + cosine by our script. For
    parts, use the inner hit's score: with quantised vectors the record's may be another part's.
    """
    (record_id,) = hit["fields"]["id"]
    score, where = hit["_score"], None
    if name.startswith("parts."):
        (best,) = hit["inner_hits"]["parts"]["hits"]["hits"]
        score = best["_score"]
        where = box({edge: best["fields"][f"parts.{edge}"][0] for edge in BOX})
    return record_id, score - 1.0 if by_script else 2.0 * score - 1.0, where
