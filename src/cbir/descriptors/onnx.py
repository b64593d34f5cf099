"""Descriptors that run a network: `model.onnx` and its card `model.json`.

The card says how pixels become the network's input, which output is the embedding, and how vectors
are made from it (see `OnnxCard`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import isfinite
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.arrays import read_npz
from cbir.descriptors.cards import CARD_FILE, ModelCard, checked_files
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import BHATTACHARYYA, Posterior, projected
from cbir.descriptors.pooling import POOLINGS, embedding_rows
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.resize import RESIZE
from cbir.descriptors.runtime import Network
from cbir.descriptors.text import TextTower
from cbir.descriptors.text_network import TEXT_FILE, TOKENIZER_FILE, TextNetwork
from cbir.errors import CbirError
from cbir.files import content
from cbir.types import DescriptorSpec, Floats, ModelFile, RgbImage, Vectors

NETWORK_FILE = "model.onnx"
PROJECTION_FILE = "projection.npz"
PROJECTION, BESIDE_POSTERIOR = "projection", "beside_posterior"
MAX_BATCH = 128
MAX_PIXELS = 2**17
"""Pixels of a batch: small ones stay in the caches (`python -m benchmarks inference`)."""


@dataclass(frozen=True, kw_only=True)
class OnnxCard(ModelCard):
    """The card of a network. These fields affect vectors and are part of the fingerprint.

    `preprocessing` makes the network's input; `size` (width and height) is its older form, for
    uint8 (n, size, size, 3). `output` names the embedding and `pooling` makes rows of it (see
    `pooling.pooled`). `mean` (dim,) centres them; without it, `dim` says how many dimensions there
    are. With `classes`, the output `logits` (n, classes) may add a posterior: `temperature`,
    `posterior_weight` and `posterior_power` are those of `fusion.Posterior`.

    With `text`, the files `text.onnx` and `tokenizer.json` make vectors of words in the space of
    the images; then nothing may be fitted to images alone (mean, projection, posterior).

    `batch` limits how many images the network gets at once: 1 for a network that takes one, or
    whose rows depend on the rest of the batch.

    `files` are the sha256 of the model's other files by name. The fingerprint covers these values,
    so that gigabytes need not be read at every start. Without them, it covers the bytes of
    `model.onnx` and its external data (files whose names begin so). If `projection.npz` is among
    `files`, its arrays `mean` (dim,) and `projection` (dim, fewer) centre and project the
    embedding, as `fusion.fit_projection` makes them. With the array `beside_posterior` instead of
    `projection`, the embedding is projected in fused vectors, and only centred without posterior.
    """

    kind: ClassVar[str] = "onnx"
    size: int | None = None
    preprocessing: Preprocessing | None = None
    output: str = "embedding"
    pooling: str = "none"
    dim: int | None = None
    mean: tuple[float, ...] | None = None
    temperature: float | None = None
    posterior_weight: float | None = None
    posterior_power: float = BHATTACHARYYA
    batch: int | None = None
    files: Mapping[str, str] | None = None
    text: TextTower | None = None

    def __post_init__(self) -> None:
        for one, other in (("size", "preprocessing"), ("mean", "dim")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"it needs either '{one}' or '{other}'")
        if self.files is not None:
            _check_names(self.files)
        if self.mean is not None and PROJECTION_FILE in (self.files or ()):
            raise ValueError(f"{PROJECTION_FILE} has a mean of its own: give 'dim', not 'mean'")
        if self.text is not None:
            if missing := {TEXT_FILE, TOKENIZER_FILE} - set(self.files or ()):
                raise ValueError(f"a text tower, but 'files' lacks {', '.join(sorted(missing))}")
            if self.mean or self.posterior or PROJECTION_FILE in (self.files or ()):
                raise ValueError("a text tower beside a mean, a projection or a posterior")
        if self.batch is not None and not (isinstance(self.batch, int) and self.batch > 0):
            raise ValueError(f"a batch of {self.batch}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling '{self.pooling}'; known: {', '.join(POOLINGS)}")
        if self.dim is not None and not (type(self.dim) is int and self.dim > 0):
            raise ValueError(f"{self.dim!r} dimensions")
        if not all(map(isfinite, self.mean or ())):
            raise ValueError("a mean that is not finite")
        head = (self.temperature is not None, self.posterior_weight is not None)
        if any(head) and not (self.posterior and self.classes):
            raise ValueError("a posterior needs classes, temperature and posterior_weight")

    @classmethod
    def converted(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Convert JSON values to fields."""
        made = super().converted(stored)
        if stored.get("mean") is not None:
            made["mean"] = tuple(stored["mean"])
        if stored.get("preprocessing") is not None:
            made["preprocessing"] = Preprocessing.parse(stored["preprocessing"])
        if stored.get("text") is not None:
            made["text"] = TextTower.parse(stored["text"])
        return made

    def to_json(self) -> dict[str, Any]:
        """The content of `model.json`: every field that differs from its default."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if self._says(f.name)}
        if self.preprocessing is not None:
            values["preprocessing"] = self.preprocessing.to_json()
        if self.text is not None:
            values["text"] = self.text.to_json()
        return values

    def _says(self, name: str) -> bool:
        # A field of a dataclass without a default is no attribute of the class.
        return bool(getattr(self, name) != getattr(type(self), name, ...))

    @property
    def posterior(self) -> Posterior | None:
        """The posterior's settings in a fused vector; None if there is none."""
        if self.temperature is None or self.posterior_weight is None:
            return None
        return Posterior(self.temperature, self.posterior_weight, self.posterior_power)

    @property
    def embedding_dim(self) -> int:
        """Dimensions of the embedding."""
        return len(self.mean) if self.mean is not None else self.dim or 0

    @cached_property
    def input(self) -> Preprocessing:
        """How pixels become the network's input."""
        if self.preprocessing is not None:
            return self.preprocessing
        assert self.size is not None
        return square_input(self.size)

    def vector_facts(self) -> dict[str, Any]:
        """All card fields that change a vector, as JSON values."""
        shared: dict[str, Any] = {} if self.files is None else {"files": dict(self.files)}
        if self.text is not None:
            shared["text"] = self.text.to_json()
        if self.batch is not None:
            shared["batch"] = self.batch
        shared |= {
            "mean": None if self.mean is None else list(self.mean),
            "temperature": self.temperature,
            "posterior_weight": self.posterior_weight,
        }
        if self.posterior_power != BHATTACHARYYA:
            shared["posterior_power"] = self.posterior_power
        if self.preprocessing is None:
            shared |= {"size": self.size, "resize": RESIZE}
            # Fingerprints of models in the older form must not change.
            if (self.output, self.pooling) == ("embedding", "none"):
                return shared
            return shared | {"output": self.output, "pooling": self.pooling}
        return shared | {
            "preprocessing": self.preprocessing.to_json(),
            "output": self.output,
            "pooling": self.pooling,
        }


