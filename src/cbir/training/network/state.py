"""The state of a training run between epochs: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cbir.training.network.checkpoint import grouped, read_checkpoint, write_checkpoint
from cbir.training.network.losses import MetricLoss
from cbir.training.network.network import EmbeddingNet


@dataclass(frozen=True)
class EpochResult:
    """One line of the training log: loss is the mean over the epoch, accuracies lie in 0..1."""

    epoch: int
    loss: float
    train_accuracy: float
    held_out_accuracy: float
    seconds: float


@dataclass
class TrainingState:
    """Everything that changes while training.

    `averaged` holds the moving average of the weights, and `best` the weights of the epoch with the
    best held-out accuracy, where they are wanted. `embed` is the network's, compiled or not. A
    `fixed_backbone` does not change, so no checkpoint holds it.
    """

    network: EmbeddingNet
    metric: MetricLoss | None
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None
    embed: Callable[[Tensor], Tensor]
    keep_best: bool
    fixed_backbone: bool
    best: dict[str, Tensor] = field(default_factory=dict)
    log: list[EpochResult] = field(default_factory=list)

    def measured(self) -> EmbeddingNet:
        """The network whose accuracy counts: the averaged one if there is one."""
        return self.network if self.averaged is None else cast(EmbeddingNet, self.averaged.module)

    def finish_epoch(self, result: EpochResult) -> None:
        """Add `result` to the log, and keep the weights if they are the best so far."""
        if self.keep_best and result.held_out_accuracy > best_accuracy(self.log):
            self.best = {name: t.clone() for name, t in self.measured().state_dict().items()}
        self.log.append(result)

    def result(self) -> EmbeddingNet:
        """The trained network, in evaluation mode."""
        network = self.measured()
        if self.best:
            network.load_state_dict(self.best, strict=not self.fixed_backbone)
        return network.eval()

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint; `identity` is that of the run."""
        facts = {"identity": identity, "log": [asdict(result) for result in self.log]}
        tensors = {
            f"{part}/{name}": tensor
            for part, named in self._parts().items()
            for name, tensor in named.items()
            if not (self.fixed_backbone and "backbone" in name.split("."))
        }
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in state.items()}
        write_checkpoint(path, tensors, facts)

    def restore(self, path: Path, identity: str) -> bool:
        """Resume from the checkpoint at `path`; False if it is of another run."""
        tensors, facts = read_checkpoint(path)
        if facts["identity"] != identity:
            return False
        strict = not self.fixed_backbone
        self.network.load_state_dict(grouped(tensors, "network/"), strict)
        if self.metric is not None:
            self.metric.parameters.load_state_dict(grouped(tensors, "loss/"))
        if self.averaged is not None:
            self.averaged.load_state_dict(grouped(tensors, "averaged/"), strict)
        self.best = grouped(tensors, "best/")
        states: dict[int, dict[str, Tensor]] = {}
        for key, tensor in grouped(tensors, "optimizer/").items():
            index, name = key.split("/")
            states.setdefault(int(index), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.log = [EpochResult(**line) for line in facts["log"]]
        return True

    def _parts(self) -> dict[str, Mapping[str, Tensor]]:
        parts: dict[str, Mapping[str, Tensor]] = {"network": self.network.state_dict()}
        if self.metric is not None:
            parts["loss"] = self.metric.parameters.state_dict()
        if self.averaged is not None:
            parts["averaged"] = self.averaged.state_dict()
        return parts | {"best": self.best}


def moving_average(network: EmbeddingNet, decay: float) -> AveragedModel | None:
    """An exponential moving average of the weights and of batch norm's statistics; None for 0."""
    if not decay:
        return None
    averaging = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)


def best_accuracy(log: list[EpochResult]) -> float:
    """The best held-out accuracy of the epochs so far; below 0 before the first."""
    return max((result.held_out_accuracy for result in log), default=-1.0)
