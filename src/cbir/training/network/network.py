"""The network that is trained: a backbone, an embedding layer and a classifier."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from cbir.training.network.backbones.plan import Backbone


class EmbeddingNet(nn.Module):
    """Turns pixels into embeddings, and embeddings into class scores.

    Input: float32 (n, 3, size, size), 0..255, which it normalises by `mean` and `std` (3,) of
    pixels in 0..1. `embed` returns (n, embedding); `classify` turns embeddings into logits
    (n, classes), and `forward` pixels. With an `embedding` of 0 dimensions, the features of the
    backbone are the embedding. With `mirror`, evaluation averages the features of an image and its
    mirror image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        embedding: int,
        classes: int,
        mean: Tensor,
        std: Tensor,
        dropout: float = 0.0,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        features = cast(int, backbone.features)
        self.dim = embedding or features
        self.embedding = nn.Linear(features, embedding, bias=False) if embedding else nn.Identity()
        self.classifier = nn.Linear(self.dim, classes, bias=False)
        self.scale = float(getattr(backbone, "head_scale", 1.0))
        self.mirror = mirror

    def train(self, mode: bool = True) -> EmbeddingNet:
        """Set the mode; stages without a parameter to train stay in evaluation mode."""
        super().train(mode)
        for stage in cast(Backbone, self.backbone).stages():
            if not any(parameter.requires_grad for parameter in stage.parameters()):
                stage.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """Features (n, backbone.features) of pixels, before dropout."""
        if self.mirror and not self.training:
            both: Tensor = self.backbone(self.normalised(torch.cat([pixels, pixels.flip(3)])))
            count = pixels.shape[0]  # len(pixels) would be a constant in the exported network
            return (both[:count] + both[count:]) / 2
        features: Tensor = self.backbone(self.normalised(pixels))
        return features

    def normalised(self, pixels: Tensor) -> Tensor:
        scaled = pixels / 255
        return (scaled - self.mean[:, None, None]) / self.std[:, None, None]

    def project(self, features: Tensor) -> Tensor:
        """Embeddings (n, embedding) of features."""
        embedding: Tensor = self.embedding(self.dropout(features)) * self.scale
        return embedding

    def embed(self, pixels: Tensor) -> Tensor:
        return self.project(self.features(pixels))

    def classify(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.classifier(embeddings) * self.scale
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classify(self.embed(pixels))
