"""The parts that all models share: the card `model.json`, the spec and the model interface."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.contract import Descriptor, Preparing
from cbir.errors import CbirError
from cbir.files import sha256_of
from cbir.images.decode import decoder_name
from cbir.types import DescriptorSpec, ModelFile, Vectors

CARD_FILE = "model.json"
VARIANTS = ("fused", "embedding")


@dataclass(frozen=True, kw_only=True)
class ModelCard(ABC):
    """The card fields that models of every kind share; they do not affect vectors."""

    kind: ClassVar[str]
    name: str
    classes: tuple[str, ...]
    trained_on: str
    licence: str
    training: Mapping[str, Any]
    quality: Mapping[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a card from UTF-8 JSON; raises `CbirError` if it is not a card of this kind."""
        stored = card_fields(data)
        try:
            _check_shared(stored)
            known = {field.name for field in fields(cls)}
            return cls(**cls.converted({name: stored[name] for name in known & set(stored)}))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise no_card(error) from error

    @classmethod
    def converted(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Convert JSON values to fields."""
        return stored | {"classes": tuple(stored["classes"])}

    @property
    def training_prefix(self) -> str:
        """The common id prefix of the model's training images."""
        return str(self.training["images"])

    @abstractmethod
    def vector_facts(self) -> dict[str, Any]:
        """All card fields that change a vector, as JSON values."""

    def spec(
        self,
        variant: str,
        dim: int,
        weights: Sequence[ModelFile],
        preprocessing: Mapping[str, str],
    ) -> DescriptorSpec:
        """The spec of a model with this card; its fingerprint covers `weights` and the facts."""
        facts = json.dumps({**self.vector_facts(), "variant": variant}, sort_keys=True).encode()
        return DescriptorSpec(
            name=self.name if variant == "fused" else f"{self.name}:{variant}",
            dim=dim,
            fingerprint=sha256_of(*weights, facts),
            preprocessing={"decoder": decoder_name(), **preprocessing},
            trained_on=self.trained_on,
            licence=self.licence,
        )


@runtime_checkable
class Model(Descriptor, Preparing, Protocol):
    """A descriptor defined by a card and data files.

    `files` are by name, in memory or on disk, and are stored with an index. `variant` is "fused"
    (with the posterior, if the model has a head) or "embedding" (without).
    """

    @property
    def files(self) -> Mapping[str, ModelFile]: ...

    @property
    def variant(self) -> str: ...

    @property
    def card(self) -> ModelCard: ...

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """The class numbers (n,) by the posterior in `vectors`; None if there is no posterior."""
        ...


def split_variant(name: str) -> tuple[str, str]:
    """The name of a model without its variant, and the variant: "fused" if it names none."""
    stem, _, variant = name.rpartition(":")
    return (stem, variant) if stem and variant in VARIANTS else (name, "fused")


def card_fields(data: bytes) -> dict[str, Any]:
    """The JSON object in `data` (UTF-8); raises `CbirError` if there is none."""
    try:
        stored = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise no_card(error) from error
    if not isinstance(stored, dict):
        raise no_card("it is not a JSON object")
    return stored


def _check_shared(stored: Mapping[str, Any]) -> None:
    """Raise `KeyError` or `ValueError` if a field that all models share is missing or odd."""
    for name, kind in (("name", str), ("trained_on", str), ("licence", str), ("training", dict)):
        if not isinstance(stored[name], kind):
            raise ValueError(f"{name} is {repr(stored[name])[:60]}")
    if not isinstance(stored["training"]["images"], str) or not stored["training"]["images"]:
        raise ValueError("training lists no images")


def checked_files(files: Mapping[str, ModelFile], needed: Sequence[str], variant: str) -> None:
    """Raise `CbirError` if a `needed` file is missing or the variant is unknown."""
    if variant not in VARIANTS:
        raise CbirError(f"unknown variant '{variant}'", f"known: {', '.join(VARIANTS)}")
    if missing := sorted(set(needed) - set(files)):
        raise CbirError(f"the model lacks {', '.join(missing)}")


def no_card(why: object) -> CbirError:
    """The error for a file that is not a model card."""
    return CbirError(f"{CARD_FILE} is not a model card: {why}", "restore the model's files")
