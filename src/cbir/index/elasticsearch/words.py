"""Indexes of type `words`: visual words as terms of the server's inverted index.

The non-zero values of a histogram are in a `sparse_vector` field, named by their position ("w17");
the document holds the packed histogram. The server generates candidates by shared terms; this
module computes their true cosines.

The result is exact. The server truncates weights to nine significant bits (Lucene's FeatureField),
so its score is at most the true cosine and at least 255/256 of it. Candidates arrive page by page
in the order of that score, until 256/255 of the last one is below the k-th best cosine. Records
that share no word with a query have cosine 0 and follow all others in id order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbir.errors import CbirError, QueryError
from cbir.index.base import Matches
from cbir.index.elasticsearch import documents
from cbir.index.elasticsearch.address import WORDS as WORDS
from cbir.index.elasticsearch.answers import Ask, Body, Plan, Query, answered
from cbir.index.elasticsearch.bodies import LIMIT, RECORDS, vector_field, words_field
from cbir.index.elasticsearch.bulk import Action
from cbir.index.exact import rescored
from cbir.types import DescriptorSpec, Vectors

# float32 sums may round either way, by far less than the truncated weights.
_REACH = 256 / 255 * (1 + 1e-5)
_SPARE = 16
_GROWTH = 4
_LEAST = float(np.finfo(np.float32).tiny)  # the server rejects smaller weights
_VALUES_AT_ONCE = 2_000_000


def prepared(actions: Sequence[Action], spec: DescriptorSpec) -> list[Action]:
    """Pack the vectors of all documents in `actions` and add their words.

    Raises `CbirError` if a vector has a negative value.
    """
    name = vector_field(spec)
    return [
        (record_id, None if made is None else _with_words(made, name, spec), conditions)
        for record_id, made, conditions in actions
    ]


def terms(vector: Vectors) -> dict[str, Any]:
    """The words of a histogram (dim,) and their weights."""
    places = np.flatnonzero(vector >= _LEAST)
    names = map("w{}".format, places.tolist())
    return dict(zip(names, vector[places], strict=True))


def sharing(vector: Vectors, fields: Sequence[str]) -> dict[str, Any]:
    """The clause that matches records sharing a word with `vector`, scored by their best part."""
    whole, *parts = [_by_words(name, vector) for name in fields]
    if not parts:
        return whole
    nested = [{"nested": {"path": "parts", "score_mode": "max", "query": part}} for part in parts]
    return {"dis_max": {"queries": [whole, *nested]}}


def page(
    vector: Vectors,
    fields: Sequence[str],
    size: int,
    where: Sequence[Mapping[str, Any]],
    after: Sequence[Any] | None,
) -> Body:
    """The next `size` records that share a word with `vector`, with their vectors.

    `fields` hold the vectors of whole images and parts; `after` is the last hit's `sort`.
    """
    query = sharing(vector, fields)
    if where:
        query = {"bool": {"must": [query], "filter": list(where)}}
    body = {
        "query": query,
        "sort": [{"_score": "desc"}, {"id": "asc"}],
        **_hits(fields, size),
        # The count itself is unused, but it makes Lucene score all matching records sequentially.
        # With hundreds of words, skipping non-competitive records takes many times longer.
        "track_total_hits": True,
    }
    return body if after is None else {**body, "search_after": list(after)}


def strangers(
    vector: Vectors,
    fields: Sequence[str],
    size: int,
    where: Sequence[Mapping[str, Any]],
    exclude: str | None,
) -> Body:
    """The first `size` records by id that share no word with `vector`."""
    without = [sharing(vector, fields)]
    if exclude is not None:
        without.append({"term": {"id": exclude}})
    return {
        "query": {"bool": {"filter": [RECORDS, *where], "must_not": without}},
        "sort": [{"id": "asc"}],
        **_hits(fields, size),
    }


def search(
    ask: Ask, plan: Plan, vectors: Vectors, k: int, exclude: Sequence[str | None] | None
) -> list[Matches]:
    """The k best records for each row of `vectors` (q, dim), always exactly.

    Raises `QueryError` if a vector has a negative value.
    """
    if np.any(vectors < 0):
        raise QueryError(
            "a query has negative values; an index of type=words needs histograms",
            "describe the queries with the index's own descriptor",
        )
    excluded = exclude or [None] * len(vectors)
    size = min(LIMIT, k + k // 2 + _SPARE)
    queries = [_ByWords(v, k, out, size) for v, out in zip(vectors, excluded, strict=True)]
    return answered(ask, plan, queries)


@dataclass
class _ByWords(Query):
    after: Sequence[Any] | None = None
    all_shared: bool = False  # whether all records that share a word have been read

    def bodies(self, plan: Plan) -> list[Body]:
        if self.all_shared:
            return [strangers(self.vector, plan.fields, self.k, plan.where, self.exclude)]
        return [page(self.vector, plan.fields, self.size, plan.where, self.after)]

    def take(self, plan: Plan, answers: Sequence[Mapping[str, Any]]) -> None:
        hits = answers[0]["hits"]["hits"]
        self._score([hit["_source"] for hit in hits], plan.fields[0])
        self.found.pop(self.exclude or "", None)
        full = len(self.found) >= self.k
        if self.all_shared:
            self.done = True
        elif len(hits) < self.size:
            self.all_shared = True
            self.done = full
        else:
            self.after = hits[-1]["sort"]
            self.done = full and hits[-1]["sort"][0] * _REACH < self.ranked()[-1][1]
            self.size = min(LIMIT, self.size * _GROWTH)

    def _score(self, sources: Sequence[Mapping[str, Any]], name: str) -> None:
        """Add the true cosine of every record's best part."""
        step = max(1, _VALUES_AT_ONCE // len(self.vector))
        for start in range(0, len(sources), step):
            some = sources[start : start + step]
            parts = [documents.vectors(source, name) for source in some]
            matrix = np.concatenate(parts)
            (scores,) = rescored(self.vector[None], matrix, np.arange(len(matrix))[None])
            ends = np.cumsum([len(rows) for rows in parts])[:-1]
            for source, of_parts in zip(some, np.split(scores, ends), strict=True):
                best = int(np.argmax(of_parts))  # of equal parts, keep the first one
                where = documents.boxes(source)[best] if best else None
                self.found[source["id"]] = (float(of_parts[best]), where)


def _with_words(made: Mapping[str, Any], name: str, spec: DescriptorSpec) -> dict[str, Any]:
    vector = documents.numbers(made[name])
    if np.any(vector < 0):
        raise CbirError(
            f"{spec.name}'s vectors have negative values; type=words needs histograms",
            "use a descriptor of visual words, or another type, such as ?type=flat",
        )
    whole = {**made, name: documents.packed(vector), words_field(name): terms(vector)}
    if "parts" in made:
        whole["parts"] = [_with_words(part, name, spec) for part in made["parts"]]
    return whole


def _by_words(name: str, vector: Vectors) -> dict[str, Any]:
    parts, dot, field_name = name.rpartition(".")
    return {
        "sparse_vector": {
            "field": f"{parts}{dot}{words_field(field_name)}",
            "query_vector": terms(vector),
            "prune": False,  # else frequent words of small weight would be ignored
        }
    }


def _hits(fields: Sequence[str], size: int) -> dict[str, Any]:
    whole, *parts = fields
    wanted = ["id", whole, *(["parts"] if parts else [])]
    return {"size": size, "track_total_hits": False, "_source": wanted}
