"""Backbones by name: networks that turn normalised images into features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from cbir.errors import CbirError
from cbir.training.network.backbones.airbench import Airbench94
from cbir.training.network.backbones.libraries import (
    LIBRARIES,
    PRETRAINED,
    in_libraries,
    library_plan,
)
from cbir.training.network.backbones.lite0 import lite0
from cbir.training.network.backbones.plan import Plan
from cbir.training.network.backbones.residual import Airbench96
from cbir.training.network.backbones.small import alexnet, lenet, mlp
from cbir.training.network.backbones.stored_weights import load_weights, read_weights
from cbir.wording import did_you_mean


def plan_of(name: str) -> Plan:
    """The plan of the backbone `name`; raises `CbirError` if there is none."""
    if name.partition(":")[0] in LIBRARIES and ":" in name:
        return library_plan(name)
    if name not in PLANS:
        names = [*PLANS, *(f"{library}:NAME" for library in LIBRARIES)]
        hint = did_you_mean(name, in_libraries(name) or PLANS, f"known: {', '.join(names)}")
        raise CbirError(f"unknown backbone '{name}'", hint)
    return PLANS[name]


def _own(
    name: str, make: Callable[[int, float, int], nn.Module]
) -> Callable[[int, float, int, str], nn.Module]:
    """How to build one of the small networks, which have no weights but those of a file."""

    def build(size: int, width: float, depth: int, weights: str) -> nn.Module:
        network = make(size, width, depth)
        if weights == PRETRAINED:
            raise CbirError(
                f"{name} has no pre-trained weights",
                "train it from random ones, or choose efficientnet-lite0 or a timm:NAME",
            )
        if weights:
            load_weights(network, read_weights(weights), weights, name)
        return network

    return build


_ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "bias_rate_factor": 1.0,
    "batch_size": 128,
    "peak_rate": 1e-3,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "clip": 1.0,
}
PLANS: dict[str, Plan] = {
    "airbench94": Plan(_own("airbench94", lambda _, w, d: Airbench94(w, d)), smallest=9),
    # Rates and augmentation of the paper's code, for a mean loss over batches of 512.
    "airbench96": Plan(
        _own("airbench96", lambda _, w, d: Airbench96(w, d)),
        smallest=9,
        defaults={"peak_rate": 0.6, "warm_up": 0.1, "shift": 4, "cutout": 12},
    ),
    "mlp": Plan(_own("mlp", mlp), smallest=1, defaults={**_ADAMW, "peak_rate": 6e-4}),
    "lenet": Plan(_own("lenet", lenet), smallest=16, defaults={**_ADAMW, "peak_rate": 2e-3}),
    "alexnet": Plan(_own("alexnet", alexnet), smallest=8, defaults=_ADAMW),
    "efficientnet-lite0": Plan(
        lite0,
        smallest=32,
        defaults={
            **_ADAMW,
            "weights": PRETRAINED,
            "size": 128,
            "schedule": "cosine",
            "warm_up": 0.1,
            "shift": 8,
        },
        pretrained_on="ImageNet",
        fine_tuning={"peak_rate": 3e-3, "layer_decay": 0.85},
    ),
}
