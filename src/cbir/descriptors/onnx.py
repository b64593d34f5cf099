"""Descriptors that run a network with ONNX Runtime: `model.onnx` and its card `model.json`.

The network takes uint8 (n, height, width, 3) RGB and answers `embedding` (n, dim) and `logits`
(n, classes), both float32. The card says how to make vectors of them (see `OnnxCard`).
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.cards import CARD_FILE, VARIANTS, ModelCard, card_fields, common_fields
from cbir.descriptors.fusion import centred, fuse, sqrt_posterior
from cbir.descriptors.resize import RESIZE, resized
from cbir.errors import CbirError
from cbir.images.decode import decoder_name
from cbir.types import DescriptorSpec, RgbImage, Vectors

if TYPE_CHECKING:
    import onnxruntime

NETWORK_FILE = "model.onnx"
MAX_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class OnnxCard(ModelCard):
    """The card of a network. What stands here changes vectors, and is fingerprinted.

    `size` is the input's width and height; `mean` (dim,) centres the embedding; `temperature`
    flattens the posterior; `posterior_weight` is the posterior's share of the fused cosine.
    """

    kind: ClassVar[str] = "onnx"
    size: int
    mean: tuple[float, ...]
    temperature: float
    posterior_weight: float

    @classmethod
    def parse(cls, data: bytes) -> OnnxCard:
        """The card in `data` (UTF-8 JSON); raises `CbirError` where it is not one."""
        fields = card_fields(data)
        try:
            return cls(
                **common_fields(fields),
                size=fields["size"],
                mean=tuple(fields["mean"]),
                temperature=fields["temperature"],
                posterior_weight=fields["posterior_weight"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CbirError(f"{CARD_FILE} is not a model card: {error}") from error

    def vector_facts(self) -> dict[str, Any]:
        """All of the card that changes a vector."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "temperature": self.temperature,
            "posterior_weight": self.posterior_weight,
            "resize": RESIZE,
        }


class OnnxDescriptor:
    """A network's embedding, centred, with the square root of its posterior beside it.

    `variant` "fused" is both (dim + classes numbers), "embedding" the embedding alone.
    `files` are the model's files by name; they travel with an index. Thread-safe.
    """

    FILES: ClassVar[tuple[str, ...]] = (NETWORK_FILE, CARD_FILE)

    def __init__(self, files: Mapping[str, bytes], variant: str = "fused") -> None:
        if variant not in VARIANTS:
            raise CbirError(f"unknown variant '{variant}'", f"known: {', '.join(VARIANTS)}")
        missing = set(self.FILES) - set(files)
        if missing:
            raise CbirError(f"the model lacks {', '.join(sorted(missing))}")
        self.files = dict(files)
        self.card = OnnxCard.parse(files[CARD_FILE])
        self.variant = variant
        self._loading = threading.Lock()
        self._mean = np.asarray(self.card.mean, dtype=np.float32)

    @cached_property
    def spec(self) -> DescriptorSpec:
        card = self.card
        facts = {**card.vector_facts(), "variant": self.variant}
        digest = hashlib.sha256(self.files[NETWORK_FILE])
        digest.update(json.dumps(facts, sort_keys=True).encode())
        fused = self.variant == "fused"
        return DescriptorSpec(
            name=card.name if fused else f"{card.name}:{self.variant}",
            dim=len(card.mean) + (len(card.classes) if fused else 0),
            fingerprint=digest.hexdigest(),
            preprocessing={
                "decoder": decoder_name(),
                "resize": f"{card.size}x{card.size}, {RESIZE}",
                "vector": "centred embedding"
                + (
                    f" + sqrt posterior (T={card.temperature:g}, weight {card.posterior_weight:g})"
                    if fused
                    else ""
                ),
            },
            trained_on=card.trained_on,
            licence=card.licence,
        )

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` at the network's input size, (size, size, 3)."""
        size = self.card.size
        return resized(image, size, size)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """Unit vectors (n, spec.dim) of `images`."""
        parts = []
        for start in range(0, len(images), MAX_BATCH):
            batch = np.stack([self.prepare(image) for image in images[start : start + MAX_BATCH]])
            parts.append(self._vectors(*self.outputs(batch)))
        return np.concatenate(parts)

    def outputs(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The network's own answers to (n, size, size, 3): embeddings (n, dim), logits."""
        embedding, logits = self._session.run(["embedding", "logits"], {"images": batch})
        return embedding, logits

    def predicted(self, vectors: Vectors) -> NDArray[np.intp] | None:
        """Class numbers (n,) that fused `vectors` say, by their posterior; None if they do not."""
        if self.variant != "fused":
            return None
        classes: NDArray[np.intp] = np.argmax(vectors[:, len(self.card.mean) :], axis=1)
        return classes

    def _vectors(self, embedding: NDArray[np.float32], logits: NDArray[np.float32]) -> Vectors:
        unit = centred(embedding, self._mean)
        if self.variant == "embedding":
            return unit
        weight = self.card.posterior_weight
        return fuse([unit, sqrt_posterior(logits, self.card.temperature)], [1 - weight, weight])

    @property
    def _session(self) -> onnxruntime.InferenceSession:
        with self._loading:
            return self._loaded

    @cached_property
    def _loaded(self) -> onnxruntime.InferenceSession:
        with _without_interruption():
            import onnxruntime

        options = onnxruntime.SessionOptions()
        # Callers run one batch a core; a second thread inside a batch would only compete.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                self.files[NETWORK_FILE], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no class in common
            raise CbirError(
                f"{NETWORK_FILE} of {self.spec.short} cannot be loaded: {error}",
                "restore the model's files",
            ) from error


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Ctrl-C waits for the end of this.

    ONNX Runtime that is interrupted while it is imported says "ImportError: initialization
    failed", which nobody would take for Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        signal.raise_signal(signal.SIGINT)
