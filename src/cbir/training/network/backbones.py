"""The small convolutional network behind `cifar10-cnn`.

After airbench94 (Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
2024, arXiv:2404.00498): a frozen patch-whitening convolution, three blocks of two 3x3
convolutions, max pooling. This version uses ReLU, which int8 inference can fuse, and adds a
64-dimensional linear layer, the embedding, before the linear classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMBEDDING_DIM = 64
# The two linear layers share the logit scale of 1/9 of airbench94's single head.
HEAD_SCALE = 1 / 3


class Block(nn.Sequential):
    """Two 3x3 convolutions with batch norm and ReLU; the first is followed by 2x2 max pooling."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            _convolution(channels_in, channels_out),
            nn.MaxPool2d(2),
            _batch_norm(channels_out),
            nn.ReLU(inplace=True),
            _convolution(channels_out, channels_out),
            _batch_norm(channels_out),
            nn.ReLU(inplace=True),
        )


class EmbeddingNet(nn.Module):
    """Turns images into embeddings, and embeddings into class scores.

    Input: float32 (n, 3, 32, 32), normalised. `embed` returns (n, 64); `classify` turns
    embeddings into logits (n, classes), and `forward` images.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2, bias=True)
        self.whiten.weight.requires_grad = False
        self.features = nn.Sequential(
            nn.ReLU(inplace=True),
            Block(24, 64),
            Block(64, 256),
            Block(256, 256),
            nn.MaxPool2d(3),
            nn.Flatten(),
        )
        self.embedding = nn.Linear(256, EMBEDDING_DIM, bias=False)
        self.classifier = nn.Linear(EMBEDDING_DIM, classes, bias=False)

    def embed(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.embedding(self.features(self.whiten(images))) * HEAD_SCALE
        return embedding

    def classify(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.classifier(embeddings) * HEAD_SCALE
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.embed(images))


def whiten_from(network: EmbeddingNet, images: Tensor, eps: float = 5e-4) -> None:
    """Set the first layer to the whitening filters of `images`' 2x2 patches, and their negatives.

    images: float32 (n, 3, 32, 32), normalised as in training. Filters are the eigenvectors of
    the patch covariance, scaled by 1/sqrt(eigenvalue + eps). The layer's weights stay frozen.
    """
    weight = network.whiten.weight
    size = weight.shape[-1]
    patches = images.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)
    flat = patches.reshape(-1, 3 * size * size)
    eigenvalues, eigenvectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    filters = eigenvectors.T / torch.sqrt(eigenvalues + eps)[:, None]
    filters = filters.reshape(-1, 3, size, size)
    weight.data = torch.cat([filters, -filters])
    nn.init.zeros_(network.whiten.bias)  # type: ignore[arg-type]


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    # Starts near the identity, so that depth does not slow the first epoch.
    nn.init.dirac_(conv.weight[:channels_in])
    return conv


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.4, eps=1e-12)
    norm.weight.requires_grad = False
    return norm
