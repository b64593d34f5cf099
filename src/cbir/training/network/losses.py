"""Metric losses by name: what `cbir train cnn --loss` trains the embedding with.

All compare embeddings scaled to unit length, as searching does. Most come from
pytorch-metric-learning; batch-weighted and batch-sample triplets, which it lacks, are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cbir.registry import require_extra

CROSS_ENTROPY = "cross-entropy"
MARGIN = 0.2
# Distances of unit vectors lie in 0..2, where a plain softmax is nearly uniform.
TEMPERATURE = 0.1

Compute = Callable[[Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class MetricLoss:
    """A loss of embeddings (n, dim), their class numbers (n,), and a source of random numbers.

    `parameters` holds what is trained with the network, such as proxies. `needs_positives`: a
    batch has to contain several images of each of its classes.
    """

    compute: Compute
    parameters: nn.Module
    needs_positives: bool


def metric_loss(name: str, classes: int, dim: int) -> MetricLoss | None:
    """The metric loss `name`, with new parameters; None for cross-entropy."""
    if name == CROSS_ENTROPY:
        return None
    if name in _OWN:
        return MetricLoss(_OWN[name], nn.Module(), needs_positives=True)
    require_extra(f"the loss {name}", "train", "pytorch_metric_learning")
    module: nn.Module = _LIBRARY[name](classes, dim)

    def compute(embeddings: Tensor, labels: Tensor, _: torch.Generator) -> Tensor:
        loss: Tensor = module(embeddings, labels)
        return loss

    return MetricLoss(compute, module, needs_positives=name not in _PROXIES)


def batch_weighted(embeddings: Tensor, labels: Tensor, _: torch.Generator) -> Tensor:
    """Triplet loss of the mean positive and negative distance, the harder images weighing more.

    The weights of an anchor's positives are the softmax of their distances, those of its negatives
    the softmin (Ristani and Tomasi 2018, arXiv:1803.10859). Mean over the anchors; no gradient
    passes through the weights.
    """
    distances, positive, negative = _pairs(embeddings, labels)
    far, near = _hardness(distances, positive, negative)
    return _mean_hinge((far * distances).sum(1), (near * distances).sum(1), distances)


def batch_sample(embeddings: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
    """Triplet loss of one random positive and negative per anchor, harder ones more probable.

    The probabilities are the weights of `batch_weighted` (Kumar et al. 2019, arXiv:1901.01015).
    """
    distances, positive, negative = _pairs(embeddings, labels)
    drawn = [
        distances.gather(1, _drawn(weights, random))[:, 0]
        for weights in _hardness(distances, positive, negative)
    ]
    return _mean_hinge(drawn[0], drawn[1], distances)


def _drawn(weights: Tensor, random: torch.Generator) -> Tensor:
    # On the CPU, where the source of random numbers is.
    return torch.multinomial(weights.cpu(), 1, generator=random).to(weights.device)


def _pairs(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (anchors, n), and masks of positives and negatives; anchors have some of both."""
    unit = functional.normalize(embeddings)
    same = labels[:, None] == labels
    positive, negative = same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device), ~same
    anchors = positive.any(1) & negative.any(1)
    distances = torch.cdist(unit[anchors], unit, compute_mode="donot_use_mm_for_euclid_dist")
    return distances, positive[anchors], negative[anchors]


def _hardness(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """The shares (anchors, n) of positives and of negatives; each row sums to 1."""
    scaled = distances.detach() / TEMPERATURE
    impossible = -torch.inf
    return (
        scaled.masked_fill(~positive, impossible).softmax(1),
        (-scaled).masked_fill(~negative, impossible).softmax(1),
    )


def _mean_hinge(positive: Tensor, negative: Tensor, distances: Tensor) -> Tensor:
    if not len(distances):
        return distances.sum()
    return functional.relu(MARGIN + positive - negative).mean()


def _batch_all(*_: int) -> Any:
    from pytorch_metric_learning.losses import TripletMarginLoss

    return TripletMarginLoss(margin=MARGIN)


def _batch_hard(*_: int) -> Any:
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    class BatchHard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mine = BatchHardMiner()
            self.loss = TripletMarginLoss(margin=MARGIN, reducer=MeanReducer())

        def forward(self, embeddings: Tensor, labels: Tensor) -> Any:
            return self.loss(embeddings, labels, self.mine(embeddings, labels))

    return BatchHard()


def _contrastive(*_: int) -> Any:
    from pytorch_metric_learning.losses import ContrastiveLoss

    return ContrastiveLoss()


def _supervised_contrastive(*_: int) -> Any:
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss()


def _proxy_anchor(classes: int, dim: int) -> Any:
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    return ProxyAnchorLoss(classes, dim)


def _normalised_softmax(classes: int, dim: int) -> Any:
    from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

    return NormalizedSoftmaxLoss(classes, dim)


_OWN: dict[str, Compute] = {
    "triplet-batch-weighted": batch_weighted,
    "triplet-batch-sample": batch_sample,
}
_PROXIES: dict[str, Callable[[int, int], Any]] = {
    "proxy-anchor": _proxy_anchor,
    "normalised-softmax": _normalised_softmax,
}
_LIBRARY: dict[str, Callable[[int, int], Any]] = {
    "triplet-batch-all": _batch_all,
    "triplet-batch-hard": _batch_hard,
    "contrastive": _contrastive,
    "supervised-contrastive": _supervised_contrastive,
    **_PROXIES,
}
LOSSES = (CROSS_ENTROPY, *_OWN, *_LIBRARY)
