"""Composed indexes equal those that were indexed with the composed descriptor."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.descriptors.composed import ComposedDescriptor
from cbir.descriptors.models import keep_model
from cbir.errors import CbirError
from cbir.index.base import Detail, Entry, SourceRun, Tombstone, difference
from cbir.index.open import create_index, open_index
from cbir.ingest.compose import CHANGED, LACKING, OTHER_PARTS, compose_indexes
from cbir.ingest.copy import copy_index
from cbir.ingest.indexing import index_images
from cbir.testing import sample_entries
from cbir.types import DescriptorSpec, Failure
from tests.cli.support_cli import call
from tests.descriptors.support_bovw import small_model
from tests.descriptors.support_composed import MeanColour, Spread
from tests.descriptors.support_photos import write_photos
from tests.index.elasticsearch.support_elasticsearch import session_server
from tests.index.embedded.support_index import OTHER_SPEC, SPEC
from tools.elasticsearch_address import Address

COUNT = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.elasticsearch)])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Where indexes may be made: add a name to it."""
    if request.param == "embedded":
        yield f"{tmp_path}/composed-"
        return
    server, prefix = request.getfixturevalue("server"), f"composed-{uuid.uuid4().hex[:12]}-"
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    yield server.index_url(prefix)
    for index in server.request("GET", f"/{prefix}*"):
        server.request("DELETE", f"/{index}")


def changed(entry: Entry, **facts: object) -> Entry:
    return replace(entry, record=replace(entry.record, **facts))  # type: ignore[arg-type]


def fill(
    url: str | Path, spec: DescriptorSpec, entries: list[Entry], failures: tuple[str, ...] = ()
) -> str:
    """An index of `entries`, whose vectors are replaced by random ones of the spec."""
    draw = np.random.default_rng(len(spec.name))
    with closing(create_index(str(url), spec)) as index:
        index.register_source("a", "/photos/a")
        for entry in entries:
            rows = draw.normal(size=(len(entry.boxes), spec.dim)).astype(np.float32)
            unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            index.add([replace(entry, vectors=unit.astype(np.float32))])
        index.set_failures(
            "a", [Failure("a", location, f"of {spec.name}") for location in failures]
        )
        index.refresh()
    return str(url)


def pair(
    tmp_path: Path, one: list[Entry] | None = None, two: list[Entry] | None = None
) -> list[str]:
    same = sample_entries(COUNT)
    return [
        fill(tmp_path / "one.cbir", SPEC, same if one is None else one),
        fill(tmp_path / "two.cbir", OTHER_SPEC, same if two is None else two),
    ]


def listed(url: str) -> dict[str, Entry]:
    with closing(open_index(url)) as index:
        return {entry.record.id: entry for entry in index.entries()}


@pytest.mark.parametrize("regions", [1, 5])
def test_it_equals_an_index_of_the_composed_descriptor(
    regions: int, tmp_path: Path, place: str
) -> None:
    """Records, thumbnails, sources, and scores within 2e-6, by an index of either engine."""
    photos = write_photos(tmp_path / "photos")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    keep_model(small_model())
    options = {"label_from_folder": True, "regions": regions}
    names = ["words", "cifar10-cnn", "cifar10-bovw"]
    parts = [f"{place}{number}" for number in range(3)]
    for url, name in zip(parts, names, strict=True):
        index_images([photos], url, descriptor=name, **options)  # type: ignore[arg-type]
    target = f"{place}all"
    report = compose_indexes(parts, target, [0.5, 0.3, 0.2])
    name = "words+cifar10-cnn:0.3+cifar10-bovw:0.2"
    assert (report.records, report.added, report.unchanged) == (12, 12, 0)
    assert (report.left_out, report.conflicts, report.descriptor) == ({}, 0, name)
    described = str(tmp_path / "described.cbir")
    index_images([photos], described, descriptor=name, **options)  # type: ignore[arg-type]
    with closing(open_index(described)) as wanted, closing(open_index(target)) as found:
        assert found.spec == wanted.spec
        assert found.sources() == wanted.sources()
        assert found.failures() == wanted.failures() and len(found.failures()) == 1
        queries = np.concatenate([wanted.vectors(record_id) for record_id in wanted.ids()])
        answers = [index.search(queries, 12, exact=True) for index in (wanted, found)]
        for mine, theirs in zip(*answers, strict=True):
            assert difference(mine, theirs) == ""
    mine, theirs = listed(described), listed(target)
    assert list(mine) == list(theirs)
    for record_id, entry in mine.items():
        assert theirs[record_id].record == entry.record
        assert theirs[record_id].thumbnail == entry.thumbnail
        assert theirs[record_id].boxes == entry.boxes
    query = photos / "red" / "0.png"
    hits = call("search", query, "--in", target, "--json").json[0]["hits"]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-6)
    copied = str(tmp_path / "copied.cbir")
    copy_index(target, copied)
    assert call("search", query, "--in", copied, "--json").json[0]["hits"][0]["id"] == hits[0]["id"]
    again = compose_indexes(parts, target, [0.5, 0.3, 0.2])
    assert (again.added, again.unchanged) == (0, 12)


