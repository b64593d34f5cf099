"""Descriptors of local features and visual words: `model.npz` (arrays) and its card `model.json`.

The card lists blocks (see `cbir.descriptors.blocks`). `model.npz` holds the fitted arrays:
"0/words" is the array "words" of block 0; "head/weights" (dimensions, classes) and "head/bias"
(classes,) are a linear head over the concatenated unit rows of all blocks. There is no neural
network.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.arrays import Arrays, fingerprint, npz_bytes, read_npz
from cbir.descriptors.blocks import (
    FEATURES,
    Block,
    block_rows,
    head_rows,
    raw_dim,
    raw_features,
    settings_of,
    vector_dim,
)
from cbir.descriptors.cards import CARD_FILE, ModelCard, checked_files
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import BHATTACHARYYA, Posterior, fuse
from cbir.descriptors.resize import FIT, MIN_SIDE, RESIZE, Size, at_size
from cbir.errors import CbirError
from cbir.files import content
from cbir.machine import keep_blas_on_one_thread
from cbir.types import DescriptorSpec, Floats, ModelFile, RgbImage, Vectors

ARRAYS_FILE = "model.npz"
HEAD = "head"
MAX_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class BovwCard(ModelCard):
    """The card of a Bag-of-Visual-Words model. `size`, `blocks` and `posterior` change vectors.

    `size`: width and height, or one number: the longest side, preserving the aspect ratio.
    `posterior` is None and `classes` empty if the model has no head.
    """

    kind: ClassVar[str] = "bovw"
    size: Size
    blocks: tuple[Block, ...]
    posterior: Posterior | None = None

    def __post_init__(self) -> None:
        sides = (self.size,) if isinstance(self.size, int) else self.size
        lowest = MIN_SIDE if isinstance(self.size, int) else 1
        if len(sides) > 2 or not all(isinstance(side, int) and side >= lowest for side in sides):
            raise ValueError(f"size {self.size}")
        for block in self.blocks:
            settings_of(block)
        if not any(block.weight for block in self.blocks):
            raise ValueError("no block has a weight")

    @classmethod
    def converted(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Convert JSON values to fields."""
        size, posterior = stored["size"], stored["posterior"]
        return super().converted(stored) | {
            "size": tuple(size) if isinstance(size, list) else size,
            "blocks": tuple(Block(**block) for block in stored["blocks"]),
            "posterior": None if posterior is None else Posterior(**posterior),
        }

    def to_json(self) -> dict[str, Any]:
        """The content of `model.json`."""
        return {"kind": self.kind, **asdict(self)}

    def vector_facts(self) -> dict[str, Any]:
        """Everything that changes a vector: card fields and code versions."""
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
            "posterior": _facts(self.posterior) if self.posterior else None,
        }


