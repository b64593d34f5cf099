"""What is sent to Elasticsearch, word for word, and what is read back; no server needed."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.errors import CbirError, IndexStateError, QueryError
from cbir.index.base import Matches, difference
from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch import documents
from cbir.index.elasticsearch.address import Options, parse
from cbir.index.elasticsearch.answers import Plan, search
from cbir.index.elasticsearch.server_errors import IndexMissingError, in_words, is_passing
from cbir.index.filters import equals
from cbir.index.filters import parse as parse_filters
from cbir.index.open import same_place
from cbir.testing import make_entry, sample_entries, unit
from cbir.types import WHOLE
from tests.index.embedded.support_index import SPEC

FIELD = "vector_5555555555555555"
KEYWORD = {"type": "keyword", "ignore_above": 8191}
HIT = {"_source": False, "stored_fields": "_none_"}
VECTOR = unit(np.ones((1, 8)))[0]


def dense(kind: str) -> dict[str, object]:
    return {
        "type": "dense_vector",
        "dims": 8,
        "index": True,
        "similarity": "cosine",
        "index_options": {"type": kind},
    }


def test_a_new_index_is_made_with_everything_said_and_the_refresh_off() -> None:
    assert queries.creation(SPEC, Options(), "photos", version=(8, 19)) == {
        "aliases": {"photos": {}},
        "settings": {
            "index": {
                "number_of_shards": 1,
                "refresh_interval": "-1",
                "auto_expand_replicas": "0-1",
            }
        },
        "mappings": {
            "dynamic": "strict",
            "_meta": {
                "cbir": {
                    "schema": 4,
                    "type": "flat",
                    "spec": asdict(SPEC),
                    "load": {"restore": {"refresh_interval": None, "auto_expand_replicas": "0-1"}},
                }
            },
            "_source": {"excludes": ["thumbnail"]},
            "dynamic_templates": [
                {"text": {"path_match": "metadata.text.*", "mapping": KEYWORD}},
                {"integer": {"path_match": "metadata.integer.*", "mapping": {"type": "long"}}},
                {"number": {"path_match": "metadata.number.*", "mapping": {"type": "double"}}},
            ],
            "properties": {
                "id": {"type": "keyword"},
                "source": KEYWORD,
                "location": KEYWORD,
                "label": KEYWORD,
                "content_hash": {"type": "keyword", "index": False, "doc_values": False},
                "width": {"type": "long"},
                "height": {"type": "long"},
                "file_size": {"type": "long", "index": False, "doc_values": False},
                "mtime_ns": {"type": "long", "index": False, "doc_values": False},
                "missing": {"type": "boolean"},
                "stamp": {"type": "keyword", "index": False, "doc_values": False},
                "decoder": {"type": "integer", "index": False, "doc_values": False},
                "phash": {"type": "binary"},
                "checksum": {"type": "keyword", "index": False, "doc_values": False},
                "given": {"type": "keyword", "index": False, "doc_values": False},
                "tombstone": KEYWORD,
                "part_count": {"type": "long"},
                "metadata": {
                    "properties": {
                        "text": {"type": "object", "dynamic": True},
                        "integer": {"type": "object", "dynamic": True},
                        "number": {"type": "object", "dynamic": True},
                    }
                },
                "thumbnail": {"type": "binary", "store": True},
                "state": {"type": "object", "enabled": False},
                FIELD: dense("flat"),
            },
        },
    }


@pytest.mark.parametrize("kind", ["flat", "hnsw", "int8_hnsw", "bbq_hnsw"])
def test_the_type_of_the_vectors_is_always_said(kind: str) -> None:
    body = queries.creation(SPEC, Options(type=kind), "photos")
    assert body["mappings"]["properties"][FIELD] == dense(kind)
    assert body["mappings"]["_meta"]["cbir"]["type"] == kind
    parts = queries.parts_mapping(SPEC, kind)["properties"]["parts"]
    edge = {"type": "double", "index": False}
    assert parts == {
        "type": "nested",
        "dynamic": "strict",
        "properties": {
            "number": {"type": "integer"},
            "left": edge,
            "top": edge,
            "right": edge,
            "bottom": edge,
            FIELD: dense(kind),
        },
    }


def test_a_fast_load_has_no_copies_until_it_is_done() -> None:
    body = queries.creation(SPEC, Options(shards=3, replicas=2), "photos", fast_load=True)
    assert body["settings"]["index"] == {
        "number_of_shards": 3,
        "refresh_interval": "-1",
        "number_of_replicas": 0,
    }
    said = body["mappings"]["_meta"]["cbir"]["load"]
    assert said == {"restore": {"refresh_interval": None, "number_of_replicas": 2}}
    slow = queries.creation(SPEC, Options(shards=3, replicas=2), "photos")
    assert slow["settings"]["index"]["number_of_replicas"] == 2


@pytest.mark.parametrize(("version", "asked"), [((8, 19), False), ((9, 1), False), ((9, 2), True)])
def test_since_9_2_vectors_are_asked_to_stay_in_the_document(
    version: tuple[int, int], asked: bool
) -> None:
    # elastic.co/docs/reference/elasticsearch/mapping-reference/dense-vector
    settings = queries.creation(SPEC, Options(), "photos", version=version)["settings"]["index"]
    assert settings.get("mapping.exclude_source_vectors", True) is not asked


def test_a_search_asks_for_ids_and_scores_only() -> None:
    body = queries.knn(FIELD, VECTOR, 11, [], "flat", Options())
    assert body.pop("knn") == {
        "field": FIELD,
        "query_vector": VECTOR,
        "k": 11,
        "num_candidates": 11,
    }
    assert body == {"size": 11, "track_total_hits": False, **HIT, "docvalue_fields": ["id"]}


@pytest.mark.parametrize(
    ("kind", "options", "candidates", "oversample"),
    [
        ("hnsw", Options(), 100, None),
        ("int8_hnsw", Options(), 100, 3.0),
        ("bbq_hnsw", Options(), 600, 10.0),
        ("bbq_hnsw", Options(num_candidates=200, oversample=2), 200, 2),
        ("int8_hnsw", Options(num_candidates=300, oversample=7.5), 300, 7.5),
        ("hnsw", Options(num_candidates=5, oversample=7.5), 11, None),
        ("flat", Options(num_candidates=300, oversample=7.5), 11, None),
    ],
)
def test_quantised_vectors_are_scored_again_and_the_options_are_used(
    kind: str, options: Options, candidates: int, oversample: float | None
) -> None:
    asked = queries.knn(FIELD, VECTOR, 11, [], kind, options)["knn"]
    assert asked["num_candidates"] == candidates
    rescored = asked.get("rescore_vector")
    assert rescored == (None if oversample is None else {"oversample": oversample})


def test_one_bit_a_number_is_enough_for_long_vectors() -> None:
    asked = queries.knn(FIELD, np.ones(384, dtype=np.float32), 11, [], "bbq_hnsw", Options())["knn"]
    assert (asked["num_candidates"], asked["rescore_vector"]) == (100, {"oversample": 5.0})


def test_candidates_stay_below_the_limit_of_the_server() -> None:
    assert queries.knn(FIELD, VECTOR, 9000, [], "hnsw", Options())["knn"]["num_candidates"] == 10000


def test_filters_go_into_the_search_and_parts_say_which_of_them_matched() -> None:
    where = [{"terms": {"label": ["cat"]}}]
    asked = queries.knn(f"parts.{FIELD}", VECTOR, 5, where, "hnsw", Options())["knn"]
    assert asked["filter"] == where
    names = ["parts.number", "parts.left", "parts.top", "parts.right", "parts.bottom"]
    assert asked["inner_hits"] == {"size": 1, **HIT, "docvalue_fields": names}


def test_an_exact_search_by_script_orders_by_score_and_id() -> None:
    scored = {
        "script_score": {
            "query": {"exists": {"field": FIELD}},
            "script": {
                "source": f"cosineSimilarity(params.query, '{FIELD}') + 1.0",
                "params": {"query": VECTOR},
            },
        }
    }
    body = queries.scripted(FIELD, VECTOR, 5, [])
    assert body["query"] == scored
    assert body["sort"] == [{"_score": "desc"}, {"id": "asc"}]
    where = [{"terms": {"label": ["cat"]}}]
    filtered = queries.scripted(FIELD, VECTOR, 5, where)["query"]
    assert filtered == {"bool": {"must": [scored], "filter": where}}
    nested = queries.scripted(f"parts.{FIELD}", VECTOR, 5, [])["query"]["nested"]
    assert (nested["path"], nested["score_mode"]) == ("parts", "max")
    assert nested["inner_hits"]["size"] == 1


def test_pages_go_on_after_an_id() -> None:
    assert queries.page("a/7", 100, source="a", fields=queries.doc_values("id")) == {
        "query": {"bool": {"filter": [{"exists": {"field": "id"}}, {"term": {"source": "a"}}]}},
        "sort": [{"id": "asc"}],
        "search_after": ["a/7"],
        "size": 100,
        "track_total_hits": False,
        **HIT,
        "docvalue_fields": ["id"],
    }
    removed = queries.page("a/7", 100, fields={}, key="tombstone")
    assert removed["query"] == {"bool": {"filter": [{"exists": {"field": "tombstone"}}]}}
    assert removed["sort"] == [{"tombstone": "asc"}]


def test_a_name_is_moved_to_the_new_index_in_one_step() -> None:
    assert queries.swap("photos", "photos~next", "photos-000002", "photos-000001") == {
        "actions": [
            {"remove": {"index": "photos-000001", "alias": "photos"}},
            {"add": {"index": "photos-000002", "alias": "photos"}},
            {"remove": {"index": "photos-000002", "alias": "photos~next", "must_exist": False}},
        ]
    }


A_B = r"a\%20b(/.*)?/[^/]*"


def unequal(field: str, values: list[object]) -> dict[str, object]:
    among = {"terms": {field: values}}
    return {"bool": {"filter": [{"exists": {"field": field}}], "must_not": [among]}}


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("label=cat,dog", {"terms": {"label": ["cat", "dog"]}}),
        ("label!=cat", unequal("label", ["cat"])),
        ("id>=a/3", {"range": {"id": {"gte": "a/3"}}}),
        ("path=x", {"terms": {"location": ["x"]}}),
        ("missing=yes", {"terms": {"missing": [True]}}),
        ("missing!=true", unequal("missing", [True])),
        ("width=101,105.0,3.5", {"terms": {"width": [101, 105]}}),
        ("width<100", {"range": {"width": {"lt": 100}}}),
        ("width<2.5", {"range": {"width": {"lte": 2}}}),
        ("width<=2.5", {"range": {"width": {"lte": 2}}}),
        ("width>2.5", {"range": {"width": {"gt": 2}}}),
        ("width>=-2.5", {"range": {"width": {"gt": -3}}}),
        ("width<1e30", {"range": {"width": {"lte": 2**63 - 1}}}),
        ("width>1e999", {"range": {"width": {"gt": 2**63 - 1}}}),
        ("width<-1e30", {"range": {"width": {"lt": -(2**63)}}}),
        ("width>-1e30", {"range": {"width": {"gte": -(2**63)}}}),
        ("width=1e999", {"terms": {"width": []}}),
        ('label="tench, Tinca tinca"', {"terms": {"label": ["tench, Tinca tinca"]}}),
        ("label=Zürich", {"terms": {"label": ["Zürich", "Zu\u0308rich"]}}),
        ("label~a.1", {"regexp": {"label": {"value": ".*([aA]\\.1).*", "flags": "NONE"}}}),
        ("folder=a b/*", {"regexp": {"location": {"value": A_B, "flags": "NONE"}}}),
    ],
)
def test_conditions_become_clauses(text: str, clause: dict[str, object]) -> None:
    assert queries.filters(parse_filters([text])) == [clause]


def test_metadata_is_compared_as_what_it_is_in_each_record() -> None:
    def any_of(*clauses: object) -> list[object]:
        return [{"bool": {"should": list(clauses), "minimum_should_match": 1}}]

    def made(text: str) -> list[dict[str, object]]:
        return queries.filters(parse_filters([text], ["shop", "net price"]))

    text, whole, number = (f"metadata.{kind}.shop" for kind in ("text", "integer", "number"))
    assert made("shop=s1") == any_of({"terms": {text: ["s1"]}})
    assert made("shop=7,x") == any_of(
        {"terms": {text: ["7", "x"]}}, {"terms": {whole: [7]}}, {"terms": {number: [7.0]}}
    )
    assert made("shop!=x") == any_of(unequal(text, ["x"]), unequal(whole, []), unequal(number, []))
    assert made("net price<1.5") == any_of(
        {"range": {"metadata.text.net%20price": {"lt": "1.5"}}},
        {"range": {"metadata.integer.net%20price": {"lte": 1}}},
        {"range": {"metadata.number.net%20price": {"lt": 1.5}}},
    )


def test_a_date_in_metadata_is_a_span_of_its_text() -> None:
    def made(text: str) -> dict[str, Any]:
        (clause,) = queries.filters(parse_filters([text], ["day"]))
        first: dict[str, Any] = clause["bool"]["should"][0]
        return first

    text = "metadata.text.day"
    assert made("day>=2024-05") == {"range": {text: {"gte": "2024-05"}}}
    assert made("day>2024-05") == {"range": {text: {"gt": "2024-05-3\U0010ffff"}}}
    among = [
        {"terms": {text: ["2024-05"]}},
        {"range": {text: {"gte": "2024-05-0", "lt": "2024-05-4"}}},
    ]
    assert made("day=2024-05") == {"bool": {"should": among, "minimum_should_match": 1}}
    assert made('day="2024-05"') == {"terms": {text: ["2024-05"]}}
    (clause,) = queries.filters(parse_filters(["day~mai"], ["day"]))
    pattern = {"value": ".*([mM][aA][iI]).*", "flags": "NONE"}
    assert clause == {"regexp": {text: pattern}}


@given(st.text())
def test_a_quoted_value_is_sent_as_it_is(text: str) -> None:
    (clause,) = queries.filters(parse_filters([equals("label", text)]))
    assert clause["terms"]["label"][0] == text
    (clause,) = queries.filters(parse_filters([equals("note", text)], ["note"]))
    first = clause["bool"]["should"][0] if "bool" in clause else clause
    assert first["terms"]["metadata.text.note"][0] == text


def test_values_are_counted_by_kind_the_most_frequent_first() -> None:
    body = queries.values("a.b", 2)
    assert [counted["terms"] for counted in body["aggs"].values()] == [
        {"field": f"metadata.{kind}.a%2Eb", "size": 2} for kind in ("text", "integer", "number")
    ]
    assert queries.values("label", 5)["aggs"] == {"0": {"terms": {"field": "label", "size": 5}}}
    answer = {
        "aggregations": {
            "0": {"buckets": [{"key": 7, "doc_count": 2}]},
            "1": {"buckets": [{"key": 2.5, "doc_count": 3}, {"key": 0.5, "doc_count": 1}]},
            "2": {"buckets": [{"key": "x", "doc_count": 2}]},
        }
    }
    assert documents.values(answer, 3) == [2.5, 7, "x"]
    answer["aggregations"]["0"]["buckets"][0]["doc_count"] = 1
    assert documents.values(answer, 9) == [2.5, "x", 0.5, 7]


@pytest.mark.parametrize("name", ["shop", "net.price", "a b", "", "%", "größe", "*", "_id", "x/y"])
def test_any_metadata_key_becomes_a_field_and_comes_back(name: str) -> None:
    field = queries.metadata_field(name)
    assert field
    assert not set(field) & set(". */")
    assert queries.metadata_name(field) == name


def test_an_entry_becomes_a_document_and_comes_back() -> None:
    (entry,) = sample_entries(1, parts=3, metadata={"year": 1999, "price": 2.0, "a.b": "é"})
    made = documents.document(entry, FIELD)
    assert made["metadata"] == {
        "integer": {"year": 1999},
        "number": {"price": 2.0},
        "text": {"a%2Eb": "é"},
    }
    assert made["part_count"] == 3
    assert [part["number"] for part in made["parts"]] == [1, 2]
    hit = {"_source": made, "fields": {"thumbnail": [made["thumbnail"]]}}
    back = documents.entry(hit, FIELD)
    assert back.record == entry.record
    assert type(back.record.metadata["price"]) is float
    assert back.boxes == list(entry.boxes)
    assert np.array_equal(back.vectors, entry.vectors)
    assert back.thumbnail == entry.thumbnail


def test_what_a_record_has_not_is_not_in_its_document() -> None:
    entry = make_entry("a/1", unit(np.ones((1, 8))))
    bare = replace(entry.record, file_size=None, mtime_ns=None, stamp=None, phash=None)
    made = documents.document(replace(entry, record=bare, thumbnail=b""), FIELD)
    lacking = {"label", "file_size", "mtime_ns", "stamp", "phash", "thumbnail", "parts"}
    assert not lacking & made.keys()
    assert documents.record(made) == bare
    assert documents.boxes(made) == [WHOLE]


def test_a_document_says_what_was_given_and_an_old_one_is_told_by_its_fields() -> None:
    metadata = {"year": 1999, "camera": "X100", "lens": "mine"}
    (entry,) = sample_entries(1, metadata=metadata)
    given = frozenset(["label", "lens"])
    made = documents.document(replace(entry, record=replace(entry.record, given=given)), FIELD)
    assert made["given"] == ["label", "lens"]
    assert documents.record(made).given == documents.stamp(made).given == given
    assert documents.record({**made, "given": []}).given == frozenset()
    old = {name: value for name, value in made.items() if name != "given"}
    assert documents.record(old).given == documents.stamp(old).given == {"year"}


def test_a_whole_number_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(CbirError, match="too large"):
        documents.metadata_groups("a/1", {"big": 2**63})
    assert documents.metadata_groups("a/1", {"big": -(2**63)}) == {"integer": {"big": -(2**63)}}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("elasticsearch://ONE/photos/?num_candidates=50", True),
        ("elasticsearch://two,one:9200/photos", True),
        ("elasticsearch://one/other", False),
        ("elasticsearch://one:9201/photos", False),
        ("elasticsearch://one/prefix/photos", False),
        ("photos", False),
    ],
)
def test_an_index_has_one_place_however_its_address_is_written(other: str, same: bool) -> None:
    assert same_place("elasticsearch://one:9200,three/photos", other) is same


def test_an_address_is_read_from_the_url() -> None:
    address = parse("elasticsearch://one,two:9201,[::1]:9202/photos?type=hnsw&num_candidates=50")
    assert address.nodes == ("http://one:9200", "http://two:9201", "http://[::1]:9202")
    assert address.name == "photos"
    assert address.url == "elasticsearch://one,two:9201,[::1]:9202/photos"
    assert address.options == Options(type="hnsw", num_candidates=50)
    assert not address.encrypted
    assert parse("elasticsearch+https://one/photos").nodes == ("https://one:9200",)


@pytest.mark.parametrize(
    ("path", "prefix", "shown"),
    [
        ("/photos/", "", "/photos"),
        ("/search/photos", "/search", "/search/photos"),
        ("/a/B_1.x%20y/photos/", "/a/B_1.x%20y", "/a/B_1.x%20y/photos"),
        ("/search/photos/?type=flat", "/search", "/search/photos"),
    ],
)
def test_a_path_prefix_is_part_of_every_node(path: str, prefix: str, shown: str) -> None:
    address = parse(f"elasticsearch://one,two:9201{path}")
    assert address.nodes == (f"http://one:9200{prefix}", f"http://two:9201{prefix}")
    assert address.name == "photos"
    assert address.url == f"elasticsearch://one,two:9201{shown}"
    assert parse(address.url).nodes == address.nodes


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("elasticsearch://host:9200", "names no index"),
        ("elasticsearch://host:9200/", "names no index"),
        ("elasticsearch://host/My-Photos", "'My-Photos' is not a valid index name"),
        ("elasticsearch://host/a/B", "'B' is not a valid index name"),
        ("elasticsearch://host//photos", "'' cannot be part of the path"),
        ("elasticsearch://host/a/../photos", "'..' cannot be part of the path"),
        ("elasticsearch://host/a b/photos", "'a b' cannot be part of the path"),
        ("elasticsearch://host/_all", "is not a valid index name"),
        ("elasticsearch:///photos", "'' is not a valid host"),
        ("elasticsearch://host:99999/photos", "is not a valid host"),
        ("elasticsearch://host:x/photos", "is not a valid host"),
        ("elasticsearch://host/photos?tpye=flat", "did you mean 'type'"),
        ("elasticsearch://host/photos?type=fast", "unknown type 'fast'"),
        ("elasticsearch://host/photos?shards=0", "shards is '0'"),
        ("elasticsearch://host/photos?oversample=x", "oversample is 'x'"),
        ("elasticsearch://host/photos?num_candidates=10001", "num_candidates is"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(CbirError) as refused:
        parse(url)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("secret", ["hunter2", "hunter2/rabbit", "rabbit/hunter2/"])
def test_a_password_in_the_address_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(CbirError) as refused:
        parse(f"elasticsearch://me:{secret}@host:9200/photos")
    assert "CBIR_ELASTICSEARCH_PASSWORD" not in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "_PASSWORD" in refused.value.hint


@pytest.mark.parametrize("option", ["password=hunter2", "type=flat&api_key=hunter2"])
def test_options_that_may_be_secret_are_not_repeated(option: str) -> None:
    with pytest.raises(CbirError, match="unknown option") as refused:
        parse(f"elasticsearch://host/photos?{option}")
    assert "hunter2" not in str(refused.value)


WATERMARK = {
    "type": "cluster_block_exception",
    "reason": "index [photos-000001] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded "
    "flood-stage watermark, index has read-only-allow-delete block];",
}
NO_MASTER = {"type": "cluster_block_exception", "reason": "blocked by: [SERVICE_UNAVAILABLE/2/no]"}
LOST = {
    "type": "search_phase_execution_exception",
    "failed_shards": [{"reason": {"type": "node_disconnected_exception", "reason": "gone"}}],
}


@pytest.mark.parametrize(
    ("status", "error", "passes"),
    [
        (429, {"type": "es_rejected_execution_exception"}, True),
        (503, NO_MASTER, True),
        (502, "Bad Gateway", True),
        (504, None, True),
        (500, LOST, True),
        (500, {"type": "null_pointer_exception"}, False),
        (429, WATERMARK, False),
        (400, {"type": "parsing_exception"}, False),
        (401, {"type": "security_exception"}, False),
    ],
)
def test_what_passes_is_told_from_what_does_not(status: int, error: object, passes: bool) -> None:
    assert is_passing(status, error) is passes


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (401, {"reason": "missing token"}, IndexStateError, "rejects the credentials"),
        (403, {"reason": "action [x] is unauthorized"}, IndexStateError, "do not allow this"),
        (429, WATERMARK, IndexStateError, "read-only"),
        (404, {"type": "index_not_found_exception"}, IndexMissingError, "no index at"),
        (
            400,
            {"reason": "all shards failed", "caused_by": {"reason": "script_lang not supported"}},
            QueryError,
            "scripts are disabled",
        ),
        (503, {"reason": "not now"}, IndexStateError, "is temporarily unavailable: not now"),
        (400, {"reason": "a\n b"}, IndexStateError, "returned 400: a b"),
    ],
)
def test_errors_are_put_in_words(
    status: int, error: object, kind: type[CbirError], words: str
) -> None:
    told = in_words("elasticsearch://host:9200/photos", status, error)
    assert type(told) is kind
    assert words in told.message
    assert "\n" not in str(told)


class Ties:
    """A server whose records all have one score: it returns any of them, never in order."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.asked: list[int] = []

    def __call__(self, bodies: object) -> list[dict[str, object]]:
        answers = []
        for body in bodies:  # type: ignore[attr-defined]
            below = [
                clause["range"]["id"]["lt"]
                for clause in body["knn"].get("filter", [])
                if "range" in clause
            ]
            names = [name for name in self.names if all(name < limit for limit in below)]
            self.asked.append(body["size"])
            hits = [{"_score": 1.0, "fields": {"id": [name]}} for name in names[: body["size"]]]
            answers.append({"hits": {"hits": hits}})
        return answers


