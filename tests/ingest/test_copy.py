"""Copying onto an index that has records already: fields merge, and conflicts are decided."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cbir.errors import CbirError
from cbir.index.base import Entry, SourceRun, Tombstone
from cbir.index.open import create_index, open_index
from cbir.ingest.copy import copy_index
from cbir.testing import sample_entries
from cbir.types import Failure, ImageRecord, MetadataValue
from tests.cli.support_cli import call
from tests.index.elasticsearch.support_elasticsearch import session_server
from tests.index.embedded.support_index import SPEC
from tools.elasticsearch_address import Address

COUNT = 6
Known = tuple[str | None, Mapping[str, MetadataValue]]
"""Label and metadata of a record."""


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(tmp_path / "source.cbir")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.elasticsearch)])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    if request.param == "embedded":
        yield str(tmp_path / "target.cbir")
        return
    server, name = request.getfixturevalue("server"), f"copied-{uuid.uuid4().hex[:12]}"
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    yield server.index_url(name)
    for index in server.request("GET", f"/{name}*"):
        server.request("DELETE", f"/{index}")


def fill(
    url: str,
    known: Sequence[Known],
    *,
    uri: str = "/photos/a",
    failures: Sequence[str] = (),
    **facts: Any,
) -> None:
    """An index of COUNT records that know this, one after the other, again from the first."""
    entries = [
        replace(entry, record=replace(entry.record, label=label, metadata=metadata, **facts))
        for entry, (label, metadata) in zip(
            sample_entries(COUNT), (known * COUNT)[:COUNT], strict=True
        )
    ]
    with closing(create_index(url, SPEC)) as index:
        index.register_source("a", uri)
        index.add(entries)
        index.set_failures("a", [Failure("a", location, "broken") for location in failures])
        index.refresh()


def refresh(url: str) -> None:
    with closing(open_index(url, write=True)) as index:
        index.refresh()


def listed(url: str) -> list[ImageRecord]:
    with closing(open_index(url)) as index:
        return [entry.record for entry in index.entries()]


def known(url: str) -> list[Known]:
    return [(record.label, dict(record.metadata)) for record in listed(url)]


def failed(url: str) -> list[str]:
    with closing(open_index(url)) as index:
        return sorted(failure.location for failure in index.failures())


def test_a_copy_that_knows_less_takes_nothing_away(source: str, target: str) -> None:
    fill(source, [(None, {})])
    fill(target, [("cat", {"year": 1999}), ("dog", {})], failures=["broken.jpg", "0001"])
    before = listed(target)
    said = call("copy", source, target)
    assert f"0 images copied, {COUNT} already there" in said.out
    assert "conflict" not in said.out
    assert listed(target) == before
    assert failed(target) == ["broken.jpg"]  # 0001 is a record of both: its failure is over


def test_a_failed_image_that_is_still_a_record_stays_failed_in_the_copy(
    source: str, target: str
) -> None:
    fill(source, [("cat", {})], failures=["broken.jpg", "0001"])  # 0001 broke after it was indexed
    copy_index(source, target)
    assert failed(target) == failed(source) == ["0001", "broken.jpg"]


def test_fields_of_both_are_merged(source: str, target: str) -> None:
    fill(source, [("cat", {"year": 1999}), (None, {"shop": "s1"})], failures=["x", "y"])
    fill(target, [(None, {"price": 2.5}), ("dog", {"shop": "s1"})], failures=["y", "z"])
    report = copy_index(source, target)
    assert (report.copied, report.unchanged, report.conflicts) == (COUNT / 2, COUNT / 2, 0)
    merged = [("cat", {"year": 1999, "price": 2.5}), ("dog", {"shop": "s1"})]
    assert known(target) == merged * (COUNT // 2)
    assert failed(target) == ["x", "y", "z"]
    again = copy_index(source, target)
    assert (again.copied, again.unchanged, again.records) == (0, COUNT, COUNT)


CONFLICTING: tuple[list[Known], list[Known]] = (
    [("cat", {"year": 1999, "shop": "s1"}), ("dog", {"year": 2001})],
    [("dog", {"year": 2005, "price": 2.5}), ("dog", {})],
)


def test_conflicts_are_refused_before_anything_is_written(source: str, target: str) -> None:
    fill(source, CONFLICTING[0], uri="/elsewhere", failures=["broken.jpg"])
    fill(target, CONFLICTING[1])
    before = listed(target)
    message, hint = call("copy", source, target).error
    assert message == (
        f"{source} and {target} disagree on 7 values, "
        "for example the location of source 'a': '/elsewhere' and '/photos/a'"
    )
    assert hint == f"--overwrite takes the values of {source}, --keep those of {target}"
    assert listed(target) == before
    assert failed(target) == []
    with closing(open_index(target)) as index:
        assert index.sources() == {"a": "/photos/a"}
    with pytest.raises(CbirError, match="disagree on 7 values"):
        copy_index(source, target)


@pytest.mark.parametrize(
    ("option", "uri", "first"),
    [
        ("--overwrite", "/elsewhere", ("cat", {"year": 1999, "shop": "s1", "price": 2.5})),
        ("--keep", "/photos/a", ("dog", {"year": 2005, "shop": "s1", "price": 2.5})),
    ],
)
def test_an_option_decides_conflicts(
    source: str, target: str, option: str, uri: str, first: Known
) -> None:
    fill(source, CONFLICTING[0], uri="/elsewhere")
    fill(target, CONFLICTING[1])
    report = call("copy", source, target, option, "--json").json
    assert (report["conflicts"], report["copied"], report["unchanged"]) == (7, COUNT, 0)
    assert known(target) == [first, ("dog", {"year": 2001})] * (COUNT // 2)
    with closing(open_index(target)) as index:
        assert index.sources() == {"a": uri}
    again = call("copy", source, target, option)
    assert f"0 images copied, {COUNT} already there" in again.out
    conflicts = f"7 conflicts: {target} has the values of {target}"
    assert (conflicts in again.out) == (option == "--keep")


def test_overwriting_says_how_many_values_it_replaced(source: str, target: str) -> None:
    fill(source, CONFLICTING[0])
    fill(target, CONFLICTING[1])
    said = call("copy", source, target, "--overwrite")
    assert f"6 conflicts: {target} has the values of {source}" in said.out
    assert call("copy", source, target, "--keep", "--overwrite").code == 2


def test_a_picture_that_changed_is_copied_and_keeps_what_is_known(source: str, target: str) -> None:
    fill(source, [(None, {"shop": "s1"})], content_hash="1" * 64, width=800)
    fill(target, [("cat", {"year": 1999})])
    assert copy_index(source, target).copied == COUNT
    record = listed(target)[0]
    assert (record.content_hash, record.width) == ("1" * 64, 800)
    assert (record.label, record.metadata) == ("cat", {"year": 1999, "shop": "s1"})


def test_a_copy_resumes_and_merges_what_is_left(
    source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.ingest.copy.AT_ONCE", 2)
    fill(source, [("cat", {"year": 1999})])
    fill(target, [(None, {"price": 2.5})])

    def stop(done: int, total: int | None) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_index(source, target, on_done=stop)
    refresh(target)
    report = copy_index(source, target)
    assert (report.copied, report.unchanged) == (2, 4)
    assert known(target) == [("cat", {"year": 1999, "price": 2.5})] * COUNT


def test_records_of_a_target_alone_are_not_lost(source: str, target: str) -> None:
    fill(source, [(None, {})])
    fill(target, [("cat", {})])
    with closing(open_index(target, write=True)) as index:
        other: list[Entry] = sample_entries(1, prefix="a/more")
        index.add(other)
        index.refresh()
    before = known(target)
    for options in ([], ["--overwrite"], ["--keep"]):
        assert "holds 1 record that" in call("copy", source, target, *options).error[0]
    assert known(target) == before
    with pytest.raises(CbirError):
        copy_index(source, target)


def test_runs_tombstones_and_stamps_of_files_go_along(source: str, target: str) -> None:
    fill(source, [("cat", {})] * COUNT)
    buried = [
        Tombstone(f"a/{name}", "a", name, "0" * 64, 1000, 17, "7-1", 1_700_000_000)
        for name in ("0002", "gone")
    ]
    with closing(open_index(source, write=True)) as index:
        index.set_run("a", SourceRun(1_700_000_000, finished=True))
        index.bury(buried)
    assert copy_index(source, target).copied == COUNT - 1
    with closing(open_index(target)) as index:
        assert index.runs() == {"a": SourceRun(1_700_000_000, finished=True)}
        assert list(index.tombstones().values()) == buried
    assert listed(target) == listed(source)
    assert {(record.stamp, record.decoder) for record in listed(target)} == {("7-6", 1)}


def test_an_index_is_not_copied_onto_itself(source: str, tmp_path: Path) -> None:
    create_index(source, SPEC).close()
    (tmp_path / "link.cbir").symlink_to(source)
    for target in (source, f"{tmp_path}/./source.cbir", str(tmp_path / "link.cbir")):
        with pytest.raises(CbirError, match="is the index to copy"):
            copy_index(source, target)
