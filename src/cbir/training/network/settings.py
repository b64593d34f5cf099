"""All hyper-parameters of a training run, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cbir.errors import CbirError
from cbir.training.network.backbones import plan_of
from cbir.training.network.losses import CROSS_ENTROPY, LOSSES
from cbir.wording import did_you_mean

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("one-cycle", "cosine")
MIXES = ("none", "mixup", "cutmix")
STEPS_PER_EPOCH, SMALLEST_BATCH = 50, 16
SHARES = (
    "warm_up",
    "momentum",
    "dropout",
    "label_smoothing",
    "ema",
    "crop",
    "jpeg",
    "brightness",
    "freeze",
    "layer_decay",
    "loss_weight",
    "teacher_weight",
)
BOOLEANS = ("mirror", "balance", "flip", "compile")
AUGMENTATION = ("flip", "shift", "crop", "cutout", "mix", "jpeg", "brightness")
ADAMW_RATE = 1e-3
MOST_SEED = 2**32
COUNTS = ("size", "epochs", "batch_size", "images_per_class")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that determines the weights, except the images.

    Network: `backbone` by name with its input `size` in pixels, `width` factor and `depth` (0: its
    own); `embedding` is the number of dimensions of a linear layer after it (0: none, the features
    of the backbone are the embedding, because such a layer learns little but the classes), with
    `dropout` before it. `weights` are "" (random), "pretrained" or a path. `mirror`: the model
    averages an image and its mirror image.

    Fine-tuning: the first `freeze` (share) of the stages stays fixed, and the learning rate falls
    by the factor `layer_decay` from each stage to the one before.

    Optimiser: `peak_rate` is for `batch_size` images; `schedule` with a `warm_up` (share of the
    steps); `bias_rate_factor` is for the biases of batch norm; `clip` limits the norm of the
    gradient and `patience` the epochs without a better held-out accuracy (0: no limit); `ema` is
    the decay of averaged weights (0: off). `balance` draws every class equally often.

    Augmentation: `flip` mirrors half of the images, `shift` moves by up to so many pixels, `crop`
    takes a random part of at least this share of the area (1: off), `cutout` covers a square of so
    many pixels, `mix` blends two images, `jpeg` is the share of images re-encoded at a random
    quality, and `brightness` the largest relative change.

    Losses: `loss_weight` (0..1) is the share of a metric loss in the gradient of the embedding, and
    `images_per_class` the least number of images of a class in its batches. `teacher` names models
    whose averaged answers have the share `teacher_weight` in the loss.

    `compile` uses torch.compile.
    """

    backbone: str = "airbench94"
    size: int = 32
    width: float = 1.0
    depth: int = 0
    dropout: float = 0.0
    embedding: int = 0
    weights: str = ""
    mirror: bool = False
    freeze: float = 0.0
    layer_decay: float = 1.0
    epochs: int = 16
    batch_size: int = 512
    optimizer: str = "sgd"
    peak_rate: float = 0.75
    bias_rate_factor: float = 64.0
    weight_decay: float = 1.3e-3
    momentum: float = 0.85
    schedule: str = "one-cycle"
    warm_up: float = 0.23
    label_smoothing: float = 0.2
    ema: float = 0.0
    clip: float = 0.0
    patience: int = 0
    balance: bool = False
    flip: bool = True
    shift: int = 2
    crop: float = 1.0
    cutout: int = 0
    mix: str = "none"
    jpeg: float = 0.0
    brightness: float = 0.0
    seed: int = 0
    loss: str = CROSS_ENTROPY
    loss_weight: float = 0.5
    images_per_class: int = 4
    teacher: tuple[str, ...] = ()
    teacher_weight: float = 0.5
    compile: bool = False

    def __post_init__(self) -> None:
        _check_choice("loss", self.loss, LOSSES)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("mix", self.mix, MIXES)
        values = asdict(self)
        for name in SHARES:
            if not 0 <= values[name] <= 1:
                raise CbirError(f"{name} {values[name]:g} is not possible", "choose from 0 to 1")
        for name in COUNTS:
            if values[name] < 1:
                raise CbirError(f"{name} {values[name]} is not possible", "choose 1 or more")
        for name, value in values.items():
            if isinstance(value, float | int) and not value >= 0:
                raise CbirError(f"{name} {value:g} is not possible", "choose 0 or more")
        for name in BOOLEANS:
            if type(values[name]) is not bool:
                raise CbirError(f"{name} {values[name]} is not possible", "choose true or false")
        if self.seed >= MOST_SEED:
            raise CbirError(f"seed {self.seed} is too large", f"choose one below {MOST_SEED}")
        if self.shift >= self.size:
            raise CbirError(
                f"a shift of {self.shift} pixels is too large for a size of {self.size}",
                "choose a smaller --set shift=N",
            )
        if self.mix != "none" and self.freeze == 1:
            raise CbirError(
                f"{self.mix} and a fixed backbone exclude each other",
                "the features of a fixed backbone are computed once: leave out one of the two",
            )
        smallest = plan_of(self.backbone).smallest
        if self.size < smallest:
            raise CbirError(
                f"an input of {self.size} pixels is too small for {self.backbone}",
                f"choose a size of at least {smallest}",
            )
        if self.mix != "none" and (self.loss != CROSS_ENTROPY or self.teacher):
            other = "a teacher" if self.teacher else f"the loss {self.loss}"
            raise CbirError(
                f"{self.mix} and {other} exclude each other",
                "a mixed image has no single class: choose one of the two",
            )

    def recorded(self) -> dict[str, Any]:
        """The settings that have an effect, by name, for the card and the checkpoint."""
        values = asdict(self)
        if self.loss == CROSS_ENTROPY:
            del values["loss_weight"], values["images_per_class"]
        if not self.teacher:
            del values["teacher"], values["teacher_weight"]
        if self.optimizer != "sgd":
            del values["momentum"], values["bias_rate_factor"]
        if self.freeze == 1:
            for name in AUGMENTATION:
                del values[name]
        return values