@given(share=st.integers(1, 99), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_scores_are_the_weighted_sum_of_the_scores(
    share: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("indexes")
    sources = pair(folder, *[sample_entries(COUNT, seed=seed, parts=3)] * 2)
    weight = share / 100
    compose_indexes(sources, folder / "all.cbir", [1 - weight, weight])
    of = [listed(url) for url in (*sources, str(folder / "all.cbir"))]
    rows = [np.concatenate([entry.vectors for entry in each.values()]) for each in of]
    one, two, composed = (each.astype(np.float64) @ each.T.astype(np.float64) for each in rows)
    np.testing.assert_allclose(composed, (1 - weight) * one + weight * two, atol=2e-6)


def test_images_that_differ_are_left_out_and_counted(tmp_path: Path) -> None:
    one, three = sample_entries(COUNT), sample_entries(COUNT, parts=3)
    two = [
        changed(one[0], content_hash="1" * 64),
        *one[2:4],
        three[4],
        *sample_entries(1, prefix="a/more"),
    ]
    sources = pair(tmp_path, one, two)
    said = call("compose", *sources, "--into", tmp_path / "all.cbir", "--weights", "0.75,0.25")
    assert said.code == 0
    for line in (
        f"3 images left out, {LACKING}: for example 'a/0001'",
        f"1 image left out, {CHANGED}: for example 'a/0000'",
        f"1 image left out, {OTHER_PARTS}: for example 'a/0004'",
        "2 images added, 0 already there",
    ):
        assert line in said.out
    assert list(listed(str(tmp_path / "all.cbir"))) == ["a/0002", "a/0003"]


def test_other_boxes_are_other_regions(tmp_path: Path) -> None:
    one = sample_entries(2, parts=3)
    two = [one[0], replace(one[1], boxes=[one[1].boxes[n] for n in (0, 2, 1)])]
    report = compose_indexes(pair(tmp_path, one, two), tmp_path / "all.cbir")
    assert (report.records, dict(report.left_out)) == (1, {OTHER_PARTS: 1})
    nothing = pair(tmp_path / "again", one[1:], two[1:])
    with pytest.raises(CbirError, match=f"'a/0001' is {OTHER_PARTS}"):
        compose_indexes(nothing, tmp_path / "none.cbir")


def test_labels_and_metadata_come_from_the_first_that_has_them(tmp_path: Path) -> None:
    entries = sample_entries(3)
    one = [
        changed(entries[0], label="cat", metadata={"year": 1999}),
        changed(entries[1], label=None, metadata={}),
        changed(entries[2], label="cat", metadata={}),
    ]
    two = [
        changed(entries[0], label="dog", metadata={"year": 2001, "shop": "s1"}),
        changed(entries[1], label="dog", metadata={"year": 5}),
        changed(entries[2], label=None, metadata={}),
    ]
    sources, target = pair(tmp_path, one, two), tmp_path / "all.cbir"
    said = call("compose", *sources, "--into", target)
    assert (
        "2 conflicts; the first index with a value counts: "
        "for example the label of 'a/0000': 'cat' and 'dog'"
    ) in said.out
    known = [(e.record.label, dict(e.record.metadata)) for e in listed(str(target)).values()]
    assert known == [("cat", {"year": 1999, "shop": "s1"}), ("dog", {"year": 5}), ("cat", {})]
    with closing(open_index(str(target), write=True)) as index:
        index.set_details({"a/0002": Detail("cat", {"price": 2.5})})
    report = call("compose", *sources, "--into", target, "--json").json
    assert (report["added"], report["unchanged"]) == (0, 3)
    assert listed(str(target))["a/0002"].record.metadata == {"price": 2.5}


def test_failures_and_sources_go_along(tmp_path: Path) -> None:
    sources = [
        fill(tmp_path / "one.cbir", SPEC, sample_entries(COUNT), ("x", "y")),
        fill(tmp_path / "two.cbir", OTHER_SPEC, sample_entries(COUNT), ("y", "z")),
    ]
    with closing(open_index(sources[1], write=True)) as index:
        index.move_source("a", "/elsewhere/a")
        index.set_run("a", SourceRun(17, finished=True))
        index.bury([Tombstone("a/gone", "a", "gone", "0" * 64, 1000, 17, "7-1", 18)])
    with closing(open_index(sources[0], write=True)) as index:
        index.set_run("a", SourceRun(16, finished=False))
        index.add([changed(next(index.entries()), decoder=0)])
    report = compose_indexes(sources, tmp_path / "all.cbir")
    assert report.conflicts == 1
    assert report.conflict_example == "location of source 'a': '/photos/a' and '/elsewhere/a'"
    with closing(open_index(str(tmp_path / "all.cbir"))) as index:
        assert index.sources() == {"a": "/photos/a"}
        said = sorted((failure.location, failure.reason) for failure in index.failures())
        assert index.runs() == {"a": SourceRun(16, finished=False)}
        assert list(index.tombstones()) == ["a/gone"]
        assert [entry.record.decoder for entry in index.entries()] == [0] + [1] * (COUNT - 1)
    assert said == [("x", "of made-up"), ("y", "of made-up"), ("z", "of other")]


def test_an_interrupted_run_resumes_and_a_later_one_adds_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.ingest.copy.AT_ONCE", 2)
    sources, target = pair(tmp_path), tmp_path / "all.cbir"

    def stop(done: int, total: int | None) -> None:
        assert total == COUNT
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose_indexes(sources, target, on_done=stop)
    report = compose_indexes(sources, target)
    assert (report.added, report.unchanged, report.records) == (2, 4, COUNT)
    more = sample_entries(1, prefix="a/more")
    for url, spec in zip(sources, (SPEC, OTHER_SPEC), strict=True):
        fill(url, spec, more)
    report = compose_indexes(sources, target)
    assert (report.added, report.unchanged, report.records) == (1, COUNT, COUNT + 1)
    assert open_and_verify(target) == []


def open_and_verify(target: Path) -> list[str]:
    with closing(open_index(str(target))) as index:
        return index.verify()


def test_a_composed_index_is_composed_further_as_its_parts(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=1)
    for name in ("cifar10-cnn", "cifar10-bovw", "classic"):
        index_images([photos], tmp_path / name, descriptor=name)
    compose_indexes([tmp_path / n for n in ("cifar10-cnn", "cifar10-bovw")], tmp_path / "two")
    report = compose_indexes([tmp_path / "two", tmp_path / "classic"], tmp_path / "all", [0.4, 0.6])
    name = "cifar10-cnn+cifar10-bovw:0.2+classic:0.6"
    assert report.descriptor == name
    index_images([photos], tmp_path / "described", descriptor=name)
    found, wanted = (listed(str(tmp_path / place)) for place in ("all", "described"))
    for record_id, entry in wanted.items():
        np.testing.assert_allclose(found[record_id].vectors, entry.vectors, atol=1e-6)
    with pytest.raises(CbirError, match="twice"):
        compose_indexes([tmp_path / "two", tmp_path / "cifar10-cnn"], tmp_path / "wrong")


def test_descriptors_that_are_no_models_are_given_at_the_search(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=1)
    one, two, target = (tmp_path / f"{name}.cbir" for name in ("one", "two", "all"))
    index_images([photos], one, descriptor=MeanColour())
    index_images([photos], two, descriptor=Spread())
    compose_indexes([one, two], target)
    query = photos / "red" / "0.png"
    message, hint = call("search", query, "--in", target).error
    assert "of which 'mean-colour' is not installed" in message
    assert hint == "name it: --descriptor MODULE:ATTRIBUTE+spread:0.5"
    named = "tests.descriptors.support_composed"
    descriptor = f"{named}:MeanColour+{named}:Spread:0.5"
    said = call("search", query, "--in", target, "--descriptor", descriptor, "--json")
    assert said.json[0]["hits"][0]["id"] == "photos/red/0.png"
    index_images([photos], tmp_path / "three.cbir", descriptor="cifar10-cnn")
    with pytest.raises(CbirError, match="is not installed"):
        compose_indexes([target, tmp_path / "three.cbir"], tmp_path / "no.cbir")


def test_wrong_input_is_one_line_and_a_cure(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    other = fill(tmp_path / "other.cbir", OTHER_SPEC, sample_entries(COUNT, prefix="a/b"))
    into = tmp_path / "all.cbir"

    def error(*arguments: object, into: object = into) -> str:
        return ": ".join(call("compose", *arguments, "--into", into).error)

    assert "1 index to compose" in error(one) and "name two" in error(one)
    assert f"no index at {tmp_path}/none" in error(one, f"{tmp_path}/none")
    assert "have no image in common: 'a/0000' is not in every index" in error(one, other)
    assert "made-up@55555555 is in 'made-up+made-up:0.5' twice" in error(one, one)
    assert "is one of the indexes to compose" in error(one, two, into=f"{tmp_path}/./two.cbir")
    assert "3 weights for 2 indexes" in error(one, two, "--weights", "0.2,0.3,0.5")
    for wrong in ("0.5,0.6", "1,0", "-0.5,1.5", "nan,0.5"):
        assert "give positive ones that add up to 1" in error(one, two, f"--weights={wrong}")
    said = call("compose", one, two, "--into", into, "--weights", "much,0.5")
    assert said.code == 2 and "'much,0.5' is not a list of numbers" in said.err
    assert call("compose", one, two).code == 2
    assert not into.exists()
    fill(into, SPEC, sample_entries(1))
    refused = error(one, two)
    assert "was built with made-up@55555555 (8-d); you gave made-up+other:0.5@" in refused
    assert refused.endswith("or choose a new place")
    parted = fill(tmp_path / "parted.cbir", OTHER_SPEC, sample_entries(1, parts=2))
    said = error(one, parted)
    assert "'a/0000' is described with other regions" in said and "--regions" in said
    empty = fill(tmp_path / "empty.cbir", SPEC, [])
    assert "have no image in common" in error(empty, two)
    parts = (
        fill(tmp_path / "a", SPEC, sample_entries(2)),
        fill(tmp_path / "b", OTHER_SPEC, sample_entries(2)),
    )
    compose_indexes(parts, tmp_path / "ab")
    with closing(open_index(str(tmp_path / "a"), write=True)) as index:
        index.remove(["a/0001"])
    assert "holds 1 record that" in error(*parts, into=tmp_path / "ab")


def test_indexes_that_change_meanwhile_are_noticed(tmp_path: Path) -> None:
    sources = pair(tmp_path)

    def change(done: int, total: int | None) -> None:
        if done == 0:
            with closing(open_index(sources[1], write=True)) as index:
                index.remove(["a/0003"])

    with pytest.raises(CbirError, match="has changed in the meantime"):
        compose_indexes(sources, tmp_path / "all.cbir", on_done=change)


def test_the_weights_of_an_index_are_those_of_the_descriptor(tmp_path: Path) -> None:
    class Named:
        def __init__(self, spec: DescriptorSpec) -> None:
            self.spec = spec

        def describe(self, images: object) -> object:
            raise NotImplementedError

    sources = pair(tmp_path)
    compose_indexes(sources, tmp_path / "all.cbir", [2 / 3, 1 / 3])
    parts = [Named(SPEC), Named(OTHER_SPEC)]
    with closing(open_index(str(tmp_path / "all.cbir"))) as index:
        wanted = ComposedDescriptor(parts, [2 / 3, 1 / 3])  # type: ignore[arg-type]
        assert index.spec == wanted.spec
        assert index.spec.name == "made-up+other:0.333333"
