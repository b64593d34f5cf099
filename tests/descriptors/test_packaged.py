"""EfficientNet-Lite from packages: the graph is the network, and it is made once."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from contextlib import closing
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.descriptors import packaged
from cbir.descriptors.contract import describe
from cbir.descriptors.efficientnet import efficientnet_lite
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.models import descriptor_of, keep_model, load_descriptor, newer_model
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.packaged import PACKAGED
from cbir.descriptors.runtime import Network
from cbir.descriptors.torch_file import Tensors, read_tensors
from cbir.errors import CbirError, MissingExtraError, how_to_install
from cbir.testing import check_descriptor
from tests.cli.support_cli import call
from tests.descriptors.support_photos import picture, write_photos

for module in ("onnx", *(weights.module for weights in PACKAGED.values())):
    pytest.importorskip(module, reason="needs the `photos` extra")

SIZES = [(224, 224), (500, 375), (90, 300), (33, 20), (1, 1)]
IMAGES = [picture((200, 120, 20 * n), n, size) for n, size in enumerate(SIZES)]


def reference(tensors: Tensors, values: np.ndarray) -> np.ndarray:
    """The features of `values` (n, 3, side, side) by torch, with TensorFlow's "same" padding."""
    import torch
    from torch.nn import functional

    weights = {name: torch.from_numpy(array) for name, array in tensors.items()}

    def conv(x: Any, name: str, norm: str, stride: int = 1) -> Any:
        kernel = weights[f"{name}.weight"]
        size, side = kernel.shape[-1], x.shape[-1]
        missing = max((-(-side // stride) - 1) * stride + size - side, 0)
        left, right = missing // 2, missing - missing // 2
        x = functional.pad(x, (left, right, left, right))
        groups = x.shape[1] // kernel.shape[1]
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        own = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight",
                                                      "bias"))  # fmt: skip
        return functional.batch_norm(x, *own, eps=1e-3)

    x = functional.relu6(conv(torch.from_numpy(values), "_conv_stem", "_bn0", 2))
    count = len({name.split(".")[1] for name in weights if name.startswith("_blocks")})
    # A stage begins where the width changes.
    widths = [weights[f"_blocks.{n}._project_conv.weight"].shape[0] for n in range(count)]
    first = [n for n in range(count) if n == 0 or widths[n] != widths[n - 1]]
    strides = dict(zip(first, (1, 2, 2, 2, 1, 2, 1), strict=True))
    for number in range(count):
        name, start = f"_blocks.{number}", x
        if f"{name}._expand_conv.weight" in weights:
            x = functional.relu6(conv(x, f"{name}._expand_conv", f"{name}._bn0"))
        stride = strides.get(number, 1)
        x = functional.relu6(conv(x, f"{name}._depthwise_conv", f"{name}._bn1", stride))
        x = conv(x, f"{name}._project_conv", f"{name}._bn2")
        if number not in first:
            x = x + start
    x = functional.relu6(conv(x, "_conv_head", "_bn1"))
    return np.asarray(x.mean(dim=(2, 3)))


def mean_after_relu6(weights: Tensors) -> np.ndarray:
    """The mean of each channel of the head: its batch norm's normal distribution, clipped."""
    import torch

    evenly = torch.special.ndtri((torch.arange(4000) + 0.5) / 4000).numpy()[:, None]
    drawn = np.clip(evenly * weights["_bn1.weight"] + weights["_bn1.bias"], 0, 6)
    return np.asarray(drawn.mean(axis=0))


def weights_of(name: str) -> Path:
    return packaged._weights_file(PACKAGED[name].module)


@pytest.mark.training
@pytest.mark.parametrize("name", [name for name, own in PACKAGED.items() if not own.int8])
def test_the_graph_computes_what_torch_does(name: str) -> None:
    tensors, own = read_tensors(weights_of(name)), PACKAGED[name]
    descriptor = load_descriptor(name)
    assert isinstance(descriptor, OnnxDescriptor)
    inputs = descriptor.card.input.inputs(IMAGES)
    assert inputs.shape == (len(IMAGES), 3, own.size, own.size)
    expected = reference(tensors, inputs)
    (features,) = descriptor.network.outputs(inputs, ["features"])
    assert np.abs(features - expected).max() < 1e-3
    centre = unit_rows(mean_after_relu6(tensors)[None])
    centred = unit_rows(unit_rows(expected) - centre)
    np.testing.assert_allclose(describe(descriptor, IMAGES), centred, atol=1e-4)


@pytest.mark.training
def test_padding_follows_the_side() -> None:
    """An odd side pads strided convolutions differently, and a wrong one is noticed."""
    tensors = read_tensors(weights_of("efficientnet-lite0"))
    values = np.random.default_rng(0).normal(size=(1, 3, 75, 75)).astype(np.float32)
    expected = reference(tensors, values)
    right, wrong = (
        Network(efficientnet_lite(tensors, 1.0, side), "test").outputs(values, ["features"])[0]
        for side in (75, 224)
    )
    assert np.abs(right - expected).max() < 1e-3
    assert np.abs(wrong - expected).max() > 1e-2


def test_the_input_is_the_networks_own() -> None:
    """As in the evaluation of these networks: the centre 224 of 256, (pixel - 127) / 128."""
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    descriptor = load_descriptor("efficientnet-lite0")
    assert isinstance(descriptor, OnnxDescriptor)
    whole = Image.fromarray(image).resize((341, 256), Image.Resampling.BICUBIC)
    left = round((341 - 224) / 2)
    expected = np.asarray(whole)[16:240, left : left + 224]
    np.testing.assert_allclose(
        descriptor.card.input.inputs([image])[0].transpose(1, 2, 0),
        (expected.astype(np.float32) - 127) / 128,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_model_is_made_once_and_kept(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_descriptor(name)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith(f"built {name} from its package's weights; saved in ")
    check_descriptor(made)
    spec = made.spec
    assert (spec.dim, spec.licence) == (1280, "Apache-2.0")
    assert spec.trained_on == "ImageNet (ILSVRC 2012), 1.28M images with labels"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # the store needs no extra
    for again in (name, f"{name}:embedding", f"{name}@{spec.fingerprint[:8]}"):
        assert load_descriptor(again).spec == spec
    assert len(caplog.records) == 1
    listed = call("models", "list", "--json").json
    assert [(m["name"], m["origin"]) for m in listed if "efficient" in m["name"]] == [
        (name, "store")
    ]


def test_a_model_of_an_earlier_recipe_is_made_again_and_kept_for_its_indexes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = packaged.packaged_files("efficientnet-lite0")
    card = json.loads(files["model.json"])
    card["training"]["recipe"] -= 1
    earlier = keep_model(
        {**files, "model.json": json.dumps(card | {"output": "features"}).encode()}
    )
    old = load_descriptor(str(earlier)).spec
    new = load_descriptor("efficientnet-lite0").spec
    assert new.fingerprint != old.fingerprint
    assert load_descriptor("efficientnet-lite0").spec == new
    assert load_descriptor(f"efficientnet-lite0@{old.fingerprint[:8]}").spec == old
    assert descriptor_of(old, {}).spec == old
    newer = newer_model(old)
    assert newer is not None and newer.fingerprint == new.fingerprint
    # An index that keeps no model may come from a machine that made it of the newer recipe.
    shutil.rmtree(cbir_store() / f"efficientnet-lite0@{new.fingerprint[:16]}")
    assert descriptor_of(new, {}).spec == new
    # Without the extra, an earlier model is better than none.
    shutil.rmtree(cbir_store() / f"efficientnet-lite0@{new.fingerprint[:16]}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert load_descriptor("efficientnet-lite0").spec == old


def test_the_same_weights_make_the_same_model() -> None:
    first, second = (packaged.packaged_files("efficientnet-lite0") for _ in range(2))
    assert first == second


def test_an_index_needs_neither_the_store_nor_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=1)
    place = tmp_path / "photos.cbir"
    cbir.index_images([photos], place, descriptor="efficientnet-lite0")
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with closing(cbir.Searcher.open(place)) as searcher:
        hit = searcher.search(photos / "red" / "0.png", k=1)[0]
    assert (hit.id, hit.score) == ("photos/red/0.png", pytest.approx(1, abs=1e-5))


def test_an_index_that_keeps_no_model_gets_it_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_descriptor("efficientnet-lite0").spec
    shutil.rmtree(cbir_store())
    assert descriptor_of(spec, {}).spec == spec
    shutil.rmtree(cbir_store())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="efficientnet-lite0 needs the 'photos' extra"):
        descriptor_of(spec, {})


def cbir_store() -> Path:
    from cbir.home import cbir_home

    return cbir_home() / "models"


@pytest.mark.parametrize("name", PACKAGED)
def test_without_the_extra_one_line_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = call("models", "list")
    assert f"{name}: built at first use" in listed.err
    find = importlib.util.find_spec

    def absent(module: str, package: str | None = None) -> ModuleSpec | None:
        return None if module == PACKAGED[name].module else find(module, package)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert call("models", "show", name).error == (
        f"{name} needs the 'photos' extra",
        how_to_install("photos"),
    )
    assert f"{name}: {how_to_install('photos')}" in call("models", "list").err


def test_a_mistyped_name_is_answered_with_a_packaged_one() -> None:
    with pytest.raises(CbirError) as caught:
        load_descriptor("efficientnet-lit0")
    assert "efficientnet-lite0" in caught.value.hint


@pytest.mark.parametrize("kept", ["nothing", "another network", "no tensors"])
def test_a_package_with_other_weights_is_refused(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    if kept == "another network":
        shutil.copy(weights_of("efficientnet-lite0"), folder / "w.pth")
    elif kept == "no tensors":
        (folder / "w.pth").write_bytes(b"weights")
    spec = ModuleSpec(PACKAGED["efficientnet-lite2"].module, None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(packaged, "find_spec", lambda _: spec)
    message, hint = call("models", "show", "efficientnet-lite2").error
    assert {
        "nothing": "holds 0 files of weights",
        "another network": "does not hold the weights of efficientnet-lite2",
        "no tensors": "is not a file of tensors",
    }[kept] in message
    assert kept == "no tensors" or "--force-reinstall" in hint
    assert not cbir_store().exists()


def test_a_store_that_cannot_be_written_is_one_line_and_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "home"))
    with pytest.raises(CbirError, match="the model cannot be kept in") as caught:
        load_descriptor("efficientnet-lite0")
    assert "CBIR_HOME" in caught.value.hint