def settings_for(images: int, **chosen: Any) -> TrainSettings:
    """Settings for a number of training images: those `chosen`, else those of the backbone.

    A batch size that is not chosen aims for 50 steps per epoch, with batches of at least 16; a
    learning rate that is not chosen scales with it (Goyal et al. 2017, arXiv:1706.02677; with the
    square root for AdamW, Malladi et al. 2022, arXiv:2205.10287). Raises `CbirError` for an unknown
    setting or an impossible value.
    """
    check_names(chosen)
    plan = plan_of(chosen.get("backbone", TrainSettings.backbone))
    defaults = plan.defaults_for(chosen.get("weights"))
    if chosen.get("optimizer") == "adamw" != defaults.get("optimizer"):
        defaults |= {"peak_rate": ADAMW_RATE}  # rates of SGD are far too high for AdamW
    values = {**defaults, **chosen}
    full = TrainSettings(**values)
    batch_size = full.batch_size
    if "batch_size" not in chosen:
        while batch_size > SMALLEST_BATCH and images < STEPS_PER_EPOCH * batch_size:
            batch_size //= 2
    if "peak_rate" not in chosen:
        ratio = batch_size / defaults.get("batch_size", TrainSettings.batch_size)
        values["peak_rate"] = full.peak_rate * (ratio if full.optimizer == "sgd" else ratio**0.5)
    return TrainSettings(**{**values, "batch_size": batch_size})


def parsed(assignment: str) -> tuple[str, Any]:
    """The name and value of a setting written as NAME=VALUE; raises `CbirError` if it is none."""
    name, equals, text = assignment.partition("=")
    if not equals:
        raise CbirError(f"--set {name} has no value", "write NAME=VALUE")
    check_names({name: text})
    kind = type(getattr(TrainSettings, name))
    if kind is bool:
        if text not in ("true", "false"):
            raise CbirError(f"'{text}' is no value of {name}", "give true or false")
        return name, text == "true"
    if kind is tuple:
        return name, tuple(text.split(","))
    try:
        return name, kind(text)
    except ValueError as error:
        cure = "give a whole number" if kind is int else "give a number"
        raise CbirError(f"'{text}' is no value of {name}", cure) from error


def check_names(chosen: Mapping[str, Any]) -> None:
    """Raise `CbirError` if a name in `chosen` is not a setting."""
    names = [field.name for field in fields(TrainSettings)]
    for name in chosen:
        if name not in names:
            raise CbirError(f"unknown setting '{name}'", did_you_mean(name, names))


def _check_choice(what: str, value: str, among: tuple[str, ...]) -> None:
    if value not in among:
        raise CbirError(f"unknown {what} '{value}'", did_you_mean(value, among))
