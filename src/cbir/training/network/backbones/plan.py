"""What a backbone is, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cbir.errors import SettingsError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Backbone(Protocol):
    """Normalised images float32 (n, 3, size, size) to features float32 (n, `features`).

    `stages` lists its parts from input to output; together they own all parameters.
    `normalisation` holds the mean and standard deviation per channel, of pixels in 0..1, that its
    weights were trained with; without it, those of the training images are used.
    """

    features: int
    normalisation: Statistics | None

    def stages(self) -> list[nn.Module]: ...

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Plan:
    """How a backbone is made, and the settings that suit it.

    `build` takes the input size in pixels, the width factor, the depth (0: the backbone's own) and
    the weights ("": random, "pretrained", or a path). `smallest` is the least input size.
    `defaults` are fields of `TrainSettings`; `fine_tuning` replaces some of them if the weights are
    not random. `pretrained_on` names the data of the pre-trained weights, where it is known.
    """

    build: Callable[[int, float, int, str], nn.Module]
    smallest: int
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    pretrained_on: str = ""

    def defaults_for(self, weights: str | None) -> dict[str, Any]:
        """The defaults that go with the `weights`; None: those of the backbone itself."""
        own = self.defaults.get("weights", "") if weights is None else weights
        return {**self.defaults, **(self.fine_tuning if own else {})}


class Chain(nn.Module):
    """A backbone of stages one after the other."""

    normalisation: Statistics | None = None

    def __init__(self, size: int, *stages: nn.Module) -> None:
        super().__init__()
        self.chain = nn.Sequential(*stages)
        self.features = count_features(self.chain, size)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.chain(images)
        return features

    def stages(self) -> list[nn.Module]:
        return list(self.chain)


def count_features(network: nn.Module, size: int) -> int:
    """The number of features that `network` returns, by a trial in evaluation mode.

    Raises `ValueError` if it does not return one vector per image, and whatever the network raises
    for an input of this size.
    """
    training = network.training
    with torch.no_grad():
        features = network.eval()(torch.zeros(1, 3, size, size))
    network.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError("the network does not return one vector per image")
    return features.shape[1]


def scaled(count: int, width: float) -> int:
    """`width` times `count` channels, as a multiple of 8."""
    return max(8, round(width * count / 8) * 8)


def refuse_factors(name: str, width: float, depth: int) -> None:
    """Raise `CbirError` if a width or a depth was chosen for a backbone that has only its own."""
    for what, chosen in (("width", width != 1), ("depth", depth != 0)):
        if chosen:
            raise SettingsError(
                f"{name} comes in one {what} only", f"leave {what} out, or choose another backbone"
            )
