"""One readable training loop: labelled images to an `EmbeddingNet`.

Label-smoothed cross-entropy, alone or joint with a metric loss of the embedding and a teacher's
answers; every batch is augmented from uint8; bfloat16 arithmetic (autocast, channels last) on CPU
or CUDA, float32 on MPS. The default settings follow airbench94 (arXiv:2404.00498), rescaled to
smaller batches. `cbir models show cifar10-cnn --json` shows settings, hardware, seconds and the
log of the shipped model.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cbir.errors import CbirError, SettingsError
from cbir.files import read_regular
from cbir.training.network.augment import augmented, mixed
from cbir.training.network.backbones import plan_of
from cbir.training.network.backbones.airbench import Whitened
from cbir.training.network.backbones.libraries import PRETRAINED
from cbir.training.network.backbones.plan import Backbone, Statistics
from cbir.training.network.batch_order import balanced, class_balanced, shuffled
from cbir.training.network.distillation import Answers, distillation_loss
from cbir.training.network.fine_tuning import freeze, parameter_groups
from cbir.training.network.frozen import classified, fixed_features
from cbir.training.network.losses import MetricLoss, metric_loss
from cbir.training.network.network import EmbeddingNet
from cbir.training.network.prediction import autocast, device, on_device, pixels_of, predict
from cbir.training.network.schedule import rate_at
from cbir.training.network.settings import TrainSettings
from cbir.training.network.state import (
    EpochResult,
    TrainingState,
    best_accuracy,
    moving_average,
)
from cbir.types import OnStage

START_PIXELS = 5000 * 32 * 32


def train(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    held_out: tuple[NDArray[np.uint8], NDArray[np.int64]],
    settings: TrainSettings,
    classes: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochResult], None] = lambda _: None,
    on_stage: OnStage = lambda _s, _d, _t: None,
    answers: Answers | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[EmbeddingNet, list[EpochResult]]:
    """Train on `images` (n, size, size, 3) RGB and `labels` (n,), numbers below `classes`.

    `held_out`: images and labels used only for an accuracy after each epoch, and for early
    stopping. `answers` are those of `settings.teacher` to `images`.

    `checkpoint` (a .safetensors path) saves the state after each epoch. A run with the same
    settings and images resumes from it and gives the same result as an uninterrupted run.

    `on_stage` reports the images of an epoch that are done, with the mean loss so far in the name
    of the stage. Raises `CbirError` if the loss diverges, or if the checkpoint is of another run,
    damaged, or cannot be written.
    """
    state = _start(images, settings, classes)
    identity = _identity(images, labels, settings, answers)
    if checkpoint is not None and checkpoint.exists() and not state.restore(checkpoint, identity):
        raise CbirError(
            f"the checkpoint {checkpoint} is of other settings or images",
            "repeat the command that wrote it, remove it to start anew, or choose another --name",
        )
    if state.log:
        say(f"resuming after epoch {len(state.log)} of {settings.epochs}")
    held_images, held_labels = held_out
    fixed = held_fixed = None
    if settings.freeze == 1:
        kept = None if checkpoint is None else features_file(checkpoint)
        fixed = fixed_features(state.network, images, kept, on_stage)
        held_fixed = fixed_features(state.network, held_images, None, on_stage)
    data = _Data(images, torch.from_numpy(labels), fixed, answers)
    while len(state.log) < settings.epochs and not _stalled(state.log, settings.patience):
        started = time.perf_counter()
        loss, accuracy = _run_epoch(state, data, settings, on_stage)
        if held_fixed is None:
            logits = predict(state.measured(), held_images, fast=True)[1]
        else:
            logits = classified(state.measured(), held_fixed)
        _require_finite(float(np.abs(logits).max()), len(state.log), state.optimizer)
        result = EpochResult(
            epoch=len(state.log) + 1,
            loss=loss,
            train_accuracy=accuracy,
            held_out_accuracy=float((logits.argmax(1) == held_labels).mean()),
            seconds=time.perf_counter() - started,
        )
        state.finish_epoch(result)
        if checkpoint is not None:
            state.save(checkpoint, identity)
        on_epoch(result)
    return state.result(), state.log


def features_file(checkpoint: Path) -> Path:
    """Where a run with this checkpoint keeps the features of its fixed backbone."""
    return checkpoint.with_suffix(".features.safetensors")


@dataclass(frozen=True)
class _Data:
    """Images (n, size, size, 3), their classes (n,), and what is known of them beforehand."""

    images: NDArray[np.uint8]
    targets: Tensor
    fixed: Tensor | None
    answers: Answers | None


def _start(images: NDArray[np.uint8], settings: TrainSettings, classes: int) -> TrainingState:
    """The state before the first epoch."""
    torch.manual_seed(settings.seed)
    backbone = plan_of(settings.backbone).build(
        settings.size, settings.width, settings.depth, settings.weights
    )
    mean, std = cast(Backbone, backbone).normalisation or _channel_statistics(images)
    network = EmbeddingNet(
        backbone,
        settings.embedding,
        classes,
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(std, dtype=torch.float32),
        settings.dropout,
        settings.mirror,
    )
    if isinstance(backbone, Whitened) and not settings.weights:
        some = images[: START_PIXELS // settings.size**2]
        backbone.start(network.normalised(pixels_of(some, network)))
    network = network.to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(network, settings.freeze)
    metric = metric_loss(settings.loss, classes, network.dim)
    if metric is not None:
        metric.parameters.to(device())
    return TrainingState(
        network,
        metric,
        _optimizer(network, metric, settings),
        moving_average(network, settings.ema),
        torch.compile(network.embed) if settings.compile else network.embed,
        keep_best=settings.patience > 0,
        fixed_backbone=settings.freeze == 1,
    )


def _run_epoch(
    state: TrainingState, data: _Data, settings: TrainSettings, on_stage: OnStage
) -> tuple[float, float]:
    """One pass over the images: the mean loss, and the accuracy on the augmented images."""
    network, epoch = state.network.train(), len(state.log)
    # Seeded by epoch, so that a resumed run draws the same numbers as an uninterrupted one.
    torch.manual_seed(settings.seed * 1000 + epoch)
    random = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    # Fixed features are those of the images as they are.
    flips = settings.flip and data.fixed is None
    mirrored = _mirrored(len(data.images), settings.seed, epoch, flips)
    order = _order(data.targets, state.metric, settings, random)
    steps, size = order.shape
    loss_sum = correct = 0.0
    for step, chosen in enumerate(order):
        _set_rates(state.optimizer, settings, epoch * steps + step, settings.epochs * steps)
        batch, targets = _batch(network, data, chosen, mirrored[chosen], settings, random)
        with autocast(batch.device):
            embedding = network.project(batch) if data.fixed is not None else state.embed(batch)
            slowed = _slowed(embedding, 1 - settings.loss_weight) if state.metric else embedding
            logits = network.classify(slowed).float()
        said = None
        if data.answers is not None:
            said = data.answers.of(chosen, batch.device)
        loss, objective = _losses(
            logits, slowed.float(), embedding.float(), targets, said, state.metric, settings, random
        )
        _require_finite(objective, epoch, state.optimizer)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.clip:
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        state.optimizer.step()
        if state.averaged is not None:
            state.averaged.update_parameters(network)
        loss_sum += objective * size
        likeliest = targets if targets.ndim == 1 else targets.argmax(1)
        correct += float((logits.argmax(1) == likeliest).sum())
        done = (step + 1) * size
        stage = f"epoch {epoch + 1} of {settings.epochs}: loss {loss_sum / done:.3f}"
        on_stage(stage, done, steps * size)
    return loss_sum / (steps * size), correct / (steps * size)


def _losses(
    logits: Tensor,
    slowed: Tensor,
    embedding: Tensor,
    targets: Tensor,
    said: tuple[Tensor, Tensor] | None,
    metric: MetricLoss | None,
    settings: TrainSettings,
    random: torch.Generator,
) -> tuple[Tensor, float]:
    """The loss of a batch, and its value with each part in its share of the embedding's gradient.

    `slowed` is the embedding whose gradient a metric loss leaves to the rest. `said` are the
    teacher's answers.
    """
    loss = functional.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)
    if said is not None:
        share = settings.teacher_weight
        loss = (1 - share) * loss + share * distillation_loss(logits, slowed, said)
    if metric is None:
        return loss, float(loss.detach())
    of_pairs, share = metric.compute(embedding, targets, random), settings.loss_weight
    objective = float((1 - share) * loss.detach() + share * of_pairs.detach())
    # The part before is weighed where its gradient enters the embedding.
    return loss + share * of_pairs, objective


def _batch(
    network: EmbeddingNet,
    data: _Data,
    chosen: Tensor,
    mirrored: Tensor,
    settings: TrainSettings,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The network's input for the images `chosen`, and their classes (or shares of classes)."""
    where, targets = network.mean.device, data.targets[chosen]
    if data.fixed is not None:
        return data.fixed[chosen].to(where), targets.to(where)
    fill = 255 * network.mean.cpu()
    batch = augmented(data.images[chosen.numpy()], mirrored, settings, fill, random)
    if settings.mix != "none":
        shares = functional.one_hot(targets, network.classifier.out_features).float()
        batch, targets = mixed(batch, shares, settings.mix, random)
    return on_device(batch, where), targets.to(where)


