"""The Elasticsearch engine on a real server: its life, what it refuses, and what it says of it."""

from __future__ import annotations

import hashlib
import itertools
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import cbir
from cbir import testing
from cbir.errors import CbirError, IndexStateError, QueryError, RecordsRefusedError
from cbir.index.base import SCORE_TOLERANCE, Detail, Entry
from cbir.index.open import create_index, index_exists, open_index
from cbir.testing import make_entry, sample_entries, unit
from cbir.types import Failure
from tests.cli.support_cli import call, many_pictures
from tests.index.elasticsearch.support_elasticsearch import own_server, session_server
from tests.index.embedded.support_index import OTHER_SPEC, SPEC, answers, expected
from tools.elasticsearch_address import Address

pytestmark = pytest.mark.elasticsearch
QUERIES = unit(np.random.default_rng(5).normal(size=(5, 8)))
DIM = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture
def name(
    server: Address, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A name of this test's own; whatever is called so is dropped in the end."""
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    own = f"t-{uuid.uuid4().hex[:12]}"
    yield own
    for index in server.request("GET", f"/{own}*"):
        server.request("DELETE", f"/{index}")


@pytest.fixture
def url(server: Address, name: str) -> str:
    return server.index_url(name)


def settings(server: Address, name: str) -> dict[str, str]:
    (found,) = server.request("GET", f"/{name}/_settings").values()
    made: dict[str, str] = found["settings"]["index"]
    return made


@pytest.mark.parametrize("kind", ["flat", "hnsw", "int8_hnsw"])
def test_the_engine_conforms(kind: str, url: str) -> None:
    number = itertools.count()
    testing.check_index(lambda spec: create_index(f"{url}-{next(number)}?type={kind}", spec))


def test_a_new_index_loads_without_refresh_and_has_its_settings_back_in_the_end(
    server: Address, name: str, url: str
) -> None:
    with closing(create_index(f"{url}?replicas=2", SPEC)) as index:
        index.add(sample_entries(20))
        assert settings(server, name)["refresh_interval"] == "-1"
        assert index.info()["loading"]
        index.refresh()
        assert "refresh_interval" not in settings(server, name)
        assert settings(server, name)["number_of_replicas"] == "2"
        assert not index.info()["loading"]
        assert index.verify() == []


def test_a_fast_load_gets_its_copies_in_the_end(server: Address, name: str, url: str) -> None:
    with closing(create_index(f"{url}?replicas=1", SPEC, fast_load=True)) as index:
        assert settings(server, name)["number_of_replicas"] == "0"
        index.refresh()
        assert settings(server, name)["number_of_replicas"] == "1"


def test_a_load_that_was_broken_off_is_seen_and_goes_on(
    server: Address, name: str, url: str
) -> None:
    entries = sample_entries(30)
    with closing(create_index(url, SPEC)) as index:
        index.add(entries[:10])  # and nobody says that this was all
    with closing(open_index(url)) as reader:
        assert reader.count() == 10  # what was acknowledged is there to be found
        assert len(reader.search(QUERIES[:1], 100)[0].ids) == 10
        assert any("its load is incomplete" in line for line in reader.verify())
        assert settings(server, name)["refresh_interval"] == "-1"  # the loader may be at it
    with closing(create_index(url, SPEC)) as index:
        index.add(entries[10:])
        index.refresh()
        assert index.verify() == []
        assert index.count() == 30
    assert "refresh_interval" not in settings(server, name)


def test_verify_repairs_a_load_that_was_broken_off(server: Address, name: str, url: str) -> None:
    with closing(create_index(url, SPEC)) as index:
        index.add(sample_entries(3))
    assert call("verify", url).code == 1
    assert call("verify", url, "--repair").code == 0
    assert call("verify", url).code == 0
    assert "refresh_interval" not in settings(server, name)


def test_a_writer_of_a_live_index_leaves_its_settings_alone(
    server: Address, name: str, url: str
) -> None:
    create_and_close(url, sample_entries(5))
    with closing(open_index(url, write=True)) as index:
        index.add(sample_entries(1, prefix="b"))
        assert "refresh_interval" not in settings(server, name)
        assert index.search(sample_entries(1, prefix="b")[0].vectors, 1)[0].ids[0][2:] == "0000"
        assert index.count() == 6


def test_another_spec_is_refused(url: str) -> None:
    create_and_close(url, sample_entries(5))
    with pytest.raises(IndexStateError, match="was built with made-up@55555555"):
        create_index(url, OTHER_SPEC)
    with pytest.raises(IndexStateError, match="you gave made-up@99999999"):
        create_index(url, replace(SPEC, fingerprint="9" * 64))


def test_another_type_is_refused(url: str) -> None:
    create_and_close(url, sample_entries(5))
    for attempt in (open_index, lambda url: create_index(url, SPEC)):
        with pytest.raises(IndexStateError, match="is of type flat"):
            attempt(f"{url}?type=hnsw")
    open_index(f"{url}?type=flat").close()


def test_an_index_of_others_is_refused(server: Address, name: str, url: str) -> None:
    server.request("PUT", f"/{name}", {"mappings": {"properties": {"x": {"type": "keyword"}}}})
    for attempt in (open_index, index_exists, lambda url: create_index(url, SPEC)):
        with pytest.raises(IndexStateError, match="was not created by cbir"):
            attempt(url)


def test_where_there_is_no_index_that_is_said(url: str) -> None:
    assert not index_exists(url)
    with pytest.raises(IndexStateError, match="no index at"):
        open_index(url)
    create_and_close(url, [])
    assert index_exists(url)


def test_a_full_reindex_takes_over_when_it_is_complete(
    server: Address, name: str, url: str
) -> None:
    old, new = sample_entries(20), sample_entries(30, seed=1, prefix="b")
    create_and_close(url, old)
    with closing(open_index(url)) as reader:
        with closing(create_index(url, SPEC, rebuild=True)) as draft:
            draft.add(new[:10])  # and is broken off
        assert reader.count() == 20
        with closing(create_index(url, SPEC, rebuild=True)) as draft:
            assert draft.count() == 10
            draft.add(new[10:])
            assert sorted(open_ids(url)) == [entry.record.id for entry in old]
            draft.refresh()
            assert draft.count() == 30
        found = answers(reader, QUERIES, 5)
        near(found, [expected(new, query, 5) for query in QUERIES])
    assert list(server.request("GET", f"/{name}*")) == [f"{name}-000002"]
    with closing(create_index(url, SPEC)) as index:  # single changes go to the live one
        index.remove(["b/0000"])
        assert index.count() == 29


def test_a_full_reindex_may_change_the_spec_and_readers_of_the_old_one_are_told(url: str) -> None:
    create_and_close(url, sample_entries(20))
    with closing(open_index(url)) as reader:
        assert reader.search(QUERIES, 3)[0].ids
        other = [make_entry("x/1", unit(np.ones((1, 16))))]
        with closing(create_index(f"{url}?type=hnsw", OTHER_SPEC, rebuild=True)) as draft:
            draft.add(other)
            draft.refresh()
        with pytest.raises(IndexStateError, match="was rebuilt with other@66666666"):
            reader.search(QUERIES, 3)
    with closing(open_index(url)) as reader:
        assert reader.spec == OTHER_SPEC


def test_a_draft_of_another_spec_is_dropped(server: Address, name: str, url: str) -> None:
    create_and_close(url, sample_entries(2))
    with closing(create_index(url, OTHER_SPEC, rebuild=True)) as draft:
        draft.add([make_entry("x/1", unit(np.ones((1, 16))))])
    with closing(create_index(url, SPEC, rebuild=True)) as draft:
        assert draft.count() == 0
        draft.refresh()
    assert len(server.request("GET", f"/{name}*")) == 1


def test_searches_during_a_swap_find_the_old_or_the_new(url: str) -> None:
    entries = sample_entries(40)
    create_and_close(url, entries)
    right = [expected(entries, query, 5) for query in QUERIES]
    over = threading.Event()

    def ask() -> None:  # what it raises is an unhandled exception of a thread, and fails the test
        with closing(open_index(url)) as reader:
            while not over.is_set():
                near(answers(reader, QUERIES, 5), right)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(4):
            with closing(create_index(url, SPEC, rebuild=True)) as draft:
                draft.add(entries)
                draft.refresh()
    finally:
        over.set()
        thread.join()


def test_refused_records_are_told_of_and_the_others_are_kept(url: str) -> None:
    good = sample_entries(3)
    bad = make_entry("x/" + "long" * 200, unit(np.ones((1, 8))))
    with closing(create_index(url, SPEC)) as index:
        with pytest.raises(RecordsRefusedError) as refused:
            index.add([*good[:2], bad, good[2]])
        assert list(refused.value.reasons) == [bad.record.id]
        assert index.count() == 3


def test_refused_images_are_in_the_report_and_in_the_index(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = many_pictures(tmp_path / "photos", 4)
    # More fields than the server allows an index to have.
    fields = ",".join(f"f{number}" for number in range(1100))
    values = ",".join("x" for _ in range(1100))
    (tmp_path / "facts.csv").write_text(f"path,{fields}\n0002.bmp,{values}\n")
    answer = call(
        "index", pictures, "--into", url, "--metadata", tmp_path / "facts.csv", "--json"
    ).json
    assert answer["added"] == 3
    assert [failure["location"] for failure in answer["failures"]] == ["0002.bmp"]
    with closing(open_index(url)) as index:
        assert [failure.location for failure in index.failures()] == ["0002.bmp"]
        assert index.count() == 3


def test_an_index_that_is_blocked_for_writing_says_so(server: Address, name: str, url: str) -> None:
    create_and_close(url, sample_entries(3))
    block = "index.blocks.read_only_allow_delete"
    server.request("PUT", f"/{name}/_settings", {block: True})
    try:
        with closing(open_index(url, write=True)) as index:
            with pytest.raises(IndexStateError, match="is read-only"):
                index.add(sample_entries(3, seed=1))
            assert index.count() == 3
            assert index.search(QUERIES, 2)[0].ids
    finally:
        server.request("PUT", f"/{name}/_settings", {block: None})


def test_an_index_that_is_dropped_meanwhile_is_gone_and_not_made_again(
    server: Address, name: str, url: str
) -> None:
    with closing(create_index(url, SPEC)) as index:
        index.add(sample_entries(3))
        server.request("DELETE", f"/{name}-000001")
        with pytest.raises(IndexStateError, match="no index at"):
            index.add(sample_entries(3))
        with pytest.raises(IndexStateError):
            index.search(QUERIES, 1)
    assert not index_exists(url)


def test_exactness_over_hnsw_needs_scripts_and_says_so(url: str) -> None:
    create_and_close(f"{url}?type=hnsw", sample_entries(30))
    with closing(open_index(url)) as index:
        assert index.search(QUERIES, 3)[0].ids
        with pytest.raises(QueryError, match="scripts are disabled") as refused:
            index.search(QUERIES, 3, exact=True)
        assert "?type=flat" in refused.value.hint


def test_a_pattern_that_is_too_complex_for_the_server_is_an_error_of_the_query(url: str) -> None:
    create_and_close(url, sample_entries(3))
    with closing(open_index(url)) as index:
        for ask in (
            lambda: list(index.ids(["folder=*a*b??????????"])),
            lambda: index.search(QUERIES, 3, where=["folder=*a*b??????????"]),
        ):
            with pytest.raises(QueryError, match="too complex") as refused:
                ask()
            assert "fewer *" in refused.value.hint


def test_more_hits_than_the_server_gives_are_refused(url: str) -> None:
    create_and_close(url, sample_entries(3))
    with closing(open_index(url)) as index:
        assert len(index.search(QUERIES, 10_000)[0].ids) == 3
        left = index.search(QUERIES, 10_000, exclude=["a/0000"] * 5)[0].ids
        assert sorted(left) == ["a/0001", "a/0002"]
        with pytest.raises(QueryError, match="k is 10001"):
            index.search(QUERIES, 10_001)


def test_quantised_vectors_scored_again_find_what_exact_search_finds(url: str) -> None:
    draw = np.random.default_rng(0)
    spec = replace(SPEC, dim=DIM)
    centres = draw.normal(size=(40, DIM))
    rows = unit(centres[draw.integers(0, 40, 3000)] + draw.normal(size=(3000, DIM)) * 0.4)
    entries = [make_entry(f"a/{n:04d}", row[None]) for n, row in enumerate(rows)]
    queries = rows[:100]
    best = np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :10]
    for kind, least in (("int8_hnsw", 0.98), ("hnsw", 0.98), ("bbq_hnsw", 0.98)):
        with closing(create_index(f"{url}-{kind.replace('_', '')}?type={kind}", spec)) as index:
            index.add(entries)
            index.refresh()
            found = index.search(queries, 10)
        kept = [{f"a/{n:04d}" for n in b} & set(m.ids) for b, m in zip(best, found, strict=True)]
        assert sum(map(len, kept)) / 1000 >= least, kind
        for matches, query in zip(found, queries, strict=True):
            true = [float(rows[int(i[2:])].astype(np.float64) @ query) for i in matches.ids]
            assert np.allclose(matches.scores, true, rtol=0, atol=SCORE_TOLERANCE), kind


def test_several_writers_register_every_source_once(url: str) -> None:
    create_and_close(url, [])
    names: list[str] = []

    def register(number: int) -> None:
        with closing(open_index(url, write=True)) as index:
            names.append(index.register_source("photos", f"/{number % 4}"))

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(names)) == ["photos", "photos-2", "photos-3", "photos-4"]
    with closing(open_index(url)) as index:
        assert sorted(index.sources().values()) == ["/0", "/1", "/2", "/3"]


