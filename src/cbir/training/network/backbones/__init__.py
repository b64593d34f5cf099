"""Backbones by name: networks that turn normalised images into features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from cbir.errors import CbirError
from cbir.training.network.backbones.airbench import Airbench94
from cbir.wording import did_you_mean


class Backbone(Protocol):
    """Normalised images float32 (n, 3, size, size) to features float32 (n, `features`).

    `stages` lists its parts from input to output; together they own all parameters.
    """

    features: int

    def stages(self) -> list[nn.Module]: ...

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Plan:
    """How a backbone is made, and the settings that suit it.

    `build` takes the input size in pixels, the width factor, the depth (0: the backbone's own) and
    the weights ("": random, "pretrained", or a path). `smallest` is the least input size.
    `defaults` are fields of `TrainSettings`.
    """

    build: Callable[[int, float, int, str], nn.Module]
    smallest: int
    defaults: Mapping[str, Any] = field(default_factory=dict)


def plan_of(name: str) -> Plan:
    """The plan of the backbone `name`; raises `CbirError` if there is none."""
    if name not in PLANS:
        raise CbirError(f"unknown backbone '{name}'", did_you_mean(name, PLANS))
    return PLANS[name]


def _airbench94(_size: int, width: float, _depth: int, _weights: str) -> nn.Module:
    return Airbench94(width)


PLANS: dict[str, Plan] = {
    "airbench94": Plan(_airbench94, smallest=17),
}