def _order(
    targets: Tensor, metric: MetricLoss | None, settings: TrainSettings, random: torch.Generator
) -> Tensor:
    """The rows of each batch of an epoch, int64 (batches, size)."""
    if metric is not None and metric.needs_positives:
        return balanced(targets, settings.batch_size, settings.images_per_class, random)
    if settings.balance:
        return class_balanced(targets, settings.batch_size, random)
    return shuffled(len(targets), settings.batch_size, random)


def _mirrored(count: int, seed: int, epoch: int, flips: bool) -> Tensor:
    """Which of the images to mirror, bool (n,): half of them, the other half in the next epoch.

    So two epochs show every image both ways (arXiv:2404.00498, "alternating flip").
    """
    if not flips:
        return torch.zeros(count, dtype=torch.bool)
    coins = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return coins ^ (epoch % 2 == 1)


def _slowed(embedding: Tensor, share: float) -> Tensor:
    """The same numbers, but only a `share` of the gradient reaches what is before them.

    So cross-entropy trains the classifier in full, even if it has no share in the embedding.
    """
    fixed = embedding.detach()
    return fixed + share * (embedding - fixed)


def _require_finite(loss: float, epoch: int, optimizer: torch.optim.Optimizer) -> None:
    if not math.isfinite(loss):
        rate = optimizer.param_groups[0]["lr"]
        raise SettingsError(
            f"the loss became {loss} in epoch {epoch + 1} at learning rate {rate:.3g}",
            "train with a lower learning rate, or another --seed",
        )


