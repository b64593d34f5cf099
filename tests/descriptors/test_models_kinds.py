"""Models of both kinds in the store, beside an index, on the command line and in evaluation."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbir.descriptors.bovw import ARRAYS_FILE, BovwDescriptor, model_files
from cbir.descriptors.cards import CARD_FILE, Model
from cbir.descriptors.models import (
    SHIPPED,
    card_of,
    damaged_models,
    descriptor_of,
    files_of,
    keep_model,
    load_descriptor,
    model_of,
    models,
    newer_model,
    read_files,
)
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.errors import CbirError
from cbir.images.decode import load_pixels
from cbir.types import DescriptorSpec
from tests.cli.support_cli import call
from tests.descriptors.support_bovw import BLOCKS, arrays_for, card, small_model
from tests.descriptors.support_photos import COLOURS, write_photos
from tests.support_files import contents


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def test_the_shipped_networks_fingerprint_is_what_it_was() -> None:
    begins = {
        name: load_descriptor(name).spec.fingerprint[:16]
        for name in ("cifar10-cnn", "cifar10-cnn:embedding")
    }
    assert begins == {
        "cifar10-cnn": "6149e3b8a9232997",
        "cifar10-cnn:embedding": "0b65dcc02c048481",
    }


def test_a_model_is_of_the_kind_that_its_card_says() -> None:
    network = load_descriptor("cifar10-cnn")
    assert isinstance(network, OnnxDescriptor) and isinstance(network, Model)
    files = contents(network.files)
    said = {**json.loads(files[CARD_FILE]), "kind": "onnx"}
    assert model_of({**files, CARD_FILE: json.dumps(said).encode()}).spec == network.spec
    words = model_of(small_model())
    assert isinstance(words, BovwDescriptor) and isinstance(words, Model)
    for unknown in ("tree", ["onnx"], None):
        other = json.dumps({**said, "kind": unknown}).encode()
        with pytest.raises(CbirError, match="unknown model kind"):
            model_of({**files, CARD_FILE: other})
    with pytest.raises(CbirError, match=r"the model lacks model\.npz"):
        model_of({CARD_FILE: small_model()[CARD_FILE]})
    with pytest.raises(CbirError, match=r"the model lacks model\.json"):
        model_of({})


def test_the_store_keeps_every_version_of_both_kinds() -> None:
    versions = [small_model(seed=seed) for seed in (0, 1)]
    folders = [keep_model(files) for files in versions]
    for files, folder in zip(versions, folders, strict=True):
        spec = model_of(files).spec
        assert folder.name == f"words@{spec.fingerprint[:16]}"
        assert contents(read_files(folder)) == files
        assert descriptor_of(spec, {}).spec == spec
        assert descriptor_of(spec, files).spec == spec
        assert load_descriptor(folder.name).spec == spec
        assert load_descriptor(f"words@{spec.fingerprint[:8]}").spec == spec
        assert load_descriptor(str(folder)).spec == spec
    assert [m.descriptor.card.kind for m in models() if m.origin == "store"] == ["bovw", "bovw"]
    assert {m.descriptor.spec.name for m in models("words")} == {"words"}


def test_both_variants_of_a_model_with_a_head_are_found_again() -> None:
    files = small_model(head=True)
    keep_model(files)
    fused, embedding = load_descriptor("words"), load_descriptor("words:embedding")
    assert embedding.spec.name == "words:embedding"
    assert (fused.spec.dim, embedding.spec.dim) == (15, 12)
    for descriptor in (fused, embedding):
        assert descriptor_of(descriptor.spec, {}).spec == descriptor.spec
        assert descriptor_of(descriptor.spec, files).spec == descriptor.spec
        assert newer_model(descriptor.spec) is None
    assert contents(files_of(fused)) == contents(files_of(embedding)) == files
    shown = card_of(fused)
    assert shown is not None and shown.training_prefix == "photos/"


def test_a_model_that_lost_its_head_is_a_newer_one_of_both_variants() -> None:
    with_head = small_model(head=True)
    keep_model(small_model())
    newest = model_of(small_model()).spec
    for variant in ("fused", "embedding"):
        old = model_of(with_head, variant).spec
        newer = newer_model(old)
        assert newer is not None and newer.fingerprint == newest.fingerprint
        with pytest.raises(CbirError, match="but only words@"):
            descriptor_of(old, {})
    assert load_descriptor("words:embedding").spec == newest


def test_a_damaged_model_costs_only_itself() -> None:
    folder = keep_model(small_model())
    data = (folder / ARRAYS_FILE).read_bytes()
    for content, why in ((data[:-30], "model.npz is damaged"), (None, "lacks model.npz")):
        (folder / ARRAYS_FILE).unlink(missing_ok=True)
        if content is not None:
            (folder / ARRAYS_FILE).write_bytes(content)
        assert [m.origin for m in models()] == ["shipped"] * len(SHIPPED)
        ((place, reason),) = damaged_models().items()
        assert place == str(folder) and why in reason and "\n" not in reason
        with pytest.raises(CbirError, match=why):
            load_descriptor(str(folder))


def test_of_models_of_other_names_only_the_card_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_model(small_model("mine"))
    keep_model(small_model("other"))
    read: list[str] = []
    original = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *rest, **more: read.append(str(path)) or original(path, *rest, **more),
    )
    load_descriptor("cifar10-cnn")
    load_descriptor("mine")
    assert newer_model(DescriptorSpec("mine", 12, "00" * 32)) is not None
    arrays = [path for path in read if path.endswith(ARRAYS_FILE)]
    assert arrays and all("mine@" in path for path in arrays)
    with pytest.raises(CbirError) as caught:
        load_descriptor("othr")
    assert caught.value.hint == "did you mean 'other'?"


def test_shipping_a_model_takes_a_folder_and_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cbir.descriptors.models as module

    shipped = tmp_path / "shipped" / "words"
    shipped.mkdir(parents=True)
    for name, data in small_model().items():
        (shipped / name).write_bytes(data)
    for name in SHIPPED:
        (tmp_path / "shipped" / name).symlink_to(Path(module.__file__).parent / "shipped" / name)
    monkeypatch.setattr(module, "SHIPPED", (*SHIPPED, "words"))
    monkeypatch.setattr(module, "SHIPPED_FOLDER", tmp_path / "shipped")
    assert [m.descriptor.spec.name for m in models()] == [*SHIPPED, "words"]
    assert load_descriptor("words").spec == model_of(small_model()).spec


def test_an_index_keeps_its_model_and_is_searched_without_the_store(
    photos: Path, tmp_path: Path
) -> None:
    folder = keep_model(small_model())
    place = tmp_path / "photos.cbir"
    made = call("index", photos, "--into", place, "--descriptor", "words", "--label-from-folder")
    assert made.code == 0
    for name in (ARRAYS_FILE, CARD_FILE):
        assert (place / "model" / name).read_bytes() == (folder / name).read_bytes()
        (folder / name).unlink()
    query = photos / "red" / "0.png"
    hits = call("search", query, "--in", place, "-k", 3, "--json").json[0]["hits"]
    assert hits[0]["id"] == "photos/red/0.png"
    assert hits[0]["score"] == pytest.approx(1, abs=1e-6)
    copied = call("copy", place, tmp_path / "copy.cbir")
    assert copied.code == 0
    assert call("search", query, "--in", tmp_path / "copy.cbir", "-k", 3, "--json").code == 0
    (place / "model" / ARRAYS_FILE).write_bytes(b"x")
    assert call("search", query, "--in", place).error[0].startswith("model.npz is damaged")


def test_a_newer_version_is_told(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "photos.cbir"
    keep_model(small_model())
    assert call("index", photos, "--into", place, "--descriptor", "words").code == 0
    newest = keep_model(small_model(seed=1))
    later = newest.parent / next(f.name for f in newest.parent.iterdir() if f != newest)
    os.utime(later, (1, 1))
    assert newest.name[:14] in call("info", place).out


def test_models_of_both_kinds_are_listed_and_shown() -> None:
    keep_model(small_model(head=True))
    listed = {model["name"]: model for model in call("models", "list", "--json").json}
    assert {name: model["kind"] for name, model in listed.items()} == {
        "cifar10-cnn": "onnx",
        "cifar10-cnn-2": "onnx",
        "cifar10-cnn-large": "onnx",
        "cifar10-cnn-large-2": "onnx",
        "cifar10-cnn-large-3": "onnx",
        "cifar10-bovw": "bovw",
        "classic": "bovw",
        "words": "bovw",
    }
    assert "words@" in call("models", "list").out
    shown = call("models", "show", "words").out
    for told in ("dense-sift step=8", "324 -> 6", "model.npz", "held out accuracy", "32x32"):
        assert told in " ".join(shown.split()), told
    card = call("models", "show", "words", "--json").json
    assert card["card"]["blocks"][0]["feature"] == "hog"
    assert set(card["files"]) == {ARRAYS_FILE, CARD_FILE}


def test_evaluation_shows_the_accuracy_of_a_models_own_head(photos: Path, tmp_path: Path) -> None:
    """A head that tells the colours by their histogram finds every class."""
    names = tuple(sorted(COLOURS))
    made = replace(card(BLOCKS["hsv"], head=True), name="colours", classes=names)
    arrays = arrays_for(made)
    own = model_of(model_files(replace(made, posterior=None, classes=()), {}))
    means = []
    for name in names:
        images = [load_pixels(path.read_bytes()) for path in (photos / name).iterdir()]
        means.append(own.describe(images).mean(axis=0))
    arrays["head/weights"] = np.stack(means, axis=1).astype(np.float32) * 9
    arrays["head/bias"] = np.zeros(3, dtype=np.float32)
    keep_model(model_files(made, arrays))
    place = tmp_path / "photos.cbir"
    options = ("--descriptor", "colours", "--label-from-folder")
    assert call("index", photos, "--into", place, *options).code == 0
    measured = call("evaluate", "--in", place, "--queries", photos, "--label-from-folder", "--json")
    assert measured.json["accuracy"] == {"training_images": 1.0, "queries": 1.0}
    keep_model(small_model())
    plain = tmp_path / "plain.cbir"
    options = ("--descriptor", "words", "--label-from-folder")
    assert call("index", photos, "--into", plain, *options).code == 0
    measured = call("evaluate", "--in", plain, "--queries", photos, "--label-from-folder", "--json")
    assert measured.json["accuracy"] == {"training_images": None, "queries": None}
