"""Builds backbones as training does, and trains them for a few steps."""

from __future__ import annotations

from typing import Any

import numpy as np


def built(name: str, size: int = 32, width: float = 1.0, depth: int = 0, weights: str = "") -> Any:
    """The backbone `name`, with the same random weights each time."""
    import torch

    from cbir.training.network.backbones import plan_of

    torch.manual_seed(0)
    return plan_of(name).build(size, width, depth, weights)


def images(count: int, size: int = 32, seed: int = 0) -> Any:
    """Normalised noise, float32 (count, 3, size, size)."""
    import torch

    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(size=(count, 3, size, size)).astype(np.float32))


def features(network: Any, given: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        made: np.ndarray = network.eval()(given).numpy()
    return made


def network_of(backbone: Any, classes: int = 4) -> Any:
    """The backbone with an embedding of 16 dimensions and a classifier."""
    import torch

    from cbir.training.network.network import EmbeddingNet

    return EmbeddingNet(backbone, 16, classes, torch.full((3,), 0.5), torch.full((3,), 0.25))


def fitted(network: Any, settings: Any, steps: int, size: int = 32) -> list[float]:
    """Train with 16 noisy pictures in the colours of four classes; the loss before each step."""
    import torch
    from torch.nn import functional

    from cbir.training.network.fine_tuning import parameter_groups

    random = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 4
    colours = torch.rand(4, 3, 1, 1, generator=random)
    pixels = 255 * (colours[labels] + torch.rand(16, 3, size, size, generator=random)) / 2
    kind = torch.optim.SGD if settings.optimizer == "sgd" else torch.optim.AdamW
    groups = parameter_groups(network, settings)
    optimizer = kind([{**group, "lr": group["peak"]} for group in groups])
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(network.train()(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
