"""Descriptors of local features and visual words: `model.npz` (arrays) and its card `model.json`.

The card lists blocks (`cbir.descriptors.blocks`); `model.npz` holds what was fitted: "0/words" is
the array "words" of block 0, "head/weights" (numbers, classes) and "head/bias" (classes,) a linear
head over all blocks' unit rows side by side. Nothing here is a neural network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.arrays import Arrays, fingerprint, npz_bytes, read_npz
from cbir.descriptors.blocks import (
    FEATURES,
    Block,
    Size,
    block_rows,
    head_rows,
    raw_dim,
    raw_features,
    settings_of,
    vector_dim,
)
from cbir.descriptors.cards import CARD_FILE, VARIANTS, ModelCard, card_fields, common_fields
from cbir.descriptors.fusion import Floats, fuse, sqrt_posterior
from cbir.descriptors.local.blas import keep_blas_on_one_thread
from cbir.descriptors.resize import FIT, MIN_SIDE, RESIZE, fitted, resized
from cbir.errors import CbirError
from cbir.images.decode import decoder_name
from cbir.types import DescriptorSpec, RgbImage, Vectors

ARRAYS_FILE = "model.npz"
HEAD = "head"
MAX_BATCH = 64


@dataclass(frozen=True)
class Posterior:
    """How a head's answer enters the vector: `temperature` flattens it, `weight` is its share."""

    temperature: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class BovwCard(ModelCard):
    """The card of a Bag-of-Visual-Words model. `size`, `blocks` and `posterior` change vectors.

    `size`: width and height, or one number: the longest side, aspect ratio kept. `posterior` is
    None where the model has no head; `classes` are then empty.
    """

    kind: ClassVar[str] = "bovw"
    size: Size
    blocks: tuple[Block, ...]
    posterior: Posterior | None = None

    @classmethod
    def parse(cls, data: bytes) -> BovwCard:
        """The card in `data` (UTF-8 JSON); raises `CbirError` where it is not one."""
        fields = card_fields(data)
        try:
            size, posterior = fields["size"], fields["posterior"]
            card = cls(
                **common_fields(fields),
                size=tuple(size) if isinstance(size, list) else size,
                blocks=tuple(Block(**block) for block in fields["blocks"]),
                posterior=None if posterior is None else Posterior(**posterior),
            )
            card._check()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CbirError(f"{CARD_FILE} is not a model card: {error}") from error
        return card

    def to_json(self) -> dict[str, Any]:
        """What `model.json` holds."""
        return {"kind": self.kind, **asdict(self)}

    def vector_facts(self) -> dict[str, Any]:
        """All of the card that changes a vector, and the versions of the code that does."""
        blocks = [
            {
                "feature": block.feature,
                "version": FEATURES[block.feature].version,
                "settings": settings_of(block),
                "weight": block.weight,
                "power": block.power,
            }
            for block in self.blocks
        ]
        return {
            "size": self.size,
            "resize": [RESIZE, FIT],
            "blocks": blocks,
            "posterior": asdict(self.posterior) if self.posterior else None,
        }

    def _check(self) -> None:
        sides = (self.size,) if isinstance(self.size, int) else self.size
        lowest = MIN_SIDE if isinstance(self.size, int) else 1
        if len(sides) > 2 or not all(isinstance(side, int) and side >= lowest for side in sides):
            raise ValueError(f"size {self.size}")
        for block in self.blocks:
            settings_of(block)
        if not isinstance(self.training["images"], str) or not self.training["images"]:
            raise ValueError("training names no images")
        if not any(block.weight for block in self.blocks):
            raise ValueError("no block has a weight")
        own = self.posterior
        if own and not (0 < own.temperature < float("inf") and 0 <= own.weight <= 1):
            raise ValueError(f"{own}")