def _optimizer(
    network: EmbeddingNet, metric: MetricLoss | None, settings: TrainSettings
) -> torch.optim.Optimizer:
    groups = parameter_groups(network, settings)
    proxies = [] if metric is None else list(metric.parameters.parameters())
    if proxies:
        # Only their direction counts, which decay does not change.
        groups.append({"params": proxies, "peak": settings.peak_rate, "weight_decay": 0.0})
    rate = settings.peak_rate
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(
        groups, lr=rate, momentum=settings.momentum, nesterov=settings.momentum > 0
    )


def _set_rates(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, step: int, steps: int
) -> None:
    share = rate_at(step, steps, settings.schedule, settings.warm_up)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def _stalled(log: list[EpochResult], patience: int) -> bool:
    """Whether the last `patience` epochs brought no better held-out accuracy than before them."""
    return 0 < patience < len(log) and best_accuracy(log[-patience:]) <= best_accuracy(
        log[:-patience]
    )


def _channel_statistics(images: NDArray[np.uint8]) -> Statistics:
    """The mean and standard deviation per channel of pixels scaled to 0..1."""
    # By the numbers of each value, because float64 copies of all images would not fit memory.
    levels = np.arange(256) / 255
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)]
    means = [float(np.average(levels, weights=count)) for count in counts]
    squares = [float(np.average(levels**2, weights=count)) for count in counts]
    pairs = zip(means, squares, strict=True)
    return tuple(means), tuple(math.sqrt(square - mean**2) for mean, square in pairs)


def _identity(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    settings: TrainSettings,
    answers: Answers | None,
) -> str:
    """A digest of what determines the weights: settings, images, weights file and teachers."""
    digest = hashlib.sha256(json.dumps(settings.recorded()).encode())
    digest.update(np.ascontiguousarray(labels).data)
    digest.update(np.ascontiguousarray(images).data)
    if settings.weights not in ("", PRETRAINED):
        digest.update(read_regular(settings.weights))
    if answers is not None:
        digest.update(json.dumps(answers.fingerprints).encode())
    return digest.hexdigest()
