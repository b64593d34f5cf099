"""Networks of timm and torchvision as backbones: any of them, without its classifier."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from cbir.errors import CbirError, SettingsError
from cbir.registry import installed, require_extra
from cbir.training.network.backbones.plan import (
    Plan,
    Statistics,
    count_features,
    refuse_factors,
)
from cbir.training.network.backbones.stored_weights import load_weights, read_weights
from cbir.wording import did_you_mean, nearest

LIBRARIES = ("timm", "torchvision")
PRETRAINED = "pretrained"
NO_WEIGHTS = "--weights '' for random ones"
CLASSES = 1000
# Input sizes to propose: multiples of the usual patches and strides, and the least of Inception.
SIZES = [side for side in range(1, 449) if side % 14 == 0 or side % 16 == 0 or side == 75]
# What networks raise for an input that is too small, or of a size that they do not take.
UNSUITABLE = (RuntimeError, ValueError, AssertionError, TypeError, LookupError, ArithmeticError)
# Names of the two auxiliary classifiers of torchvision's GoogLeNet, and of that of its Inception.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")

FROM_SCRATCH: dict[str, Any] = {
    "size": 64,
    "optimizer": "adamw",
    "bias_rate_factor": 1.0,
    "batch_size": 128,
    "peak_rate": 5e-4,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warm_up": 0.1,
    "label_smoothing": 0.1,
    "shift": 4,
    "clip": 1.0,
}
FINE_TUNING: dict[str, Any] = {"size": 128, "peak_rate": 5e-4, "layer_decay": 0.75, "shift": 8}


class LibraryNetwork(nn.Module):
    """A network of a library that returns features (n, `features`) of images of one size."""

    def __init__(self, network: nn.Module, features: int, normalisation: Statistics | None) -> None:
        super().__init__()
        self.network = network
        self.features = features
        self.normalisation = normalisation

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features

    def stages(self) -> list[nn.Module]:
        return split(self.network)


def library_plan(name: str) -> Plan:
    """The plan of `timm:NAME` or `torchvision:NAME`; raises `CbirError` if there is none."""
    library, _, model = name.partition(":")
    require_extra(f"the backbone {name}", "train", library)
    if model not in names(library):
        known = [f"{library}:{known}" for known in sorted(names(library))]
        example = f"name a network of {library}, such as {library}:resnet50"
        hint = did_you_mean(name, known, example) if model else example
        raise CbirError(f"unknown backbone '{name}'", hint)
    build = _timm_network if library == "timm" else _torchvision_network
    return Plan(partial(build, name), 1, FROM_SCRATCH, FINE_TUNING)


@cache
def names(library: str) -> frozenset[str]:
    """The networks of an installed `library` that classify images; timm's also as NAME.WEIGHTS."""
    if library == "timm":
        import timm

        return frozenset([*timm.list_models(), *timm.list_pretrained()])
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


def in_libraries(name: str) -> list[str]:
    """The backbones of installed libraries that have this `name` there."""
    return [
        f"{library}:{name}"
        for library in LIBRARIES
        if installed(library) and name in names(library)
    ]


def split(network: nn.Module) -> list[nn.Module]:
    """The parts of `network` in the order of its children; together they own all parameters.

    Containers at the top are opened, and so is what holds more than half of the parameters. A part
    without weights, such as batch norm, joins the one before.
    """
    parts: list[nn.Module] = []
    for part in _opened(network, _count(network) / 2, top=True):
        if parts and all(parameter.ndim < 2 for parameter in part.parameters()):
            parts[-1] = nn.ModuleList([parts[-1], part])
        else:
            parts.append(part)
    return parts


