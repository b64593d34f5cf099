"""Request bodies, as pure functions that return dicts.

Each record is one document. Its whole-image vector is a top-level field named after the spec's
fingerprint, so that vectors of two specs never mix. The vectors of other parts are in the nested
field `parts`, added to the mapping with the first such record. All sources are one document, all
failures another, and each tombstone is one; these have no `id`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import unquote

from numpy.typing import NDArray

from cbir.index.elasticsearch.address import WORDS, Options
from cbir.index.filters import FIELDS, FLAG_FIELDS, NUMBER_FIELDS, Condition
from cbir.types import DescriptorSpec

SCHEMA = 4
"""Each since 1 added fields of `_added`; see the module `tombstones` for 4."""
DEFAULT_TYPE = "flat"
LIMIT = 10_000
"""The server's limit for k, num_candidates and the length of one page."""


def having(field: str) -> dict[str, Any]:
    """The query for documents that have `field`."""
    return {"exists": {"field": field}}


RECORDS = having("id")
EVERYTHING: dict[str, Any] = {"_source": True, "stored_fields": ["thumbnail"]}
"""Requests whole documents; the thumbnail is not in `_source`."""

METADATA = ("text", "integer", "number")
BOX = ("left", "top", "right", "bottom")

# These keep recall@10 at 0.98 (docs/elasticsearch.md). One bit per dimension says little about a
# short vector, so it needs many more candidates.
_OVERSAMPLE = {"int8_hnsw": 3.0, "bbq_hnsw": 5.0}
_SHORT_VECTOR = 384  # dimensions below which the server does not default to bbq
_SHORT_OVERSAMPLE = 10.0
_CANDIDATES, _SHORT_CANDIDATES = 100, 600
_LONGEST_TERM = 8191  # characters of up to four bytes that fit in a Lucene term
_WHOLE_LIMIT = 2**63
_HIT: dict[str, Any] = {"_source": False, "stored_fields": "_none_"}
_UNFIT = re.compile(r"[^\w-]")


def vector_field(spec: DescriptorSpec) -> str:
    """The field that holds vectors of `spec`."""
    return f"vector_{spec.fingerprint[:16]}"


def words_field(field: str) -> str:
    """The field of type `words` with the visual words of the vectors in `field` as terms."""
    return f"words_{field.removeprefix('vector_')}"


def searched_field(field: str, kind: str) -> str:
    """The field to search for records with vectors in `field`."""
    return words_field(field) if kind == WORDS else field


def metadata_field(name: str) -> str:
    """A metadata key as a field name, special characters percent-encoded."""
    return _UNFIT.sub(lambda c: "".join(f"%{b:02X}" for b in c[0].encode()), name) or "%"


def metadata_name(field: str) -> str:
    """The metadata key of `field`; the inverse of `metadata_field`."""
    return "" if field == "%" else unquote(field)


def creation(
    spec: DescriptorSpec,
    options: Options,
    alias: str,
    *,
    version: tuple[int, int] | None = None,
    fast_load: bool = False,
) -> dict[str, Any]:
    """The body that creates an index for loading, with refresh off until the load is complete.

    `version` is the server's: from 9.2 on, vectors are left out of `_source` by default.
    """
    kind = options.type or DEFAULT_TYPE
    replicas: dict[str, Any] = {"auto_expand_replicas": "0-1"}  # none on a single node, else one
    if options.replicas is not None:
        replicas = {"number_of_replicas": options.replicas}
    settings: dict[str, Any] = {
        "number_of_shards": options.shards or 1,
        "refresh_interval": "-1",
        **({"number_of_replicas": 0} if fast_load else replicas),
    }
    if version is not None and version >= (9, 2):
        settings["mapping.exclude_source_vectors"] = False
    restore = {"refresh_interval": None, **replicas}
    return {
        "aliases": {alias: {}},
        "settings": {"index": settings},
        "mappings": mappings(spec, kind, restore),
    }