def test_changes_of_details_by_two_writers_keep_vectors_and_thumbnails(url: str) -> None:
    entries = sample_entries(50, parts=3)
    create_and_close(url, entries)

    def mark(number: int) -> None:
        with closing(open_index(url, write=True)) as index:
            ids = [entry.record.id for entry in entries]
            if number % 2:
                index.mark_missing(ids)
            else:
                index.set_details({i: Detail("new", {"n": 1}) for i in ids})

    threads = [threading.Thread(target=mark, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(open_index(url)) as index:
        index.refresh()
        for listed, entry in zip(index.entries(), entries, strict=True):
            assert listed.record.missing
            assert listed.record.label == "new"
            assert listed.thumbnail == entry.thumbnail
            assert np.array_equal(listed.vectors, entry.vectors)


def test_everything_a_person_does_works_from_the_command_line(url: str, tmp_path: Path) -> None:
    pictures = many_pictures(tmp_path / "photos", 30)
    assert call("index", pictures, "--into", url, "--json").json["added"] == 30
    assert call("index", pictures, "--into", url, "--json").json["unchanged"] == 30
    (hits,) = call("search", pictures / "0007.bmp", "--in", url, "-k", "3", "--json").json
    assert hits["hits"][0]["id"] == "photos/0007.bmp"
    assert hits["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert hits["hits"][0]["path"] == str(pictures / "0007.bmp")
    by_id = call("search", "--id", "photos/0007.bmp", "--in", url, "--json").json[0]["hits"]
    assert "photos/0007.bmp" not in [hit["id"] for hit in by_id]
    info = call("info", url, "--json").json
    assert (info["count"], info["engine"], info["type"]) == (30, "elasticsearch", "flat")
    assert info["bytes"] > 0
    assert call("info", url).code == 0
    assert call("remove", url, "photos/0001.bmp", "--json").json == {"removed": ["photos/0001.bmp"]}
    assert call("verify", url, "--json").json == {"count": 29, "problems": [], "left": []}
    run = tmp_path / "run"
    assert call("run", pictures, "--in", url, "-k", "5", "-o", run).code == 0
    assert len(run.read_text().splitlines()) == 150
    (pictures / "0002.bmp").unlink()
    assert call("index", pictures, "--into", url, "--prune", "--json").json["removed"] == 1


def test_rebuilding_from_the_command_line_drops_what_is_gone(
    server: Address, name: str, url: str, tmp_path: Path
) -> None:
    pictures = many_pictures(tmp_path / "photos", 10)
    assert call("index", pictures, "--into", url).code == 0
    (pictures / "0002.bmp").unlink()
    answer = call("index", pictures, "--into", url, "--rebuild", "--fast-load", "--json")
    assert answer.json["added"] == 9
    assert sorted(open_ids(url))[2] == "photos/0003.bmp"
    empty = tmp_path / "empty"
    empty.mkdir()
    message, _ = call("index", empty, "--into", url, "--rebuild").error
    assert message == "no image could be indexed, so the old index is kept"
    assert len(open_ids(url)) == 9


def test_the_embedded_engine_is_not_rebuilt_in_place(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match="only Elasticsearch indexes"):
        create_index(str(tmp_path / "x.cbir"), SPEC, rebuild=True)


def create_and_close(url: str, entries: list[Entry]) -> None:
    with closing(create_index(url, SPEC)) as index:
        index.add(entries)
        index.set_failures("a", [Failure("a", "x", "bad")])
        index.refresh()


def open_ids(url: str) -> list[str]:
    with closing(cbir.open_index(url)) as index:
        return list(index.ids())


def near(found: object, right: object) -> None:
    """The same ids and boxes, scores within the tolerance."""
    for mine, theirs in zip(found, right, strict=True):  # type: ignore[call-overload]
        assert [(hit[0], hit[2]) for hit in mine] == [(hit[0], hit[2]) for hit in theirs]
        gaps = [abs(float(a[1]) - float(b[1])) for a, b in zip(mine, theirs, strict=True)]
        assert max(gaps) <= SCORE_TOLERANCE


@pytest.mark.slow
def test_an_encrypted_server_is_trusted_by_its_authority_or_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server(tls=True, heap="512m") as server:
        url, known = server.index_url("safe"), server.address.environment()
        assert url.startswith("elasticsearch+https://")
        authority = known.pop("CBIR_ELASTICSEARCH_CA_FILE")
        for variable, value in known.items():
            monkeypatch.setenv(variable, value)
        assert "is not trusted" in call("info", url).error[0]
        monkeypatch.setenv("CBIR_ELASTICSEARCH_CA_FILE", authority)
        create_and_close(url, sample_entries(5))
        assert call("info", url, "--json").json["count"] == 5
        monkeypatch.delenv("CBIR_ELASTICSEARCH_CA_FILE")
        monkeypatch.setenv("CBIR_ELASTICSEARCH_FINGERPRINT", fingerprint(server.url))
        assert call("info", url, "--json").json["count"] == 5
        monkeypatch.setenv("CBIR_ELASTICSEARCH_FINGERPRINT", "ab" * 32)
        assert "is not trusted" in call("info", url).error[0]
        monkeypatch.setenv("CBIR_ELASTICSEARCH_FINGERPRINT", fingerprint(server.url))
        monkeypatch.setenv("CBIR_ELASTICSEARCH_PASSWORD", "wrong-hunter2")
        answer = call("info", url, "--debug")
        assert "rejects the credentials" in answer.err
        assert "hunter2" not in answer.err


def fingerprint(url: str) -> str:
    place = urlsplit(url)
    assert place.hostname and place.port
    certificate = ssl.get_server_certificate((place.hostname, place.port))
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()
