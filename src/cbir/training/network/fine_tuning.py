"""Which parameters are trained, and at which rate."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from cbir.training.network.network import EmbeddingNet
from cbir.training.network.settings import TrainSettings


def freeze(network: EmbeddingNet, share: float) -> None:
    """Fix the first `share` of the backbone's stages."""
    stages = cast(Any, network.backbone).stages()
    for stage in stages[: round(share * len(stages))]:
        stage.requires_grad_(False)


def parameter_groups(network: EmbeddingNet, settings: TrainSettings) -> list[dict[str, Any]]:
    """The optimiser's groups, each with its peak learning rate `peak`."""
    biases = [m.bias for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    bias_ids = {id(b) for b in biases}
    weights = [p for p in network.parameters() if p.requires_grad and id(p) not in bias_ids]
    rate, decay, factor = settings.peak_rate, settings.weight_decay, settings.bias_rate_factor
    return [
        {"params": weights, "peak": rate, "weight_decay": decay},
        {"params": biases, "peak": rate * factor, "weight_decay": decay / factor},
    ]
