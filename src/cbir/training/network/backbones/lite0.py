"""EfficientNet-Lite0 with the weights of the `photos` extra (ImageNet), or random ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cbir.descriptors.efficientnet import PIXEL_MEAN, PIXEL_STD
from cbir.descriptors.packaged import packaged_tensors
from cbir.registry import require_extra
from cbir.training.network.backbones.libraries import PRETRAINED, LibraryNetwork
from cbir.training.network.backbones.plan import refuse_factors
from cbir.training.network.backbones.stored_weights import load_weights, read_weights

NAME = "efficientnet-lite0"
FEATURES = 1280
NORMALISATION = (PIXEL_MEAN / 255,) * 3, (PIXEL_STD / 255,) * 3


def lite0(_: int, width: float, depth: int, weights: str) -> LibraryNetwork:
    """The network of timm, whose features are those of the descriptor `efficientnet-lite0`."""
    require_extra(f"the backbone {NAME}", "train", "timm")
    import timm

    refuse_factors(NAME, width, depth)
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    if weights == PRETRAINED:
        _load_packaged(network)
    elif weights:
        load_weights(network, read_weights(weights), weights, NAME, ("classifier.",))
    return LibraryNetwork(network, FEATURES, NORMALISATION if weights else None)


def _load_packaged(network: nn.Module) -> None:
    """Load the package's tensors, which have other names but the same order."""
    stored: dict[str, Any] = {
        name: tensor
        for name, tensor in packaged_tensors(NAME).items()
        if not name.startswith("_fc.")
    }
    tensors = zip(network.state_dict(), stored.values(), strict=True)
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors})