class BovwDescriptor:
    """Weighted blocks of local features, with the square root of a head's posterior beside them.

    `variant` "fused" is both, "embedding" the blocks alone. A model without a head has nothing to
    fuse: both are the same, by its plain name. `files` are the model's files by name. Thread-safe.
    Raises `CbirError` where the files are damaged or do not fit each other. An image with nothing
    to say to a block has the first unit vector as that block's row, before its projection.
    """

    FILES: ClassVar[tuple[str, ...]] = (ARRAYS_FILE, CARD_FILE)

    def __init__(self, files: Mapping[str, bytes], variant: str = "fused") -> None:
        if variant not in VARIANTS:
            raise CbirError(f"unknown variant '{variant}'", f"known: {', '.join(VARIANTS)}")
        missing = set(self.FILES) - set(files)
        if missing:
            raise CbirError(f"the model lacks {', '.join(sorted(missing))}")
        self.files = dict(files)
        self.card = BovwCard.parse(files[CARD_FILE])
        self.variant = variant if self.card.posterior else "fused"
        arrays = read_npz(files[ARRAYS_FILE], ARRAYS_FILE)
        self._digest = fingerprint(arrays)
        self._blocks, self._head = _split(self.card, arrays)
        self._dims = [
            _checked(number, block, own, self.card.size)
            for number, (block, own) in enumerate(zip(self.card.blocks, self._blocks, strict=True))
        ]
        _check_head(self.card, sum(raw for raw, _ in self._dims), self._head)

    @cached_property
    def spec(self) -> DescriptorSpec:
        card = self.card
        facts = {**card.vector_facts(), "variant": self.variant}
        digest = hashlib.sha256(self._digest.encode())
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return DescriptorSpec(
            name=card.name if self.variant == "fused" else f"{card.name}:{self.variant}",
            dim=self._embedding_dim + (len(card.classes) if self._posterior else 0),
            fingerprint=digest.hexdigest(),
            preprocessing=self._preprocessing(),
            trained_on=card.trained_on,
            licence=card.licence,
        )

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` at the model's size: width and height, or the longest side."""
        size = self.card.size
        return fitted(image, size) if isinstance(size, int) else resized(image, *size)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """Unit vectors (n, spec.dim) of `images`."""
        keep_blas_on_one_thread()
        starts = range(0, len(images), MAX_BATCH)
        return np.concatenate(
            [self._vectors(images[start : start + MAX_BATCH]) for start in starts]
        )

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """Class numbers (n,) that fused `vectors` say, by their posterior; None if they do not."""
        if self._posterior is None or not self._posterior.weight:
            return None
        classes: NDArray[np.intp] = np.argmax(vectors[:, self._embedding_dim :], axis=1)
        return classes

    def _vectors(self, images: Sequence[RgbImage]) -> Vectors:
        prepared = [self.prepare(image) for image in images]
        rows, weights, heads = [], [], []
        for block, arrays in zip(self.card.blocks, self._blocks, strict=True):
            raw = raw_features(block, arrays, prepared)
            if block.weight:
                rows.append(block_rows(block, arrays, raw))
                weights.append(block.weight)
            if self._posterior:
                heads.append(head_rows(block, raw))
        embedding = fuse(rows, [weight / sum(weights) for weight in weights])
        if self._posterior is None:
            return embedding
        logits = np.hstack(heads) @ self._head["weights"] + self._head["bias"]
        share = self._posterior.weight
        posterior = sqrt_posterior(logits, self._posterior.temperature)
        return fuse([embedding, posterior], [1 - share, share])

    @property
    def _posterior(self) -> Posterior | None:
        return self.card.posterior if self.variant == "fused" else None

    @property
    def _embedding_dim(self) -> int:
        pairs = zip(self.card.blocks, self._dims, strict=True)
        return sum(dim for block, (_, dim) in pairs if block.weight)

    def _preprocessing(self) -> dict[str, str]:
        """How vectors are made, for people."""
        card, size = self.card, self.card.size
        total = sum(block.weight for block in card.blocks)
        told = {
            "decoder": decoder_name(),
            "resize": f"longest side {size}, {FIT}"
            if isinstance(size, int)
            else f"{size[0]}x{size[1]}, {RESIZE}",
        }
        if any(FEATURES[block.feature].uses_opencv for block in card.blocks):
            from cbir.descriptors.local.opencv import cv2

            told["opencv"] = cv2.__version__
        for number, (block, (raw, dim)) in enumerate(zip(card.blocks, self._dims, strict=True)):
            own = "".join(f" {name}={value}" for name, value in block.params.items())
            sizes = f"{raw} -> {dim}" if block.weight else f"{raw}, for the head alone"
            told[f"block {number}"] = (
                f"{block.feature}{own}; power {block.power:g}; numbers {sizes}; "
                f"weight {block.weight / total:.3g}"
            )
        posterior = self._posterior
        told["vector"] = "weighted blocks" + (
            f" + sqrt posterior (T={posterior.temperature:g}, weight {posterior.weight:g})"
            if posterior
            else ""
        )
        return told


def model_files(card: BovwCard, arrays: Arrays) -> dict[str, bytes]:
    """The files of a model by name, the same bytes for the same card and arrays.

    `arrays` are float16 or float32, named as this module says. Raises `CbirError` where they do
    not fit the card.
    """
    files = {
        ARRAYS_FILE: npz_bytes(arrays),
        CARD_FILE: json.dumps(card.to_json(), indent=1).encode(),
    }
    BovwDescriptor(files)
    return files


def _split(card: BovwCard, arrays: Arrays) -> tuple[list[dict[str, Floats]], dict[str, Floats]]:
    """The arrays of each block, and those of the head, as float32 by their own names."""
    blocks: list[dict[str, Floats]] = [{} for _ in card.blocks]
    head: dict[str, Floats] = {}
    owners = {str(number): own for number, own in enumerate(blocks)} | {HEAD: head}
    for name, array in arrays.items():
        owner, _, own_name = name.partition("/")
        if owner not in owners:
            raise CbirError(f"{ARRAYS_FILE} holds '{name}', and the card has no such block")
        owners[owner][own_name] = array.astype(np.float32, copy=False)
    return blocks, head


def _checked(number: int, block: Block, arrays: Arrays, size: Size) -> tuple[int, int]:
    """How many raw numbers a block has, and how many in the vector."""
    try:
        return raw_dim(block, arrays, size), vector_dim(block, arrays, size)
    except CbirError as error:
        raise CbirError(f"block {number} does not fit: {error.message}", error.hint) from error


def _check_head(card: BovwCard, width: int, head: Arrays) -> None:
    if card.posterior is None:
        if head:
            raise CbirError(f"{ARRAYS_FILE} holds a head, and the card has no posterior")
        return
    if set(head) != {"weights", "bias"}:
        raise CbirError(f"the card has a posterior, and {ARRAYS_FILE} not the two arrays of a head")
    weights, bias = head["weights"], head["bias"]
    if weights.ndim != 2 or bias.shape != weights.shape[1:]:
        raise CbirError(f"a head of weights {weights.shape} and bias {bias.shape} fits nothing")
    if len(weights) != width:
        raise CbirError(f"a head for {len(weights)} numbers does not fit blocks of {width}")
    if len(bias) != len(card.classes):
        raise CbirError(
            f"a head of {len(bias)} classes does not fit a card that lists {len(card.classes)}"
        )