class BovwDescriptor:
    """Weighted blocks of local features, fused with the posterior of a head.

    The variant "fused" has both, "embedding" only the blocks. Without a head the two are the same,
    under the plain name. `files` are the model's files by name. Thread-safe. Raises `CbirError` if
    the files are damaged or inconsistent. If a block finds no features in an image, its row is the
    first unit vector, before the projection.
    """

    FILES: ClassVar[tuple[str, ...]] = (ARRAYS_FILE, CARD_FILE)

    def __init__(self, files: Mapping[str, ModelFile], variant: str = "fused") -> None:
        checked_files(files, self.FILES, variant)
        self.files = dict(files)
        self.card = BovwCard.parse(content(files[CARD_FILE]))
        self.variant = variant if self.card.posterior else "fused"
        arrays = read_npz(content(files[ARRAYS_FILE]), ARRAYS_FILE)
        self._digest = fingerprint(arrays)
        self._blocks, self._head = _split(self.card, arrays)
        self._dims = [
            _checked(number, block, own, self.card.size)
            for number, (block, own) in enumerate(zip(self.card.blocks, self._blocks, strict=True))
        ]
        _check_head(self.card, sum(raw for raw, _ in self._dims), self._head)

    @classmethod
    def file_names(cls, card: Mapping[str, Any], present: Collection[str]) -> Sequence[str]:  # noqa: ARG003
        """The names of a model's files: the same for every card."""
        return cls.FILES

    @cached_property
    def spec(self) -> DescriptorSpec:
        return self.card.spec(
            self.variant,
            self._embedding_dim + (len(self.card.classes) if self._posterior else 0),
            [self._digest.encode()],
            self._preprocessing(),
        )

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` at the model's size: width and height, or the longest side."""
        return at_size(image, self.card.size)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """The unit vectors (n, spec.dim) of `images`."""
        keep_blas_on_one_thread()
        return np.concatenate([self._vectors(some) for some in batches(images, MAX_BATCH)])

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """The class numbers (n,) by the posterior in `vectors`; None if there is no posterior."""
        if self._posterior is None or not self._posterior.weight:
            return None
        classes: NDArray[np.intp] = np.argmax(vectors[:, self._embedding_dim :], axis=1)
        return classes

    def _vectors(self, images: Sequence[RgbImage]) -> Vectors:
        ready = [self.prepare(image) for image in images]
        rows, weights, heads = [], [], []
        for block, arrays in zip(self.card.blocks, self._blocks, strict=True):
            raw = raw_features(block, arrays, ready)
            if block.weight:
                rows.append(block_rows(block, arrays, raw))
                weights.append(block.weight)
            if self._posterior:
                heads.append(head_rows(block, raw))
        embedding = fuse(rows, [weight / sum(weights) for weight in weights])
        if self._posterior is None:
            return embedding
        logits = np.hstack(heads) @ self._head["weights"] + self._head["bias"]
        return self._posterior.fused(embedding, logits)

    @property
    def _posterior(self) -> Posterior | None:
        return self.card.posterior if self.variant == "fused" else None

    @property
    def _embedding_dim(self) -> int:
        pairs = zip(self.card.blocks, self._dims, strict=True)
        return sum(dim for block, (_, dim) in pairs if block.weight)

    def _preprocessing(self) -> dict[str, str]:
        """A readable description of how vectors are computed."""
        card, size = self.card, self.card.size
        total = sum(block.weight for block in card.blocks)
        told = {
            "resize": f"longest side {size}, {FIT}"
            if isinstance(size, int)
            else f"{size[0]}x{size[1]}, {RESIZE}",
        }
        if any(FEATURES[block.feature].uses_opencv for block in card.blocks):
            from cbir.descriptors.local.opencv import cv2

            told["opencv"] = cv2.__version__
        for number, (block, (raw, dim)) in enumerate(zip(card.blocks, self._dims, strict=True)):
            own = "".join(f" {name}={value}" for name, value in block.params.items())
            dims = f"{raw} -> {dim}" if block.weight else f"{raw}, for the head alone"
            told[f"block {number}"] = (
                f"{block.feature}{own}; power {block.power:g}; dimensions {dims}; "
                f"weight {block.weight / total:.3g}"
            )
        fused = f" + {self._posterior}" if self._posterior else ""
        return told | {"vector": f"weighted blocks{fused}"}


def model_files(card: BovwCard, arrays: Arrays) -> dict[str, bytes]:
    """The files of a model by name; the same card and arrays give the same bytes.

    `arrays` are float16 or float32, named as described above. Raises `CbirError` if they do not
    fit the card.
    """
    files = {
        ARRAYS_FILE: npz_bytes(arrays),
        CARD_FILE: json.dumps(card.to_json(), indent=1).encode(),
    }
    BovwDescriptor(files)
    return files


def _split(card: BovwCard, arrays: Arrays) -> tuple[list[dict[str, Floats]], dict[str, Floats]]:
    """The arrays of each block and of the head, as float32, by their own names."""
    blocks: list[dict[str, Floats]] = [{} for _ in card.blocks]
    head: dict[str, Floats] = {}
    owners = {str(number): own for number, own in enumerate(blocks)} | {HEAD: head}
    for name, array in arrays.items():
        owner, _, own_name = name.partition("/")
        if owner not in owners:
            raise CbirError(f"{ARRAYS_FILE} contains '{name}', but the card has no such block")
        owners[owner][own_name] = array.astype(np.float32, copy=False)
    return blocks, head


def _checked(number: int, block: Block, arrays: Arrays, size: Size) -> tuple[int, int]:
    """The dimensions of a block's raw rows and of its part of the vector."""
    try:
        return raw_dim(block, arrays, size), vector_dim(block, arrays, size)
    except CbirError as error:
        raise CbirError(f"block {number} is invalid: {error.message}", error.hint) from error


def _facts(posterior: Posterior) -> dict[str, Any]:
    facts = asdict(posterior)
    if posterior.power == BHATTACHARYYA:
        del facts["power"]  # fingerprints of models without this field must not change
    return facts


def _check_head(card: BovwCard, width: int, head: Arrays) -> None:
    if card.posterior is None:
        if head:
            raise CbirError(f"{ARRAYS_FILE} contains a head, but the card has no posterior")
        return
    if set(head) != {"weights", "bias"}:
        raise CbirError(f"the card has a posterior, but {ARRAYS_FILE} has no head (two arrays)")
    shapes, count = (head["weights"].shape, head["bias"].shape), len(card.classes)
    if shapes != ((width, count), (count,)):
        raise CbirError(
            f"a head of shapes {shapes[0]} and {shapes[1]} does not fit "
            f"{width} dimensions and {count} classes"
        )
