"""Features of a backbone that stays fixed: computed once, and kept beside the checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbir.training.network.checkpoint import read_checkpoint, write_checkpoint
from cbir.training.network.network import EmbeddingNet
from cbir.training.network.prediction import pixels_of, rows_at_once
from cbir.types import Floats, OnStage


def fixed_features(
    network: EmbeddingNet, images: NDArray[np.uint8], kept: Path | None, on_stage: OnStage
) -> Tensor:
    """Features float32 (n, features) of uint8 (n, size, size, 3) `images`.

    `kept` is a file to keep them in; it is used again only for the same images and weights.
    """
    identity = _identity(network, images)
    if kept is not None and kept.exists():
        tensors, facts = read_checkpoint(kept)
        if facts["identity"] == identity:
            return tensors["features"]
    network.eval()
    made = []
    with torch.inference_mode():
        for first in range(0, len(images), rows_at_once(images)):
            some = images[first : first + rows_at_once(images)]
            made.append(network.features(pixels_of(some, network)).float().cpu())
            on_stage("features of the fixed backbone", first + len(some), len(images))
    features = torch.cat(made).clone()
    if kept is not None:
        write_checkpoint(kept, {"features": features}, {"identity": identity})
    return features


def classified(network: EmbeddingNet, features: Tensor) -> Floats:
    """Logits (n, classes) of `features`, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        embeddings = network.project(features.to(network.mean.device))
        logits: Floats = network.classify(embeddings).float().cpu().numpy()
    return logits


def _identity(network: EmbeddingNet, images: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(str(network.mirror).encode())
    for name, tensor in network.state_dict().items():
        if name.startswith(("backbone.", "mean", "std")):
            digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
