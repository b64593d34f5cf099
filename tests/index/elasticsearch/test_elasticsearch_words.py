"""Type `words` of the Elasticsearch engine: its requests word for word, and its answers."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir import testing
from cbir.errors import CbirError, QueryError
from cbir.index.base import Detail, Entry, Index
from cbir.index.elasticsearch import bodies as queries
from cbir.index.elasticsearch import documents, words
from cbir.index.elasticsearch.address import Options, parse
from cbir.index.elasticsearch.answers import Plan
from cbir.index.open import create_index, open_index
from cbir.testing import make_entry, sample_entries, unit
from cbir.types import WHOLE, Vectors
from tests.cli.support_cli import call
from tests.index.elasticsearch.support_elasticsearch import session_server
from tests.index.embedded.support_index import SPEC, answers, new_index
from tools.elasticsearch_address import Address

FIELD, WORDS = "vector_5555555555555555", "words_5555555555555555"
PARTS = (FIELD, f"parts.{FIELD}")
VECTOR = unit(np.array([0, 3, 0, 0, 4, 0, 0, 0.0]))
TERMS = {"w1": VECTOR[1], "w4": VECTOR[4]}
BY_WORDS = {"sparse_vector": {"field": WORDS, "query_vector": TERMS, "prune": False}}
BY_PARTS = {
    "nested": {
        "path": "parts",
        "score_mode": "max",
        "query": {
            "sparse_vector": {"field": f"parts.{WORDS}", "query_vector": TERMS, "prune": False}
        },
    }
}
LABEL = [{"terms": {"label": ["cat"]}}]
ORDER = [{"_score": "desc"}, {"id": "asc"}]
DIM = 200
SPARSE = replace(SPEC, dim=DIM)


def histograms(count: int, seed: int = 0, dim: int = DIM, nonzero: int = 8) -> Vectors:
    """Unit histograms of few words, frequent words more often; many pairs share none."""
    draw = np.random.default_rng(seed)
    rows = np.zeros((count, dim))
    likely = 1 / np.arange(1, dim + 1)
    for row in rows:
        places = draw.choice(dim, draw.integers(1, nonzero + 1), False, likely / likely.sum())
        row[places] = draw.integers(1, 5, len(places)) ** 0.5
    return unit(rows)


def histogram_entries(count: int, seed: int = 0, parts: int = 1) -> list[Entry]:
    rows = histograms(count * parts, seed).reshape(count, parts, DIM)
    boxes = [WHOLE, (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)][:parts]
    return [
        make_entry(f"a/{n:05d}", row, boxes=boxes, label=("cat", "dog")[n % 2])
        for n, row in enumerate(rows)
    ]


def test_an_index_of_words_has_their_field_and_keeps_the_vectors_in_the_document() -> None:
    options = parse("elasticsearch://host/photos?type=words").options
    mappings = queries.creation(SPEC, options, "photos")["mappings"]
    fields = {FIELD: {"type": "binary"}, WORDS: {"type": "sparse_vector"}}
    assert {name: mappings["properties"][name] for name in fields} == fields
    assert mappings["_source"] == {"excludes": ["thumbnail", WORDS, f"parts.{WORDS}"]}
    assert mappings["_meta"]["cbir"]["type"] == "words"
    parts = queries.parts_mapping(SPEC, "words")["properties"]["parts"]["properties"]
    assert {name: parts[name] for name in fields} == fields


def test_the_other_types_know_nothing_of_words() -> None:
    mappings = queries.creation(SPEC, Options(), "photos")["mappings"]
    assert mappings["_source"] == {"excludes": ["thumbnail"]}
    assert WORDS not in mappings["properties"]
    assert queries.searched_field(FIELD, "flat") == FIELD
    assert queries.searched_field(FIELD, "words") == WORDS


def test_terms_are_the_numbers_that_are_not_zero() -> None:
    assert words.terms(VECTOR) == TERMS
    tiny = np.array([1, 1e-39, 0], dtype=np.float32)  # the server refuses what is not normal
    assert words.terms(tiny) == {"w0": 1.0}


def test_records_are_asked_for_by_the_words_they_share() -> None:
    assert words.page(VECTOR, (FIELD,), 31, [], None) == {
        "query": BY_WORDS,
        "sort": ORDER,
        "size": 31,
        "track_total_hits": True,
        "_source": ["id", FIELD],
    }
    later = words.page(VECTOR, (FIELD,), 31, LABEL, [0.5, "a/7"])
    assert later["query"] == {"bool": {"must": [BY_WORDS], "filter": LABEL}}
    assert later["search_after"] == [0.5, "a/7"]


def test_a_record_of_several_parts_counts_by_its_best() -> None:
    body = words.page(VECTOR, PARTS, 31, [], None)
    assert body["query"] == {"dis_max": {"queries": [BY_WORDS, BY_PARTS]}}
    assert body["_source"] == ["id", FIELD, "parts"]


def test_records_without_a_word_in_common_are_asked_for_in_id_order() -> None:
    body = words.strangers(VECTOR, (FIELD,), 5, LABEL, "a/3")
    assert body == {
        "query": {
            "bool": {
                "filter": [queries.RECORDS, *LABEL],
                "must_not": [BY_WORDS, {"term": {"id": "a/3"}}],
            }
        },
        "sort": [{"id": "asc"}],
        "size": 5,
        "track_total_hits": False,
        "_source": ["id", FIELD],
    }
    assert words.strangers(VECTOR, (FIELD,), 5, [], None)["query"]["bool"] == {
        "filter": [queries.RECORDS],
        "must_not": [BY_WORDS],
    }


@pytest.mark.parametrize("dim", [1, 8, 1000, 65_536, 65_537])
def test_a_packed_vector_comes_back_bit_by_bit(dim: int) -> None:
    vector = np.zeros(dim, dtype=np.float32)
    vector[[0, -1]] = np.float32(0.1), np.float32(1e-42)
    back = documents.unpacked(documents.packed(vector))
    assert back.tobytes() == vector.tobytes()
    assert back.dtype == np.float32


def test_documents_are_sent_with_words_however_often() -> None:
    (entry,) = histogram_entries(1, parts=3)
    made = documents.document(entry, FIELD)
    ((record_id, sent, _),) = words.prepared([("a/1", made, None)], SPARSE)
    assert record_id == "a/1"
    assert sent is not None
    assert np.array_equal(documents.vectors(sent, FIELD), entry.vectors)
    assert sent[WORDS] == words.terms(entry.vectors[0])
    assert sent["parts"][1][WORDS] == words.terms(entry.vectors[2])
    kept = {name: value for name, value in sent.items() if name != WORDS}  # as it is read back
    assert words.prepared([("a/1", kept, None)], SPARSE) == [("a/1", sent, None)]
    assert words.prepared([("a/1", None, None)], SPARSE) == [("a/1", None, None)]


@pytest.mark.parametrize("part", [0, 2])
def test_vectors_with_negative_numbers_are_refused_in_one_line(part: int) -> None:
    (entry,) = histogram_entries(1, parts=3)
    rows = entry.vectors.copy()
    rows[part] *= -1
    made = documents.document(replace(entry, vectors=rows), FIELD)
    with pytest.raises(CbirError, match="made-up's vectors have negative values") as refused:
        words.prepared([("a/1", made, None)], SPARSE)
    assert "visual words" in refused.value.hint
    assert "\n" not in str(refused.value)


class Server:
    """Answers as the server does, from weights cut to nine bits; says what it was asked."""

    def __init__(self, rows: Vectors) -> None:
        self.ids = [f"{n:05d}" for n in range(len(rows))]
        self.rows = rows
        cut = np.ascontiguousarray(rows).view(np.int32) >> 15 << 15
        self.cut = cut.view(np.float32)
        self.sizes: list[int] = []

    def __call__(self, bodies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [{"hits": {"hits": self.hits(body)}} for body in bodies]

    def hits(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.sizes.append(body["size"])
        bare = body["query"].get("bool")
        asked = bare["must_not"][0] if bare else body["query"]
        query = np.zeros(self.rows.shape[1])
        for name, weight in asked["sparse_vector"]["query_vector"].items():
            query[int(name[1:])] = weight
        scores = (self.cut @ query).astype(np.float32).tolist()
        found = [n for n, score in enumerate(scores) if (score == 0) == bool(bare)]
        found.sort(key=lambda n: (-scores[n], self.ids[n]))
        if "search_after" in body:
            last, name = body["search_after"]
            found = [n for n in found if (-scores[n], self.ids[n]) > (-last, name)]
        return [
            {
                "sort": [scores[n], self.ids[n]],
                "_source": {"id": self.ids[n], FIELD: documents.packed(self.rows[n])},
            }
            for n in found[: body["size"]]
        ]


def best(rows: Vectors, query: Vectors, k: int) -> list[tuple[str, float]]:
    scores = (rows.astype(np.float64) * query).sum(axis=1).astype(np.float32)
    order = np.lexsort((np.arange(len(rows)), -scores))[:k]
    return [(f"{n:05d}", float(scores[n])) for n in order]


@pytest.mark.parametrize("spread", [0.02, 0.002, 0.0])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_cut_weights_do_not_change_an_answer_however_close_the_scores(
    spread: float, k: int
) -> None:
    draw = np.random.default_rng(0)
    rows = unit(1 + spread * draw.random((3000, 40)))
    server = Server(rows)
    for query in unit(1 + draw.random((5, 40))):
        (found,) = words.search(server, Plan((FIELD,), "words", Options()), query[None], k, None)
        pairs = list(zip(found.ids, found.scores.tolist(), strict=True))
        assert pairs == best(rows, query, k)


def test_more_equal_records_than_the_server_returns_at_once_are_all_looked_at() -> None:
    rows = np.repeat(VECTOR[None], 25_000, axis=0)
    server = Server(rows)
    plan = Plan((FIELD,), "words", Options())
    (found,) = words.search(server, plan, VECTOR[None], 3, ["00001"])
    assert found.ids == ["00000", "00002", "00003"]
    assert max(server.sizes) == queries.LIMIT
    assert sum(server.sizes) >= 25_000


def test_one_page_is_enough_where_scores_drop() -> None:
    rows = histograms(2000, nonzero=6)
    server = Server(rows)
    plan = Plan((FIELD,), "words", Options())
    (found,) = words.search(server, plan, unit(np.arange(DIM) * 1.0)[None], 10, None)
    assert len(found.ids) == 10
    assert len(server.sizes) == 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture
def url(server: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place of this test's own; what is made there is dropped in the end."""
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    own = f"w-{uuid.uuid4().hex[:12]}"
    yield server.index_url(own)
    for index in server.request("GET", f"/{own}*"):
        server.request("DELETE", f"/{index}")


