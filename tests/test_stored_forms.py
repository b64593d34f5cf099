"""Indexes and models that an earlier version stored (tests/fixtures) open unchanged."""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import cbir
from cbir.images.decode import decode
from tests.cli.support_cli import call
from tests.descriptors.support_photos import write_photos
from tests.index.elasticsearch.support_elasticsearch import session_server
from tools.elasticsearch_address import Address

FIXTURES = Path(__file__).parent / "fixtures"
MODELS = {"tiny-bovw": "embedded/model", "tiny-words": "tiny-words", "tiny-cnn": "tiny-cnn"}
ON_SERVER = {"elasticsearch": "tiny-bovw", "elasticsearch-words": "tiny-words"}
SINCE_SOURCES_LACK_VECTORS = (9, 2)


def kept(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text())


def check_answers(place: object, expected: list[dict[str, Any]]) -> None:
    for one in expected:
        where = [word for clause in one["where"] for word in ("--where", clause)]
        asked = ["--in", place, "--id", one["query"], "-k", 5, "--exact", *where, "--json"]
        hits = call("search", *asked).json[0]["hits"]
        ids, scores, boxes = zip(*one["hits"], strict=True)
        assert [(hit["id"], hit["box"]) for hit in hits] == list(zip(ids, boxes, strict=True))
        assert [hit["score"] for hit in hits] == pytest.approx(scores, abs=1e-6)


def unpacked(folder: Path) -> Path:
    with zipfile.ZipFile(FIXTURES / "photos.zip") as packed:
        packed.extractall(folder)
    return folder


def keep_in_store(name: str) -> None:
    fingerprint = kept("models.json")[name]["fingerprint"]
    store = Path(os.environ["CBIR_HOME"]) / "models"
    shutil.copytree(FIXTURES / MODELS[name], store / f"{name}@{fingerprint[:16]}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the embedded index, which may be written to."""
    return Path(shutil.copytree(FIXTURES / "embedded", tmp_path / "photos.cbir"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_its_fingerprint_and_gives_its_vectors(name: str, tmp_path: Path) -> None:
    expected = kept("models.json")[name]
    descriptor = cbir.load_descriptor(str(FIXTURES / MODELS[name]))
    assert descriptor.spec.fingerprint == expected["fingerprint"]
    photos = unpacked(tmp_path / "photos")
    images = [decode(path.read_bytes()) for path in sorted(photos.glob("*/0.png"))]
    cosines = (descriptor.describe(images) * np.array(expected["vectors"])).sum(axis=1)
    # Processors round differently in int8; a byte of a weight or a line of preprocessing is more.
    np.testing.assert_allclose(cosines, 1, atol=1e-3 if name == "tiny-cnn" else 1e-6)


def test_an_embedded_index_opens_without_a_writer(place: Path) -> None:
    files = {path: path.read_bytes() for path in place.rglob("*.*") if path.suffix != ".cache"}
    check_answers(place, kept("embedded.json"))
    assert call("verify", place).code == 0
    info = call("info", place, "--json").json
    assert (info["count"], info["missing"], info["labels"]) == (12, 1, 3)
    assert info["failures"] == [
        {
            "source": "photos",
            "location": "broken.jpg",
            "reason": "not an image: the bytes are of no known image format",
        }
    ]
    assert {path: path.read_bytes() for path in files} == files


def test_an_embedded_index_is_written_to(place: Path, tmp_path: Path) -> None:
    photos = unpacked(tmp_path / "elsewhere")
    report = call("index", photos, "--into", place, "--json").json
    assert (report["added"], report["updated"], report["unchanged"]) == (0, 0, 12)
    more = write_photos(tmp_path / "more", per_colour=1)
    assert call("index", more, "--into", place, "--json").json["added"] == 3
    assert call("info", place, "--json").json["missing"] == 0
    assert call("verify", place).code == 0
    added = [f"more/{path.relative_to(more).as_posix()}" for path in more.rglob("*.png")]
    assert call("remove", place, *added).code == 0
    check_answers(place, kept("embedded.json"))


def test_an_embedded_index_is_copied(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.cbir"
    report = call("copy", place, target, "--json").json
    assert (report["records"], report["copied"], report["exact"]) == (12, 12, True)
    check_answers(target, kept("embedded.json"))
    assert call("copy", target, place, "--json").json["unchanged"] == 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Address:
    return session_server(tmp_path_factory)


@pytest.fixture
def restored(
    request: pytest.FixtureRequest, server: Address, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of a stored index that was put back on a server as it was."""
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    keep_in_store(ON_SERVER[request.param])
    alias = f"{uuid.uuid4().hex[:8]}-{request.param}"  # workers share the server
    yield restore(server, request.param, alias)
    server.request("DELETE", f"/{alias}-000001")


def restore(address: Address, name: str, alias: str) -> str:
    stored, index = kept(f"{name}.json"), f"{alias}-000001"
    settings = stored["settings"]
    (node,) = address.request("GET", "/_nodes/_local?filter_path=nodes.*.version")["nodes"].values()
    if tuple(map(int, node["version"].split(".")[:2])) >= SINCE_SOURCES_LACK_VECTORS:
        settings["mapping.exclude_source_vectors"] = False
    body = {
        "aliases": {alias: {}},
        "settings": {"index": settings},
        "mappings": stored["mappings"],
    }
    address.request("PUT", f"/{index}", body)
    for record_id, document in stored["documents"].items():
        address.request("PUT", f"/{index}/_doc/{quote(record_id, safe='')}", document)
    address.request("POST", f"/{index}/_refresh")
    return address.index_url(alias)


@pytest.mark.elasticsearch
@pytest.mark.parametrize("restored", ON_SERVER, indirect=True)
def test_an_elasticsearch_index_opens_and_is_written_to(restored: str, tmp_path: Path) -> None:
    (name,) = (name for name in ON_SERVER if restored.endswith(f"-{name}"))
    expected = kept(f"{name}.json")["answers"]
    check_answers(restored, expected)
    assert call("verify", restored).code == 0
    info = call("info", restored, "--json").json
    assert (info["count"], info["missing"], info["labels"], info["failed"]) == (12, 1, 3, 1)
    photos = unpacked(tmp_path / "elsewhere")
    report = call("index", photos, "--into", restored, "--json").json
    assert (report["added"], report["updated"], report["unchanged"]) == (0, 0, 12)
    place = tmp_path / "copy.cbir"
    assert call("copy", restored, place, "--json").json["copied"] == 12
    check_answers(place, expected)


@pytest.mark.elasticsearch
@pytest.mark.parametrize("restored", ["elasticsearch"], indirect=True)
def test_both_stored_indexes_are_the_same_one(restored: str, place: Path) -> None:
    with closing(cbir.open_index(place)) as one, closing(cbir.open_index(restored)) as other:
        assert one.spec == other.spec
        assert one.failures() == other.failures()
        for mine, theirs in zip(one.entries(), other.entries(), strict=True):
            assert (mine.record.id, mine.thumbnail) == (theirs.record.id, theirs.thumbnail)
            np.testing.assert_array_equal(mine.vectors, theirs.vectors)
