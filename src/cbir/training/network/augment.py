"""Random changes of training images, a batch at a time."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cbir.training.network.settings import TrainSettings

JPEG_QUALITY = (30, 96)


def augmented(
    images: NDArray[np.uint8],
    mirrored: Tensor,
    settings: TrainSettings,
    fill: Tensor,
    random: torch.Generator,
) -> Tensor:
    """Changed copies, float32 (n, 3, size, size), 0..255, of uint8 (n, size, size, 3) `images`.

    `mirrored`: bool (n,), which to mirror. `fill` (3,) is the colour of cutout.
    """
    if settings.jpeg:
        images = _recompressed(images, settings.jpeg, random)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    if settings.flip:
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    if settings.crop < 1:
        batch = _cropped(batch, settings.crop, random)
    if settings.shift:
        batch = _shifted(batch, settings.shift, random)
    if settings.brightness:
        change = 2 * torch.rand((len(batch), 1, 1, 1), generator=random) - 1
        batch = (batch * (1 + settings.brightness * change)).clamp(0, 255)
    if settings.cutout:
        batch = _cut_out(batch, settings.cutout, fill, random)
    return batch


def mixed(
    batch: Tensor, targets: Tensor, how: str, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The batch with each image mixed with another, and likewise its class shares (n, classes).

    mixup blends two images (Zhang et al. 2018, arXiv:1710.09412), cutmix puts a part of another
    image in (Yun et al. 2019, arXiv:1905.04899). The share is uniform in 0..1, one for the batch.
    """
    partner = torch.randperm(len(batch), generator=random)
    share = float(torch.rand((), generator=random))
    if how == "mixup":
        batch = share * batch + (1 - share) * batch[partner]
    else:
        height, width = batch.shape[2:]
        side = (1 - share) ** 0.5
        rows, columns = (_span(length, side, random) for length in (height, width))
        batch[:, :, rows, columns] = batch[partner][:, :, rows, columns]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return batch, share * targets + (1 - share) * targets[partner]


def _span(length: int, part: float, random: torch.Generator) -> slice:
    size = round(part * length)
    start = int(torch.randint(0, length - size + 1, (), generator=random))
    return slice(start, start + size)


def _recompressed(
    images: NDArray[np.uint8], share: float, random: torch.Generator
) -> NDArray[np.uint8]:
    """A `share` of the images after JPEG encoding at a random quality."""
    changed = images.copy()
    chosen = torch.nonzero(torch.rand(len(images), generator=random) < share)[:, 0].tolist()
    qualities = torch.randint(*JPEG_QUALITY, (len(images),), generator=random).tolist()
    for row in chosen:
        options = [cv2.IMWRITE_JPEG_QUALITY, qualities[row]]
        # OpenCV takes the channels for BGR, which only its own decoder has to know.
        _, data = cv2.imencode(".jpg", images[row][..., ::-1], options)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        changed[row] = decoded[..., ::-1]
    return changed


def _cropped(batch: Tensor, smallest: float, random: torch.Generator) -> Tensor:
    """A random part of each image, of 3:4 to 4:3 in shape, enlarged to the full size."""
    count = len(batch)
    area = smallest + (1 - smallest) * torch.rand(count, generator=random)
    shape = torch.exp((2 * torch.rand(count, generator=random) - 1) * float(np.log(4 / 3)))
    scales = torch.stack([area * shape, area / shape]).sqrt().clamp(max=1)
    places = (2 * torch.rand((2, count), generator=random) - 1) * (1 - scales)
    affine = torch.zeros((count, 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = scales
    affine[:, :, 2] = places.T
    grid = functional.affine_grid(affine, list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def _shifted(batch: Tensor, most: int, random: torch.Generator) -> Tensor:
    """Each image moved by up to `most` pixels, with reflected edges."""
    size = batch.shape[-1]
    padded = functional.pad(batch, (most,) * 4, "reflect")
    shifts = torch.randint(0, 2 * most + 1, (2, len(batch)), generator=random)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows[torch.arange(len(batch)), :, shifts[0], shifts[1]]


def _cut_out(batch: Tensor, side: int, fill: Tensor, random: torch.Generator) -> Tensor:
    """A square of `side` pixels at a random place of each image in the colour `fill`.

    Its centre may be anywhere, so part of it may lie outside (DeVries and Taylor 2017,
    arXiv:1708.04552).
    """
    size = batch.shape[-1]
    centres = torch.randint(0, size, (2, len(batch), 1), generator=random)
    inside = (torch.arange(size) - centres + side // 2 >= 0) & (
        torch.arange(size) - centres + side // 2 < side
    )
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hole, fill[None, :, None, None], batch)