@pytest.mark.parametrize("count", [30, 25_000])
def test_more_ties_than_the_server_returns_are_still_ordered_by_id(count: int) -> None:
    names = [f"{number:05d}" for number in range(count)]
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    plan = Plan((FIELD,), "flat", Options())
    (found,) = search(Ties(shuffled), plan, VECTOR[None], 10, None)
    assert found.ids == names[:10]
    (found,) = search(Ties(shuffled), plan, VECTOR[None], 10, [names[3]])
    assert found.ids == [*names[:3], *names[4:11]]


def test_a_search_whose_score_drops_asks_once() -> None:
    class Falling(Ties):
        def __call__(self, bodies: object) -> list[dict[str, object]]:
            answers = super().__call__(bodies)
            for answer in answers:
                for rank, hit in enumerate(answer["hits"]["hits"]):  # type: ignore[index]
                    hit["_score"] = 1 - rank / 100
            return answers

    server = Falling([f"{number:05d}" for number in range(90)])
    (found,) = search(server, Plan((FIELD,), "flat", Options()), VECTOR[None], 10, None)
    assert server.asked == [11]
    assert found.ids == server.names[:10]
    assert np.allclose(found.scores, 1 - 2 * np.arange(10) / 100)


def matches(**scores: float) -> Matches:
    return Matches(list(scores), np.array(list(scores.values()), np.float32), [None] * len(scores))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (matches(a=0.9, b=0.8), matches(a=0.9, b=0.8), ""),
        (matches(a=0.9, b=0.8), matches(a=0.9000015, b=0.8), ""),
        (matches(a=0.8000001, b=0.8), matches(b=0.8000001, a=0.8), ""),
        (matches(a=0.9, b=0.8000001), matches(a=0.9, c=0.8), ""),
        (matches(a=0.9, b=0.8), matches(a=0.9), "2 and 1 hits"),
        (matches(a=0.9, b=0.8), matches(a=0.9, b=0.7), "scores"),
        (matches(a=0.9, b=0.8), matches(b=0.9, a=0.8), "'a' with"),
        (matches(a=0.9, b=0.8), matches(c=0.9, b=0.8), "'a' with"),
    ],
)
def test_answers_are_compared_within_the_tolerance(one: Matches, other: Matches, told: str) -> None:
    assert difference(one, other).startswith(told)
    assert bool(difference(one, other)) == bool(told) == bool(difference(other, one))