def _opened(module: nn.Module, limit: float, top: bool = False) -> Iterator[nn.Module]:
    # Parameters between the children, such as position embeddings, make a part of their own.
    if loose := list(module.parameters(recurse=False)):
        yield nn.ParameterList(loose)
    for child in module.children():
        container = isinstance(child, nn.Sequential | nn.ModuleList)
        if list(child.children()) and ((top and container) or _count(child) > limit):
            yield from _opened(child, limit)
        elif _count(child):
            yield child


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _timm_network(name: str, size: int, width: float, depth: int, weights: str) -> LibraryNetwork:
    import timm

    refuse_factors(name, width, depth)
    model = name.partition(":")[2]
    if weights == PRETRAINED and not timm.is_model_pretrained(model):
        raise CbirError(f"timm has no pre-trained weights for {model}", _with_weights(model))
    sized = timm.get_pretrained_cfg(model).fixed_input_size

    def made(side: int, pretrained: bool = False) -> Any:
        input_size = {"img_size": side} if sized else {}
        return timm.create_model(model, pretrained, num_classes=0, **input_size)

    def trial(side: int) -> int:
        with torch.device("meta"):
            return count_features(made(side), side)

    features = _features(name, trial, size)
    network = _fetched(name, lambda: made(size, weights == PRETRAINED))
    config = network.pretrained_cfg
    if weights not in ("", PRETRAINED):
        heads = config["classifier"] or ()
        prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        # Position embeddings of another input size are resampled, by the function of timm.
        fitted = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        adapted = partial(fitted, model=network) if fitted else dict
        load_weights(network, read_weights(weights), weights, name, prefixes, adapted)
    return LibraryNetwork(network, features, (config["mean"], config["std"]) if weights else None)


def _with_weights(model: str) -> str:
    """The hint for a network of timm that has no weights: the nearest one that has."""
    import timm

    near = nearest(model, sorted({known.partition(".")[0] for known in timm.list_pretrained()}))
    return (f"choose --backbone timm:{near}, or " if near else "use ") + NO_WEIGHTS


def _torchvision_network(
    name: str, size: int, width: float, depth: int, weights: str
) -> LibraryNetwork:
    from torchvision import models

    refuse_factors(name, width, depth)
    model = name.partition(":")[2]
    auxiliary = model in ("googlenet", "inception_v3")
    network = models.get_model(
        model, **({"aux_logits": False, "init_weights": True} if auxiliary else {})
    )
    classifier = _classifier(network)
    network.set_submodule(classifier, nn.Identity())
    features = _features(name, partial(count_features, network), size)
    if not weights:
        return LibraryNetwork(network, features, None)
    official = models.get_model_weights(model).DEFAULT
    if weights == PRETRAINED:
        tensors = _fetched(
            name, partial(official.get_state_dict, check_hash=True, weights_only=True)
        )
    else:
        tensors = read_weights(weights)
    # The files of DenseNet are older than the names of its layers.
    tensors = {re.sub(r"(denselayer\d+\.\w+)\.([12]\.)", r"\1\2", k): t for k, t in tensors.items()}
    load_weights(network, tensors, weights, name, (f"{classifier}.", *AUXILIARY))
    if auxiliary:
        network.transform_input = True
    expected = official.transforms()
    return LibraryNetwork(network, features, (expected.mean, expected.std))


def _classifier(network: nn.Module) -> str:
    """The name of the layer that scores the 1,000 classes of ImageNet."""
    scores: list[str] = [
        name
        for name, layer in network.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == CLASSES)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == CLASSES)
    ]
    return scores[-1]


def _features(name: str, trial: Callable[[int], int], size: int) -> int:
    """The number of features at this input size, or a `CbirError` that names the next one."""
    try:
        return trial(size)
    except UNSUITABLE as error:
        larger = next((side for side in SIZES if side > size and _suits(trial, side)), None)
        raise SettingsError(
            f"{name} does not take an input of {size} pixels",
            f"choose a size of {larger}" if larger else f"choose another backbone ({error})",
        ) from error


def _suits(trial: Callable[[int], int], side: int) -> bool:
    try:
        trial(side)
    except UNSUITABLE:
        return False
    return True


def _fetched(name: str, fetch: Callable[[], Any]) -> Any:
    """What `fetch` returns; raises `CbirError` if it cannot be fetched."""
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        # torch.hub has a plain RuntimeError for a damaged download; others are not about fetching.
        if not isinstance(error, OSError) and not str(error).startswith("invalid hash"):
            raise
        raise CbirError(
            f"the weights of {name} cannot be fetched: {str(error).splitlines()[0]}",
            "connect to the internet and try again, or name a file that you have as the weights",
        ) from error
