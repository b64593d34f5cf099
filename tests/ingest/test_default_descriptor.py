"""What describes pictures of one's own: a network with the extra `photos`, `classic` without."""

from __future__ import annotations

import importlib.util
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

import cbir
from cbir.descriptors.models import keep_model
from cbir.descriptors.packaged import packaged_installed
from cbir.errors import how_to_install
from tests.cli.support_cli import run
from tests.descriptors.support_networks import DIM, network
from tests.descriptors.support_photos import write_photos

NOTE = f"using classic; for much better results: {how_to_install('photos')}"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", per_colour=1)


@pytest.fixture(autouse=True)
def real_default(classic_by_default: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbir.ingest.indexing.packaged_installed", packaged_installed)


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if "efficientnet" in name else find(name, package),
    )


def described_by(place: Path) -> str:
    with closing(cbir.Searcher.open(place)) as searcher:
        hits = searcher.search(cbir.IndexedId("photos/red/0.png"), k=1)
        assert len(hits) == 1
        return searcher.descriptor.spec.name


def test_with_the_extra_it_is_a_network(photos: Path, tmp_path: Path) -> None:
    if not packaged_installed("efficientnet-lite2-int8"):
        pytest.skip("needs the `photos` extra")
    place = tmp_path / "own.cbir"
    made = run("index", photos, "--into", place)
    assert made.code == 0, made.err
    (line,) = made.err.splitlines()
    assert line.startswith("built efficientnet-lite2-int8 from its package's weights; saved in ")
    assert described_by(place) == "efficientnet-lite2-int8+classic:0.25"
    assert run("index", photos, "--into", tmp_path / "second.cbir").err == ""


@pytest.mark.usefixtures("without_extra")
def test_without_it_classic_and_one_line_says_what_is_better(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "own.cbir"
    cbir.index_images([photos, str(write_photos(tmp_path / "more"))], place)
    assert caplog.messages == [NOTE]
    assert described_by(place) == "classic"
    cbir.index_images([photos], place)
    assert caplog.messages == [NOTE]


@pytest.mark.usefixtures("without_extra")
def test_who_names_a_descriptor_is_told_nothing(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cbir.index_images([photos], tmp_path / "own.cbir", descriptor="classic")
    assert caplog.messages == []


def kept(name: str, source: str | None, licence: str = "mit", age: int = 0) -> str:
    """A model in the store, which came from `source` `age` seconds ago; its name in messages."""
    card = {
        "name": name,
        "classes": [],
        "trained_on": "nothing",
        "licence": licence,
        "training": {"images": "none/"} | ({"source": source} if source else {}),
        "quality": {},
        "preprocessing": {"height": 16, "width": 16},
        "dim": DIM,
    }
    folder = keep_model({"model.onnx": network(), "model.json": json.dumps(card).encode()})
    made = folder.stat().st_mtime - age
    os.utime(folder, (made, made))
    return folder.name[: len(name) + 9]


@pytest.mark.parametrize("extra", [True, False])
def test_the_model_pulled_last_comes_first(
    extra: bool,
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnx", reason="needs the `photos` extra")
    monkeypatch.setattr("cbir.ingest.indexing.packaged_installed", lambda name: extra)
    kept("older", "hf:some/older@0", age=60)
    named = kept("pulled", "hf:some/pulled@0", licence="Apache-2.0", age=30)
    kept("restricted", "hf:some/restricted@0", licence="cc-by-nc-4.0", age=20)
    kept("unknown", "hf:some/unknown@0", licence="unknown", age=10)
    kept("added", "own.onnx")
    kept("trained", None)
    place = tmp_path / "own.cbir"
    cbir.index_images([photos], place)
    assert caplog.messages == [f"using {named}, the model pulled last from the hub"]
    assert described_by(place) == "pulled"


@pytest.mark.usefixtures("without_extra")
def test_added_and_trained_models_are_no_default(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnx", reason="needs the `photos` extra")
    kept("added", "own.onnx")
    kept("trained", None)
    kept("restricted", "hf:some/restricted@0", licence="other")
    cbir.index_images([photos], tmp_path / "own.cbir")
    assert caplog.messages == [NOTE]


def test_an_existing_index_keeps_its_descriptor(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "own.cbir"
    cbir.index_images([photos], place, descriptor="cifar10-cnn")
    report = cbir.index_images([str(write_photos(tmp_path / "more", per_colour=1))], place)
    assert (report.added, described_by(place), caplog.messages) == (3, "cifar10-cnn", [])


@pytest.mark.usefixtures("without_extra")
def test_a_known_data_set_names_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("sklearn", reason="needs the `digits` extra")
    place = tmp_path / "digits.cbir"
    cbir.index_images(["digits:test"], place)
    assert cbir.Searcher.open(place).descriptor.spec.name == "classic"
    assert caplog.messages == []
