"""The best records for a query, from what the server finds: true cosines, ties by id, at any cut.

The server orders equal scores as it likes, also at the end of what it returns. A query is therefore
done only when the scores have dropped below the k-th one: until then more is asked for, and beyond
the server's limit, those of the tied records whose ids come earlier.
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
        """Whether exactness needs a script; over a `flat` field kNN is exact by itself."""
        return self.exact and self.kind != "flat"


@dataclass
class Query(ABC):
    """One query while it is answered: `size` hits are asked for at once, `found` are the best.

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
        """What to ask next."""

    @abstractmethod
    def take(self, plan: Plan, answers: Sequence[Mapping[str, Any]]) -> None:
        """Add what came to `found`; set `done` unless the server may have something better."""

    def ranked(self) -> list[tuple[str, float, Box | None]]:
        """The best so far, in the defined order."""
        order = sorted(self.found.items(), key=lambda item: (-item[1][0], item[0].encode()))
        return [(record_id, *rest) for record_id, rest in order[: self.k]]

    def matches(self) -> Matches:
        """The answer."""
        ranked = self.ranked()
        scores = np.array([score for _, score, _ in ranked], dtype=np.float32)
        np.clip(scores, -1.0, 1.0, out=scores)
        return Matches([name for name, _, _ in ranked], scores, [where for _, _, where in ranked])


def answered(ask: Ask, plan: Plan, queries: Sequence[Query]) -> list[Matches]:
    """The answers to `queries`, asked together until all are done."""
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
    # One more than asked for shows whether the score drops; one more makes up for the excluded.
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
        if lowest == _NOTHING or plan.by_script:  # all there is, or ordered by score and id already
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
        # Of equal parts the first one counts: the whole image comes before all others.
        if record_id != self.exclude and (known is None or known[0] < score):
            self.found[record_id] = (score, where)


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
        where = box({edge: best["fields"][f"parts.{edge}"][0] for edge in BOX})
    return record_id, score - 1.0 if by_script else 2.0 * score - 1.0, where