def mappings(
    spec: DescriptorSpec, kind: str, restore: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The mapping of an index; `restore`: its settings after the load."""
    keyword, long = {"type": "keyword", "ignore_above": _LONGEST_TERM}, {"type": "long"}
    kept = {"index": False, "doc_values": False}
    templates = {"text": keyword, "integer": long, "number": {"type": "double"}}
    words = words_field(vector_field(spec))  # computed from the vectors whenever a document is sent
    derived = [words, f"parts.{words}"] if kind == WORDS else []
    return {
        "dynamic": "strict",
        "_meta": meta(spec, kind, restore),
        "_source": {"excludes": ["thumbnail", *derived]},
        "dynamic_templates": [
            {name: {"path_match": f"metadata.{name}.*", "mapping": mapping}}
            for name, mapping in templates.items()
        ],
        "properties": {
            "id": {"type": "keyword"},
            **dict.fromkeys(("source", "location", "label"), keyword),
            "content_hash": {"type": "keyword", **kept},
            **dict.fromkeys(("width", "height", "part_count"), long),
            **{name: {**long, **kept} for name in ("file_size", "mtime_ns")},
            "missing": {"type": "boolean"},
            **_added(),
            "metadata": {
                "properties": {name: {"type": "object", "dynamic": True} for name in METADATA}
            },
            "thumbnail": {"type": "binary", "store": True},
            "state": {"type": "object", "enabled": False},
            **_vectors(spec, kind),
        },
    }


def migration() -> dict[str, Any]:
    """The fields that an index of an older schema may lack."""
    return {"properties": _added()}


def meta(spec: DescriptorSpec, kind: str, restore: Mapping[str, Any] | None) -> dict[str, Any]:
    """The index's own metadata; `load` is present while it is being loaded."""
    said: dict[str, Any] = {"cbir": {"schema": SCHEMA, "type": kind, "spec": asdict(spec)}}
    if restore is not None:
        said["cbir"]["load"] = {"restore": dict(restore)}
    return said


def parts_mapping(spec: DescriptorSpec, kind: str) -> dict[str, Any]:
    """The mapping update for the first record with several parts."""
    return {
        "properties": {
            "parts": {
                "type": "nested",
                "dynamic": "strict",
                "properties": {
                    "number": {"type": "integer"},
                    **{edge: {"type": "double", "index": False} for edge in BOX},
                    **_vectors(spec, kind),
                },
            }
        }
    }


def swap(alias: str, draft_alias: str, new: str, old: str | None) -> dict[str, Any]:
    """Move `alias` atomically from the index `old` to the index `new`."""
    return {
        "actions": [
            *([{"remove": {"index": old, "alias": alias}}] if old else []),
            {"add": {"index": new, "alias": alias}},
            {"remove": {"index": new, "alias": draft_alias, "must_exist": False}},
        ]
    }


def filters(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """The clauses that match the records that meet every condition."""
    return [_clause(condition) for condition in conditions]


def knn(
    field: str,
    vector: NDArray[Any],
    size: int,
    where: Sequence[Mapping[str, Any]],
    kind: str,
    options: Options,
) -> dict[str, Any]:
    """The `size` records nearest to `vector` by their vectors in `field`."""
    wanted: dict[str, Any] = {
        "field": field,
        "query_vector": vector,
        "k": size,
        "num_candidates": _candidates(size, kind, len(vector), options),
    }
    if where:
        wanted["filter"] = list(where)
    if kind in _OVERSAMPLE:
        wanted["rescore_vector"] = {"oversample": _oversample(kind, len(vector), options)}
    if field.startswith("parts."):
        wanted["inner_hits"] = _best_part()
    return {"knn": wanted, **_hits(size)}


def scripted(
    field: str, vector: NDArray[Any], size: int, where: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The same by a script over all vectors: exact for every field type."""
    scored: dict[str, Any] = {
        "script_score": {
            "query": {"exists": {"field": field}},
            "script": {
                "source": f"cosineSimilarity(params.query, '{field}') + 1.0",
                "params": {"query": vector},
            },
        }
    }
    if field.startswith("parts."):
        scored = {
            "nested": {
                "path": "parts",
                "score_mode": "max",
                "query": scored,
                "inner_hits": _best_part(),
            }
        }
    query = {"bool": {"must": [scored], "filter": list(where)}} if where else scored
    return {"query": query, **_hits(size), "sort": [{"_score": "desc"}, {"id": "asc"}]}


def page(
    after: str,
    size: int,
    *,
    source: str | None = None,
    fields: Mapping[str, Any],
    where: Sequence[Mapping[str, Any]] = (),
    key: str = "id",
) -> dict[str, Any]:
    """The next `size` records after the id `after`, of one source or of all, in id order.

    `fields`: the part of a search body that selects fields. `key`: the field with the id, which
    only documents of one kind have.
    """
    wanted: list[Mapping[str, Any]] = [having(key), *where]
    if source is not None:
        wanted.append({"term": {"source": source}})
    return {
        "query": {"bool": {"filter": wanted}},
        "sort": [{key: "asc"}],
        "search_after": [after],
        "size": size,
        "track_total_hits": False,
        **fields,
    }


def doc_values(*names: str) -> dict[str, Any]:
    """For `page` and hits: fields read from columns, without the documents."""
    return {**_HIT, "docvalue_fields": list(names)}


def without_vectors(field: str) -> dict[str, Any]:
    """For `page` and documents: the document without the vectors in `field`."""
    return {"_source": {"excludes": [field, "parts"]}}


def summary() -> dict[str, Any]:
    """Counts of an index, for `info` and `verify`."""
    return {
        "size": 0,
        "track_total_hits": True,
        "query": RECORDS,
        "aggs": {
            "vectors": {"sum": {"field": "part_count"}},
            "labels": {"cardinality": {"field": "label", "precision_threshold": 40_000}},
            "missing": {"filter": {"term": {"missing": True}}},
            "parts": {"nested": {"path": "parts"}},
        },
    }


def values(field: str, most: int) -> dict[str, Any]:
    """The `most` frequent values of a field, by kind."""
    name = metadata_field(field)
    paths = [field] if field in FIELDS else [f"metadata.{kind}.{name}" for kind in METADATA]
    return {
        "size": 0,
        "track_total_hits": False,
        "query": RECORDS,
        "aggs": {
            str(number): {"terms": {"field": path, "size": most}}
            for number, path in enumerate(paths)
        },
    }


def source_counts() -> dict[str, Any]:
    """Counts of records and of missing ones by source; an index has few sources."""
    missing = {"missing": {"filter": {"term": {"missing": True}}}}
    by_source = {"terms": {"field": "source", "size": LIMIT}, "aggs": missing}
    return {"size": 0, "query": RECORDS, "aggs": {"sources": by_source}}


def without(field: str) -> dict[str, Any]:
    """The query for records that lack `field`."""
    return {"bool": {"filter": [RECORDS], "must_not": [having(field)]}}


def _added() -> dict[str, Any]:
    """The fields that schema 2 added, 3 (`given`) and 4 (`tombstone`); the others are only kept.

    The checksum is for what comes.
    """
    kept = {"index": False, "doc_values": False}
    return {
        "stamp": {"type": "keyword", **kept},
        "decoder": {"type": "integer", **kept},
        "phash": {"type": "binary"},
        "checksum": {"type": "keyword", **kept},
        "given": {"type": "keyword", **kept},
        "tombstone": {"type": "keyword", "ignore_above": _LONGEST_TERM},
    }


def _vectors(spec: DescriptorSpec, kind: str) -> dict[str, Any]:
    field = vector_field(spec)
    if kind == WORDS:  # the binary field is only stored in the document, not searchable
        return {field: {"type": "binary"}, words_field(field): {"type": "sparse_vector"}}
    dense = {
        "type": "dense_vector",
        "dims": spec.dim,
        "index": True,
        "similarity": "cosine",
        "index_options": {"type": kind},
    }
    return {field: dense}


def _candidates(size: int, kind: str, dim: int, options: Options) -> int:
    if kind == "flat":
        return size
    least, each = (_SHORT_CANDIDATES, 10) if _coarse(kind, dim) else (_CANDIDATES, 2)
    return min(LIMIT, max(size, options.num_candidates or max(least, each * size)))


def _oversample(kind: str, dim: int, options: Options) -> float:
    chosen = _SHORT_OVERSAMPLE if _coarse(kind, dim) else _OVERSAMPLE[kind]
    return options.oversample or chosen


def _coarse(kind: str, dim: int) -> bool:
    """Whether the type keeps too little of a `dim`-dimensional vector to rank by it."""
    return kind == "bbq_hnsw" and dim < _SHORT_VECTOR


def _hits(size: int) -> dict[str, Any]:
    return {"size": size, "track_total_hits": False, **doc_values("id")}


def _best_part() -> dict[str, Any]:
    named = ("number", *BOX)
    return {"size": 1, **doc_values(*(f"parts.{name}" for name in named))}


def _clause(condition: Condition) -> dict[str, Any]:
    if condition.field in FLAG_FIELDS:
        return _any_of("missing", [value == "1" for value in condition.values], condition)
    if condition.field in NUMBER_FIELDS:
        return _whole_clause(condition.field, condition)
    if condition.field in FIELDS:
        return _text_clause(condition.field, condition)
    return _metadata_clause(condition)


def _metadata_clause(condition: Condition) -> dict[str, Any]:
    """Metadata may be text in one record and a number in another; each compares by its own kind."""
    name = metadata_field(condition.field)
    text, integer, number = (f"metadata.{kind}.{name}" for kind in METADATA)
    if condition.pattern:
        return _text_clause(text, condition)
    most = sys.float_info.max  # the server neither accepts nor holds infinity
    numbers = [max(-most, min(most, float(n))) for n in condition.numbers()]
    clauses = [_text_clause(text, condition)]
    if numbers or condition.operator == "!=":
        clauses += [_whole_clause(integer, condition), _compared(number, numbers, condition)]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def _whole_clause(field: str, condition: Condition) -> dict[str, Any]:
    """A comparison of integers, which the server limits to 64 bits."""
    numbers = condition.numbers()
    if condition.operator in ("=", "!="):
        whole = [int(n) for n in numbers if abs(n) < _WHOLE_LIMIT and int(n) == n]
        return _any_of(field, whole, condition)
    limit = numbers[0]
    clamped = max(-_WHOLE_LIMIT, min(_WHOLE_LIMIT - 1, limit))
    floor = int(clamped // 1)
    name = _RANGES[condition.operator]
    if floor != limit:  # n < 2.5 is n <= 2; n > 2.5 is n > 2
        name = "lte" if name in ("lt", "lte") else "gt"
        if limit < -_WHOLE_LIMIT:
            name = "lt" if name == "lte" else "gte"
    return {"range": {field: {name: floor}}}


def _compared(field: str, values: list[Any], condition: Condition) -> dict[str, Any]:
    if condition.operator in ("=", "!="):
        return _any_of(field, values, condition)
    return {"range": {field: {_RANGES[condition.operator]: values[0]}}}


def _text_clause(field: str, condition: Condition) -> dict[str, Any]:
    """A comparison of text: equal to one, in a span of the order, or as a pattern.

    Patterns are expressions and not wildcards with `case_insensitive`, which knows ASCII only.
    """
    if condition.operator not in ("=", "!="):
        return _compared(field, list(condition.texts), condition)
    if condition.pattern:
        # Without its optional operators, as Python has none of them.
        among: dict[str, Any] = {"regexp": {field: {"value": condition.pattern, "flags": "NONE"}}}
    else:
        among = {"terms": {field: list(condition.texts)}}
    if condition.spans:
        spans = [{"range": {field: {"gte": low, "lt": high}}} for low, high in condition.spans]
        among = {"bool": {"should": [among, *spans], "minimum_should_match": 1}}
    return _unless(field, among, condition)


def _any_of(field: str, values: list[Any], condition: Condition) -> dict[str, Any]:
    return _unless(field, {"terms": {field: values}}, condition)


def _unless(field: str, among: dict[str, Any], condition: Condition) -> dict[str, Any]:
    """`among`, or for `!=` all records that have the field but are not among them."""
    if condition.operator == "=":
        return among
    return {"bool": {"filter": [{"exists": {"field": field}}], "must_not": [among]}}


_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
