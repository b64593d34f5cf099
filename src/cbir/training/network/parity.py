"""Compares exported networks with the trained one, and decides which of them is kept."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import projected
from cbir.descriptors.onnx import NETWORK_FILE
from cbir.descriptors.runtime import Network
from cbir.errors import CbirError
from cbir.machine import usable_cores
from cbir.measures.significance import SIGNIFICANT, randomisation_p
from cbir.training.choose import MEASURE, cosines, per_query
from cbir.types import Floats

Outputs = tuple[Floats, Floats]
"""Embeddings (n, dim) and logits (n, classes)."""

FLOAT32, INT8 = "float32", "int8"
FLOAT32_ERROR = 0.01
INT8_COSINE, INT8_SAME_CLASS, INT8_LOSS = 0.99, 0.95, 0.01
TINY = 1e-30


@dataclass(frozen=True)
class Parity:
    """How far an export is from the trained network.

    `error` is the largest difference of a value as a share of the largest value, in the embeddings
    or in the logits, whichever is larger; `cosine` the mean cosine of the two centred embeddings of
    an image; `same_class` the share of images with the same best class; `nap_difference` the
    nAP@100 of the export minus that of the network, half of the images querying the other half by
    centred embeddings, and `p` that of a paired randomisation test of this difference;
    `accuracy_difference` and `accuracy_p` the same for the accuracy on all images.
    """

    error: float
    cosine: float
    same_class: float
    nap_difference: float
    p: float
    accuracy_difference: float
    accuracy_p: float

    def __str__(self) -> str:
        return (
            f"cosine {self.cosine:.4f}, same class {self.same_class:.4f}, "
            f"accuracy {self.accuracy_difference:+.4f}, {MEASURE} {self.nap_difference:+.4f}, "
            f"largest error {self.error:.2g}"
        )


def parity(expected: Outputs, got: Outputs, labels: NDArray[np.int64]) -> Parity:
    """Compare the outputs of an export with the network's on the same images of `labels` (n,)."""
    centre = expected[0].mean(axis=0)
    before, after = projected(expected[0], centre), projected(got[0], centre)
    naps = [per_query(cosines(vectors), labels) for vectors in (before, after)]
    classes = [logits.argmax(axis=1) for _, logits in (expected, got)]
    gained = (classes[1] == labels).astype(np.float64) - (classes[0] == labels)
    errors = [_error(*pair) for pair in zip(expected, got, strict=True)]
    return Parity(
        error=float(np.max(errors)),  # NaN if one of them is
        cosine=float(np.sum(before * after, axis=1).mean()),
        same_class=float(np.mean(classes[1] == classes[0])),
        nap_difference=float(np.mean(naps[1] - naps[0])),
        p=randomisation_p(naps[1] - naps[0]),
        accuracy_difference=float(gained.mean()),
        accuracy_p=randomisation_p(gained),
    )


def _error(expected: Floats, got: Floats) -> float:
    return float(np.abs(got - expected).max()) / max(float(np.abs(expected).max()), TINY)


def choose_export(
    expected: Outputs,
    models: Mapping[str, bytes],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> tuple[str, dict[str, Parity]]:
    """The precision to keep, and the parity of each of `models`: "float32", and "int8" or not.

    `expected` is what the network makes of the held-out `images` (n, size, size, 3) of `labels`.
    int8 is kept if it changes embeddings and the best classes little, and nAP@100 and accuracy
    little or within noise. Raises `CbirError` if the float32 export is not the same function as
    the network.
    """
    found = {kind: parity(expected, outputs(one, images), labels) for kind, one in models.items()}
    exact = found[FLOAT32]
    if not exact.error <= FLOAT32_ERROR:  # NaN, too
        raise CbirError(
            f"the exported network differs from the trained one: {exact}",
            "update torch and onnxruntime, or choose another backbone",
        )
    rounded = found.get(INT8)
    close = (
        rounded is not None
        and rounded.cosine >= INT8_COSINE
        and rounded.same_class >= INT8_SAME_CLASS
        and (rounded.nap_difference >= -INT8_LOSS or rounded.p >= SIGNIFICANT)
        and (rounded.accuracy_difference >= -INT8_LOSS or rounded.accuracy_p >= SIGNIFICANT)
    )
    return INT8 if close else FLOAT32, found


def outputs(model: bytes, images: NDArray[np.uint8]) -> Outputs:
    """The outputs of an ONNX `model` for `images` (n, size, size, 3), computed on all cores."""
    network = Network(model, NETWORK_FILE)
    with ThreadPoolExecutor(usable_cores()) as pool:
        embeddings, logits = zip(*pool.map(network.outputs, batches(images, 100)), strict=True)
    return np.concatenate(embeddings), np.concatenate(logits)
