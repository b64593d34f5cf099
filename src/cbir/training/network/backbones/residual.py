"""A wider and deeper relative of airbench94, with residual connections.

After airbench96 (Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
arXiv:2404.00498, and its code of June 2024): twice the width, a third convolution in each block,
and a residual connection over the later two. This version uses ReLU, which int8 inference can fuse.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cbir.training.network.backbones.airbench import Whitened, batch_norm, convolution
from cbir.training.network.backbones.plan import scaled

CHANNELS = (128, 512, 512)
MOMENTUM = 0.1


class Airbench96(Whitened):
    """Normalised images float32 (n, 3, size, size) to features (n, `features`).

    `depth` is the number of residual connections in a block, each over two convolutions.
    """

    def __init__(self, width: float, depth: int) -> None:
        super().__init__()
        channels = [self.whiten.out_channels, *(scaled(count, width) for count in CHANNELS)]
        self.blocks = nn.Sequential(
            *(_block(before, after, depth or 1) for before, after in pairwise(channels))
        )
        self.features = channels[-1]


class Residual(nn.Module):
    """Two 3x3 convolutions whose input is added to their output before the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.later = nn.Sequential(
            convolution(channels, channels),
            batch_norm(channels, MOMENTUM),
            nn.ReLU(inplace=True),
            convolution(channels, channels),
            batch_norm(channels, MOMENTUM),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(maps + self.later(maps))


def _block(channels_in: int, channels_out: int, residuals: int) -> nn.Sequential:
    """A 3x3 convolution with 2x2 max pooling, then the residual parts."""
    return nn.Sequential(
        convolution(channels_in, channels_out),
        nn.MaxPool2d(2),
        batch_norm(channels_out, MOMENTUM),
        nn.ReLU(inplace=True),
        *(Residual(channels_out) for _ in range(residuals)),
    )
