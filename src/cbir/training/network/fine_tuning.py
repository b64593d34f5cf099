"""Which parameters are trained, and at which rate."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from cbir.training.network.backbones.plan import Backbone
from cbir.training.network.network import EmbeddingNet
from cbir.training.network.settings import TrainSettings


def freeze(network: EmbeddingNet, share: float) -> None:
    """Fix the first `share` (0..1) of the backbone's stages, rounded to whole stages.

    They stay in evaluation mode (`EmbeddingNet.train`), so that batch norm is fixed, too.
    """
    stages = cast(Backbone, network.backbone).stages()
    for stage in stages[: round(share * len(stages))]:
        stage.requires_grad_(False)


def parameter_groups(network: EmbeddingNet, settings: TrainSettings) -> list[dict[str, Any]]:
    """The optimiser's groups, each with its peak learning rate `peak` and its weight decay.

    The rate falls by `layer_decay` from each stage to the one before; embedding and classifier
    have the full rate. With SGD, the biases of batch norm learn `bias_rate_factor` times as fast
    and decay as much as the rest (airbench, arXiv:2404.00498); with AdamW, biases and scales do
    not decay.
    """
    stages = cast(Backbone, network.backbone).stages()
    parts = [*stages, nn.ModuleList([network.embedding, network.classifier])]
    below_top = {
        id(parameter): below
        for below, part in enumerate(reversed(parts))
        for parameter in part.parameters()
    }
    biases = {id(m.bias) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.peak_rate * settings.layer_decay ** below_top[id(parameter)]
        decay = settings.weight_decay
        if settings.optimizer == "sgd" and id(parameter) in biases:
            rate, decay = rate * settings.bias_rate_factor, decay / settings.bias_rate_factor
        elif settings.optimizer == "adamw" and parameter.ndim < 2:
            decay = 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