def made(url: str, entries: list[Entry]) -> Index:
    index = create_index(f"{url}?type=words", SPARSE)
    index.add(entries)
    index.refresh()
    return index


@pytest.mark.elasticsearch
def test_the_engine_conforms_for_vectors_without_negative_numbers(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def positive(rows: Any) -> Vectors:
        return unit(np.abs(rows))

    monkeypatch.setattr("cbir.testing.samples.unit", positive)
    monkeypatch.setattr("cbir.testing.indexes.unit", positive)
    number = itertools.count()
    testing.check_index(lambda spec: create_index(f"{url}-{next(number)}?type=words", spec))


@pytest.mark.elasticsearch
@pytest.mark.parametrize("parts", [1, 3])
def test_answers_are_those_of_the_embedded_engine(url: str, tmp_path: Path, parts: int) -> None:
    entries = histogram_entries(600, parts=parts)
    asked = histograms(20, seed=7)
    out = [entry.record.id for entry in entries[:10]] + [None] * 10
    with (
        closing(made(url, entries)) as index,
        closing(new_index(tmp_path / "x", entries, SPARSE)) as embedded,
    ):
        for k in (1, 10, 300, 1000):  # far more than share a word with a query
            for options in ({}, {"exact": True}, {"where": ["label=cat"]}, {"exclude": out}):
                right = answers(embedded, asked, k, **options)
                assert answers(index, asked, k, **options) == right, (k, options)
        assert any(score == 0 for _, score, _ in right[0])


@pytest.mark.elasticsearch
def test_the_server_cuts_weights_to_nine_bits_and_never_raises_them(
    server: Address, url: str
) -> None:
    entries = histogram_entries(500)
    matrix = np.concatenate([entry.vectors for entry in entries]).astype(np.float64)
    with closing(made(url, entries)):
        lowest = 1.0
        for query in histograms(10, seed=3):
            body = words.page(query, (FIELD,), 500, [], None)
            body["query"]["sparse_vector"]["query_vector"] = {
                name: float(weight) for name, weight in words.terms(query).items()
            }
            answer = server.request("POST", f"/{url.rpartition('/')[2]}/_search", body)
            for hit in answer["hits"]["hits"]:
                true = float(matrix[int(hit["_source"]["id"][2:])] @ query)
                assert true * 255 / 256 * (1 - 1e-6) <= hit["sort"][0] <= true * (1 + 1e-6)
                lowest = min(lowest, hit["sort"][0] / true)
        assert lowest < 0.999  # there is something to make good


@pytest.mark.elasticsearch
def test_more_words_than_the_server_looks_up_are_refused_with_a_cure(url: str) -> None:
    wide = replace(SPEC, dim=300_000)
    with closing(create_index(f"{url}?type=words", wide)) as index:
        index.add([make_entry("a/1", unit(np.eye(1, wide.dim)))])
        assert index.search(unit(np.eye(1, wide.dim)), 1)[0].ids == ["a/1"]
        with pytest.raises(QueryError, match="more words than the server") as refused:
            index.search(unit(np.ones((1, wide.dim))), 1)
        assert "?type=flat" in refused.value.hint


@pytest.mark.elasticsearch
def test_vectors_with_negative_numbers_are_refused_and_nothing_is_kept(url: str) -> None:
    with closing(create_index(f"{url}?type=words", SPEC)) as index:
        with pytest.raises(CbirError, match="have negative values"):
            index.add(sample_entries(5))
        index.refresh()
        assert index.count() == 0
        with pytest.raises(QueryError, match="negative values"):
            index.search(-VECTOR[None], 1)


@pytest.mark.elasticsearch
def test_changed_records_keep_their_words_their_vectors_and_their_thumbnails(url: str) -> None:
    entries = histogram_entries(40, parts=3)
    asked = histograms(5, seed=2)
    with closing(made(url, entries)) as index:
        before = answers(index, asked, 40)
        index.set_details({entry.record.id: Detail("new", {"n": 1}) for entry in entries})
        index.mark_missing([entry.record.id for entry in entries[:3]])
        index.refresh()
        assert answers(index, asked, 40) == before
        for listed, entry in zip(index.entries(), entries, strict=True):
            assert np.array_equal(listed.vectors, entry.vectors)
            assert listed.thumbnail == entry.thumbnail
            assert listed.record.label == "new"
        assert index.remove(["a/00004"]) == ["a/00004"]
        index.refresh()
        assert "a/00004" not in [hit[0] for hit in answers(index, asked, 40)[0]]
        assert index.verify() == []
        info = index.info()
        assert (info["type"], info["count"]) == ("words", 39)
        assert info["bytes"] > 0


@pytest.mark.elasticsearch
def test_a_record_without_words_is_found_by_verify(server: Address, url: str) -> None:
    with closing(made(url, histogram_entries(3))) as index:
        stray = {"id": "a/x", "source": "a", "location": "x", "missing": False, "part_count": 1}
        server.request("PUT", f"/{url.rpartition('/')[2]}/_doc/a%2Fx?refresh=true", stray)
        assert index.verify() == ["1 records have no vector: index their sources again"]


@pytest.mark.elasticsearch
def test_words_are_copied_both_ways_and_built_anew_as_another_type(
    url: str, tmp_path: Path
) -> None:
    entries, asked = histogram_entries(120, parts=2), histograms(5, seed=2)
    with closing(create_index(str(tmp_path / "x.cbir"), SPARSE)) as index:
        index.add(entries)
    there, back = f"{url}?type=words", tmp_path / "back.cbir"
    assert call("copy", tmp_path / "x.cbir", there).code == 0
    assert call("copy", url, back).code == 0
    with closing(open_index(str(tmp_path / "x.cbir"))) as first, closing(open_index(url)) as index:
        right = answers(first, asked, 50)
        assert answers(index, asked, 50) == right
        with closing(open_index(str(back))) as last:
            assert answers(last, asked, 50) == right
    with closing(create_index(f"{url}?type=flat", SPARSE, rebuild=True)) as draft:
        draft.add(entries)
        draft.refresh()
        assert draft.info()["type"] == "flat"
    with closing(create_index(there, SPARSE, rebuild=True)) as draft:
        draft.add(entries)
        draft.refresh()
    with closing(open_index(there)) as index:
        assert answers(index, asked, 50) == right
