"""The small convolutional network behind `cifar10-cnn`.

After airbench94 (Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
2024, arXiv:2404.00498): a frozen patch-whitening convolution, three blocks of two 3x3
convolutions, max pooling. This version uses ReLU, which int8 inference can fuse.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cbir.training.network.backbones.plan import Statistics, scaled

CHANNELS = (64, 256, 256)
PATCH = 2
MOMENTUM = 0.4


class Whitened(nn.Module):
    """A frozen patch-whitening convolution, then `blocks`, then max pooling over the image."""

    # The two linear layers share the logit scale of 1/9 of airbench's single head.
    head_scale = 1 / 3
    normalisation: Statistics | None = None
    features: int
    blocks: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 6 * PATCH * PATCH, PATCH, bias=True)
        self.whiten.weight.requires_grad = False

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.blocks(torch.relu(self.whiten(images)))
        return maps.amax((2, 3))

    def stages(self) -> list[nn.Module]:
        return [self.whiten, *self.blocks]

    def start(self, images: Tensor) -> None:
        """Set the first layer to whitening filters of normalised `images` (n, 3, size, size)."""
        self.whiten.weight.data = whitening_filters(images)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]


class Airbench94(Whitened):
    """Normalised images float32 (n, 3, size, size) to features (n, `features`).

    `depth` is the number of convolutions in a block.
    """

    def __init__(self, width: float, depth: int) -> None:
        super().__init__()
        channels = [self.whiten.out_channels, *(scaled(count, width) for count in CHANNELS)]
        self.blocks = nn.Sequential(
            *(_block(before, after, depth or 2) for before, after in pairwise(channels))
        )
        self.features = channels[-1]


def whitening_filters(images: Tensor, eps: float = 5e-4) -> Tensor:
    """Filters (24, 3, 2, 2) that whiten the 2x2 patches of `images`, and their negatives.

    They are the eigenvectors of the patch covariance, scaled by 1/sqrt(eigenvalue + eps).
    """
    patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5)
    flat = patches.reshape(-1, 3 * PATCH * PATCH)
    eigenvalues, eigenvectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    filters = eigenvectors.T / torch.sqrt(eigenvalues + eps)[:, None]
    filters = filters.reshape(-1, 3, PATCH, PATCH)
    return torch.cat([filters, -filters])


def _block(channels_in: int, channels_out: int, convolutions: int) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU; the first is followed by 2x2 max pooling."""
    layers: list[nn.Module] = []
    for number, before in enumerate([channels_in, *[channels_out] * (convolutions - 1)]):
        pooling = [] if number else [nn.MaxPool2d(2)]
        norm = batch_norm(channels_out, MOMENTUM)
        layers += [convolution(before, channels_out), *pooling, norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution without bias that starts near the identity.

    So depth does not slow the first epoch.
    """
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[: min(channels_in, channels_out)])
    return conv


def batch_norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """Batch norm of airbench: no trained scale."""
    norm = nn.BatchNorm2d(channels, momentum=momentum, eps=1e-12)
    norm.weight.requires_grad = False
    return norm
