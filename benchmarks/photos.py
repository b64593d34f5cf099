"""Search quality on photos: EfficientNet-Lite, `classic`, and plainer descriptors.

800 photos of 20 classes of Caltech-101 (CC BY 4.0), in the folder named by `CBIR_DATA`. A photo is
relevant if it has the query's class. Three experiments: (a) the 200 test photos as queries to the
600 training photos, (b) leave-one-out on the test photos, (c) leave-one-out on all 800. `classic`
was fitted on the 600 training photos without their labels, and its settings were chosen by
experiments on them: only (b) uses no photo of these, though the same classes. The EfficientNets
(extra `photos`) were trained on ImageNet, which has many of these classes.

    python -m benchmarks photos
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.setting import photos_archive
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.local.histograms import hsv_histogram, lab_histogram
from cbir.descriptors.local.hog import hog
from cbir.descriptors.local.sift import grey
from cbir.descriptors.models import load_descriptor
from cbir.descriptors.packaged import PACKAGED, packaged_installed
from cbir.descriptors.resize import resized
from cbir.images.decode import load_pixels
from cbir.images.sources import open_source
from cbir.measures.by_class import class_measures, class_names, encode_labels, relevant_counts
from cbir.types import RgbImage, Vectors

MEASURES = ("nAP@10", "P@10")
DEPTH = 10
BATCH = 50

Describe = Callable[[Sequence[RgbImage]], Vectors]


@dataclass(frozen=True)
class Photos:
    """Pixels, class numbers (n,), and whether each is a test photo (n,)."""

    images: list[RgbImage]
    labels: NDArray[np.int32]
    test: NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One descriptor: dimensions, images per second on one core, measures by experiment."""

    dim: int
    speed: float
    measures: Mapping[str, tuple[float, float]]


def read_photos(archive: str) -> Photos:
    """Read all photos of `archive`, ordered by name."""
    images, labels, test = [], [], []
    items = open_source(archive, label_from_folder=True).items()
    for item in sorted(items, key=lambda item: item.key):
        images.append(load_pixels(item.read()))
        labels.append(item.label)
        test.append(item.key.startswith("test/"))
    return Photos(images, encode_labels(labels, class_names(labels)), np.array(test))


def descriptors() -> dict[str, Describe]:
    """The descriptors to compare, by name."""
    return {
        **{name: load_descriptor(name).describe for name in PACKAGED if packaged_installed(name)},
        "classic": load_descriptor("classic").describe,
        "LAB histogram": lambda images: unit_rows(lab_histogram(images)),
        "HSV histogram": lambda images: unit_rows(hsv_histogram(images)),
        "HOG, 64x64 grey": grey_hog,
        "cifar10-cnn:embedding": load_descriptor("cifar10-cnn:embedding").describe,
    }


def grey_hog(images: Sequence[RgbImage]) -> Vectors:
    """HOG of the grey picture at 64 x 64 (9 orientations, 8 x 8 cells, 2 x 2 blocks)."""
    return unit_rows(hog(np.stack([grey(resized(image, 64, 64)) for image in images])))


def measured(photos: Photos, describe: Describe) -> Row:
    """Measure one descriptor."""
    describe(photos.images[:1])
    started = time.process_time()
    vectors = np.concatenate([describe(some) for some in batches(photos.images, BATCH)])
    speed = len(vectors) / (time.process_time() - started)
    test = np.flatnonzero(photos.test)
    training = np.flatnonzero(~photos.test)
    everything = np.arange(len(vectors))
    experiments = {"a": (test, training), "b": (test, test), "c": (everything, everything)}
    measures = {
        name: answers(vectors, photos.labels, queries, indexed)
        for name, (queries, indexed) in experiments.items()
    }
    return Row(vectors.shape[1], speed, measures)


def answers(
    vectors: Vectors,
    labels: NDArray[np.int32],
    queries: NDArray[np.intp],
    indexed: NDArray[np.intp],
) -> tuple[float, float]:
    """Means of `MEASURES` for the rows `queries` of `vectors` as queries to the rows `indexed`."""
    scores = vectors[queries].astype(np.float64) @ vectors[indexed].T.astype(np.float64)
    itself = queries[:, None] == indexed
    scores[itself] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    relevant = relevant_counts(labels[indexed], labels[queries], itself.any(axis=1))
    values = class_measures(labels[indexed][best], labels[queries], relevant, MEASURES)
    nap, precision = (float(values[name].mean()) for name in MEASURES)
    return nap, precision


def main() -> None:
    """Print the table."""
    photos = read_photos(photos_archive())
    print(f"{len(photos.images)} photos, {int(photos.test.sum())} of them test photos")
    print("(a) test photos in training photos; leave-one-out on (b) the test photos, (c) all")
    print(
        f"\n{'':22}{'dims':>6}{'images/s':>10}" + "".join(f"  ({e}) nAP@10   P@10" for e in "abc")
    )
    for name, describe in descriptors().items():
        row = measured(photos, describe)
        figures = "".join(f"{nap:12.4f} {p:6.4f}" for nap, p in row.measures.values())
        print(f"{name:22}{row.dim:6}{row.speed:10.0f}{figures}", flush=True)
    print("\nimages/s: per second of processor time on one core, without decoding")


if __name__ == "__main__":
    main()
