"""Runs a network over images in evaluation mode."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cbir.descriptors.contract import batches
from cbir.training.network.network import EmbeddingNet
from cbir.types import Floats

PIXELS_AT_ONCE = 1000 * 32 * 32


def predict(
    network: EmbeddingNet, images: NDArray[np.uint8], fast: bool = False
) -> tuple[Floats, Floats]:
    """Embeddings (n, dim) and logits (n, classes) of uint8 (n, size, size, 3) `images`.

    float32 throughout; with `fast`, convolutions in bfloat16, which is enough for an accuracy.
    """
    network.eval()
    embeddings, logits = [], []
    with torch.inference_mode():
        for some in batches(images, rows_at_once(images)):
            with autocast(network.mean.device, fast):
                embedding = network.embed(pixels_of(some, network))
                scores = network.classify(embedding)
            embeddings.append(embedding.float().cpu().numpy())
            logits.append(scores.float().cpu().numpy())
    return np.concatenate(embeddings), np.concatenate(logits)


def device() -> torch.device:
    """The fastest device at hand."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def use_threads(count: int) -> None:
    """Compute on that many cores, for the rest of the process."""
    torch.set_num_threads(count)


def autocast(device: torch.device, wanted: bool = True) -> torch.autocast:
    """bfloat16 arithmetic where it is faster than float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and device.type != "mps")


def pixels_of(images: NDArray[np.uint8], network: EmbeddingNet) -> Tensor:
    """uint8 (n, size, size, 3) as the network's input, on its device."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return on_device(pixels, network.mean.device)


def on_device(pixels: Tensor, device: torch.device) -> Tensor:
    """Pixels (n, 3, size, size) as float32 on `device`, in the layout that convolutions prefer."""
    moved = pixels.to(device, torch.float32)
    return moved.contiguous(memory_format=torch.channels_last)


def rows_at_once(images: NDArray[np.uint8]) -> int:
    """How many of the images fit a batch of moderate memory."""
    return max(1, int(PIXELS_AT_ONCE // (images.shape[1] * images.shape[2])))