def square_input(size: int) -> Preprocessing:
    """The input of networks that `cbir train cnn` makes: uint8 (n, size, size, 3), stretched."""
    return Preprocessing(height=size, width=size, reducing_gap=3.0, layout="NHWC", dtype="uint8")


class OnnxDescriptor:
    """A network's embedding, fused with its posterior if it has one.

    The variant "fused" has both (dim + classes dimensions), "embedding" the embedding alone;
    without a posterior the two are the same, under the plain name. `files` are the model's files
    by name; they travel with an index. The network is opened at the first call. Thread-safe.
    """

    FILES: ClassVar[tuple[str, ...]] = (NETWORK_FILE, CARD_FILE)

    def __init__(self, files: Mapping[str, ModelFile], variant: str = "fused") -> None:
        checked_files(files, self.FILES, variant)
        self.files = dict(files)
        self.card = OnnxCard.parse(content(files[CARD_FILE]))
        checked_files(files, [*(self.card.files or ())], variant)
        self.variant = variant if self.card.posterior else "fused"
        self.network = Network(files[NETWORK_FILE], f"{NETWORK_FILE} of {self.card.name}", files)
        text, dim = self.card.text, self.card.embedding_dim
        self._text = TextNetwork(self.files, text, dim, self.card.name) if text else None
        self._mean, self._projection, self._beside = self._fitted()
        applied = self._applied
        self._embedding_dim = self.card.embedding_dim if applied is None else applied.shape[1]
        pixels = self.card.input.height * self.card.input.width
        self._batch = min(self.card.batch or MAX_BATCH, max(1, MAX_PIXELS // pixels))

    @classmethod
    def file_names(cls, card: Mapping[str, Any], present: Collection[str]) -> Sequence[str]:
        """The names of a model's files: those of the card, else found among those `present`."""
        if isinstance(named := card.get("files"), dict):
            return [*named, CARD_FILE]
        return [*cls.FILES, *_external_data(present)]

    @cached_property
    def spec(self) -> DescriptorSpec:
        card, posterior = self.card, self._posterior
        parts = ["embedding" if self._mean is None else "centred embedding"]
        if self._applied is not None:
            parts[0] += f", projected to {self._embedding_dim} dimensions"
        if card.pooling != "none":
            parts[0] += f", pooled: {card.pooling}"
        return card.spec(
            self.variant,
            self._embedding_dim + (len(card.classes) if posterior else 0),
            self._weights,
            {
                "resize": str(card.input),
                "vector": " + ".join([*parts, *([str(posterior)] if posterior else [])]),
            },
        )

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` at the network's input size, (height, width, 3)."""
        return self.card.input.prepare(image)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """The unit vectors (n, spec.dim) of `images`.

        Raises `CbirError` if the network's outputs do not fit its card.
        """
        alone = len(images) == 1
        return np.concatenate([self._vectors(some, alone) for some in batches(images, self._batch)])

    @property
    def has_text(self) -> bool:
        """Whether the model has a text tower."""
        return self._text is not None

    def describe_texts(self, texts: Sequence[str]) -> Vectors:
        """The unit vectors (n, spec.dim) of `texts`; see `TextNetwork.describe`."""
        assert self._text is not None
        return self._text.describe(texts)

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """The class numbers (n,) by the posterior in `vectors`; None if there is no posterior."""
        if self._posterior is None or not self._posterior.weight:
            return None
        classes: NDArray[np.intp] = np.argmax(vectors[:, self._embedding_dim :], axis=1)
        return classes

    def _fitted(self) -> tuple[Floats | None, Floats | None, Floats | None]:
        """The mean of the embedding, its projection, and its projection beside the posterior; each
        None if there is none."""
        if PROJECTION_FILE not in (self.card.files or ()):
            mean = self.card.mean
            return None if mean is None else np.asarray(mean, dtype=np.float32), None, None
        arrays = read_npz(content(self.files[PROJECTION_FILE]), PROJECTION_FILE)
        dim, found = self.card.embedding_dim, {name: a.shape for name, a in arrays.items()}
        allowed = [PROJECTION, *([BESIDE_POSTERIOR] if self.card.posterior else [])]
        kind = next((name for name in allowed if found.keys() == {"mean", name}), None)
        if kind is None or not (
            found["mean"] == (dim,)
            and len(found[kind]) == 2
            and found[kind][0] == dim
            and 0 < found[kind][1] <= dim
        ):
            raise CbirError(
                f"{PROJECTION_FILE} of {self.card.name} does not fit {dim} dimensions: {found}",
                f"it needs the arrays mean (dim,) and {' or '.join(allowed)} (dim, at most dim)",
            )
        centre, fitted = arrays["mean"].astype(np.float32), arrays[kind].astype(np.float32)
        return (centre, fitted, None) if kind == PROJECTION else (centre, None, fitted)

    @property
    def _weights(self) -> list[ModelFile]:
        """What the fingerprint covers beside the card, which may hold the digests of the files."""
        if self.card.files is not None:
            return []
        return [self.files[name] for name in (NETWORK_FILE, *_external_data(self.files))]

    @property
    def _posterior(self) -> Posterior | None:
        return self.card.posterior if self.variant == "fused" else None

    def classified(self, images: Sequence[RgbImage]) -> tuple[Vectors, Floats]:
        """Unit embeddings (n, dim) and class scores (n, classes) of a model with classes."""
        rows, logits = self._outputs(images, [self.card.output, "logits"], alone=False)
        return projected(rows, self._mean, self._projection), logits[0]

    def _vectors(self, images: Sequence[RgbImage], alone: bool) -> Vectors:
        posterior = self._posterior
        names = [self.card.output, "logits"] if posterior else [self.card.output]
        rows, logits = self._outputs(images, names, alone)
        unit = projected(rows, self._mean, self._applied)
        return posterior.fused(unit, logits[0]) if posterior else unit

    @property
    def _applied(self) -> Floats | None:
        """The projection in vectors of this variant."""
        return self._projection if self._beside is None or not self._posterior else self._beside

    def _outputs(
        self, images: Sequence[RgbImage], names: Sequence[str], alone: bool
    ) -> tuple[Floats, list[Floats]]:
        """Raw embeddings (n, dim), and the network's outputs after the first of `names`."""
        card = self.card
        features, *others = self.network.outputs(card.input.inputs(images), names, alone=alone)
        shape = (len(images), card.embedding_dim)
        return embedding_rows(features, card.output, card.pooling, shape, card.name), others


def _check_names(names: Collection[str]) -> None:
    """Raise `ValueError` unless all are plain file names beside the card's."""
    if NETWORK_FILE not in names:
        raise ValueError(f"'files' lacks {NETWORK_FILE}")
    for name in names:
        if name == CARD_FILE or not re.fullmatch(r"\w[\w.-]{,99}", name, re.ASCII):
            raise ValueError(f"{name!r} in 'files' is no name of a model file")


def _external_data(names: Collection[str]) -> list[str]:
    """The files with weights of `model.onnx`, as exporters name them: model.onnx_data, ..."""
    return sorted(n for n in names if re.fullmatch(rf"{NETWORK_FILE}[\w.-]+", n, re.ASCII))
