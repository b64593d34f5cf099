"""Pooling, input size, crop, and projection of EfficientNet-Lite, compared on the training photos.

Leave-one-out on the 600 training photos of `benchmarks.photos`, so that the test photos play no
part. Each row changes one thing of the packaged networks. Centring and PCA (without and with
whitening) are fitted on one half of the classes and measured on the other, both ways; their
difference is to the same measure without them. Batch norm's mean, that of ImageNet, needs no
photos. 300 photos have no 512 components: those are fitted on the very photos that are searched,
without labels, as could be done in a collection of one's own.

    python -m benchmarks photo_choices
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.photos import answers, difference, read_photos
from benchmarks.setting import heading, photos_archive, row
from cbir.descriptors.contract import batches
from cbir.descriptors.efficientnet import efficientnet_lite, mean_features
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.packaged import CROP, PACKAGED, packaged_tensors
from cbir.descriptors.pooling import pooled
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.runtime import Network
from cbir.types import Floats, RgbImage

NETWORKS = ("efficientnet-lite0", "efficientnet-lite2")
SIZES = (160, 192, 224, 260)
BATCH = 8
MAP = "map"

Labels = NDArray[np.int32]
Projection = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Features:
    """The pooled activations (n, dim) of the training photos, by kind of pooling."""

    mean: Floats
    gem: Floats


def main() -> None:
    """Print a table for each network."""
    photos = read_photos(photos_archive())
    chosen = np.flatnonzero(~photos.test)
    images = [photos.images[number] for number in chosen]
    labels = photos.labels[chosen]
    print(f"leave-one-out on {len(images)} training photos; differences with 95% intervals")
    for name in NETWORKS:
        print(f"\n{heading([name, 'nAP@10', 'difference'])}")
        own = PACKAGED[name].size
        default = features(name, images, own)
        baseline = quality(default.mean, labels)
        print(row([f"{own} px, mean", f"{baseline.mean():.4f}", ""]), flush=True)
        for what, rows in _variants(name, images, default):
            _print_row(what, quality(rows, labels), baseline)
        centre = unit_rows(mean_features(packaged_tensors(name))[None])
        _print_row(
            "centred, by batch norm (as it is)",
            quality(unit_rows(default.mean) - centre, labels),
            baseline,
        )
        for what, values, whole in _projected(default.mean, labels):
            _print_row(what, values, whole)


def features(name: str, images: list[RgbImage], size: int, whole: bool = False) -> Features:
    """What `name` makes of `images` at `size` px: of the centre, or of the `whole` picture."""
    weights = PACKAGED[name]
    network = _map_of(efficientnet_lite(packaged_tensors(name), weights.depth, size))
    shape = (
        {"resize": "stretch", "side": None}
        if whole
        else {"resize": "shortest", "side": round(size / CROP)}
    )
    card = replace(_input(name), height=size, width=size, **shape)
    mean, gem = [], []
    for some in batches(images, BATCH):
        (found,) = network.outputs(card.inputs(some), [MAP])
        mean.append(pooled(found, "mean"))
        gem.append(pooled(found, "gem"))
    return Features(np.concatenate(mean), np.concatenate(gem))


def quality(rows: Floats, labels: Labels) -> NDArray[np.float64]:
    """nAP@10 of each of `rows` (n, dim) as a query to the others."""
    everything = np.arange(len(rows))
    return answers(unit_rows(rows), labels, everything, everything)["nAP@10"]


def fitted(rows: Floats, dim: int | None, whiten: bool = False) -> Projection:
    """The projection of unit vectors to the first `dim` principal components of `rows`.

    None only centres them.
    """
    unit = unit_rows(rows).astype(np.float64)
    mean = unit.mean(axis=0)
    if dim is None:
        return lambda others: (unit_rows(others) - mean).astype(np.float32)
    _, spread, axes = np.linalg.svd(unit - mean, full_matrices=False)
    onto = axes[:dim] / (spread[:dim, None] if whiten else 1)
    return lambda others: ((unit_rows(others) - mean) @ onto.T).astype(np.float32)


def _variants(name: str, images: list[RgbImage], default: Features) -> Iterator[tuple[str, Floats]]:
    own = PACKAGED[name].size
    yield f"{own} px, GeM", default.gem
    yield f"{own} px, square root of the mean", np.sqrt(default.mean)
    for size in SIZES:
        if size != own:
            yield f"{size} px, mean", features(name, images, size).mean
    yield f"{own} px, mean, whole picture", features(name, images, own, whole=True).mean


def _projected(
    rows: Floats, labels: Labels
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """A description, and nAP@10 of each query with and without the projection."""
    halves = [labels % 2 == number for number in range(2)]
    baseline = np.concatenate([quality(rows[half], labels[half]) for half in halves])
    for dim, whiten in ((None, False), (128, False), (256, False), (128, True), (256, True)):
        values = [
            quality(fitted(rows[other], dim, whiten)(rows[half]), labels[half])
            for half, other in (halves, halves[::-1])
        ]
        yield f"{_called(dim, whiten)}, from other classes", np.concatenate(values), baseline
    baseline = quality(rows, labels)
    for dim in (None, 256, 512):
        yield (
            f"{_called(dim)}, from these photos",
            quality(fitted(rows, dim)(rows), labels),
            baseline,
        )


def _called(dim: int | None, whiten: bool = False) -> str:
    return f"PCA {dim}{', whitened' if whiten else ''}" if dim else "centred"


def _print_row(what: str, values: NDArray[np.float64], baseline: NDArray[np.float64]) -> None:
    more, low, high = difference(values, baseline)
    print(row([what, f"{values.mean():.4f}", f"{more:+.4f} ({low:+.4f} to {high:+.4f})"]))


def _input(name: str) -> Preprocessing:
    descriptor = load_descriptor(name)
    assert isinstance(descriptor, OnnxDescriptor)
    return descriptor.card.input


def _map_of(network: bytes) -> Network:
    """`network` up to the map of features that it pools."""
    import onnx

    model: Any = onnx.load_from_string(network)
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    last = next(node for node in model.graph.node if node.output[0] == pool.input[0])
    last.output[0] = MAP
    del model.graph.node[list(model.graph.node).index(pool) :]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(MAP, 1, ["n", None, None, None]))
    return Network(model.SerializeToString(), "the map of features")


if __name__ == "__main__":
    main()
