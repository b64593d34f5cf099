"""What every model has: its card `model.json`, and what a model can do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.contract import Descriptor, Preparing
from cbir.errors import CbirError
from cbir.types import Vectors

CARD_FILE = "model.json"
VARIANTS = ("fused", "embedding")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the card of a model of any kind says, and no vector depends on."""

    kind: ClassVar[str]
    name: str
    classes: tuple[str, ...]
    trained_on: str
    licence: str
    training: Mapping[str, Any]
    quality: Mapping[str, Any]

    @property
    def training_prefix(self) -> str:
        """What the ids of the images begin with that the model was trained on."""
        return str(self.training["images"])


@runtime_checkable
class Model(Descriptor, Preparing, Protocol):
    """A descriptor that is data: a card and the files that it can be made from again.

    `files` are by name and travel with an index. `variant` is "fused" (with the posterior, where
    there is a head) or "embedding" (without).
    """

    @property
    def files(self) -> Mapping[str, bytes]: ...

    @property
    def variant(self) -> str: ...

    @property
    def card(self) -> ModelCard: ...

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """Class numbers (n,) that `vectors` say, by their posterior; None if they do not."""
        ...


def card_fields(data: bytes) -> dict[str, Any]:
    """The JSON object in `data` (UTF-8); raises `CbirError` where it is none."""
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise CbirError(f"{CARD_FILE} is not a model card: {error}") from error
    if not isinstance(fields, dict):
        raise CbirError(f"{CARD_FILE} is not a model card: it holds no object")
    return fields


def common_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ModelCard` in a card; raises `KeyError` or `TypeError`."""
    return {
        "name": fields["name"],
        "classes": tuple(fields["classes"]),
        "trained_on": fields["trained_on"],
        "licence": fields["licence"],
        "training": fields["training"],
        "quality": fields["quality"],
    }
