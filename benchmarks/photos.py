"""Search quality on photos: EfficientNet-Lite, `classic`, and plainer descriptors.

800 photos of 20 classes of Caltech-101 (CC BY 4.0), in the folder named by `CBIR_DATA`. A photo is
relevant if it has the query's class. Three experiments: (a) the 200 test photos as queries to the
600 training photos, (b) leave-one-out on the test photos, (c) leave-one-out on all 800. `classic`
was fitted on the 600 training photos without their labels, and its settings were chosen by
experiments on them: only (b) uses no photo of these, though the same classes. The EfficientNets
(extra `photos`) were trained on ImageNet, which has most of these classes, so (b) and (c) are also
measured with the queries of the other classes alone; all photos are searched.

    python -m benchmarks photos
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.setting import heading, photos_archive, row
from cbir.descriptors.contract import batches
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.local.histograms import hsv_histogram, lab_histogram
from cbir.descriptors.local.hog import hog
from cbir.descriptors.local.sift import grey
from cbir.descriptors.models import files_of, load_descriptor
from cbir.descriptors.packaged import PACKAGED, packaged_installed
from cbir.descriptors.resize import resized
from cbir.files import size_of
from cbir.images.decode import load_pixels
from cbir.images.sources import open_source
from cbir.measures.by_class import class_measures, class_names, encode_labels, relevant_counts
from cbir.measures.significance import compare_runs
from cbir.types import RgbImage, Vectors

NAMES = (
    "efficientnet-lite0",
    "efficientnet-lite0-int8",
    "efficientnet-lite0-int8+classic:0.2",
    "efficientnet-lite2",
    "efficientnet-lite2-int8",
    "efficientnet-lite2+classic:0.25",
    "efficientnet-lite2-int8+classic:0.25",
    "efficientnet-lite2-int8+efficientnet-lite0-int8:0.4+classic:0.2",
    "classic",
)
"""The descriptors for photos; those whose extra is missing are left out.

The weights of the compositions were chosen on the training photos by `cbir train compose`.
"""

BASELINE = "classic"
NO_IMAGENET_LABEL = ("bonsai", "brain", "ferry", "helicopter", "lotus")
"""The classes without a label in ImageNet (ILSVRC 2012), neither their own nor one of a kind.

The labels of the other 15: accordion; barrel and rain barrel; six butterflies; reflex and Polaroid
camera; barber, folding and rocking chair; five crabs; dalmatian; killer whale, which is a dolphin;
Indian and African elephant; grand piano; wallaby, which is a kangaroo; laptop; pizza; starfish;
digital watch. Kinds are those of WordNet. Brain coral is no brain, and a liner no ferry.
"""

MEASURES = ("nAP@10", "P@10")
DEPTH = 10
BATCH = 50

Describe = Callable[[Sequence[RgbImage]], Vectors]
Answers = Mapping[str, NDArray[np.float64]]
"""Measure -> its value for each query (q,)."""


@dataclass(frozen=True)
class Photos:
    """Pixels, class numbers (n,) into `classes`, and whether each is a test photo (n,)."""

    images: list[RgbImage]
    labels: NDArray[np.int32]
    classes: tuple[str, ...]
    test: NDArray[np.bool_]

    def unlabelled(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether each photo of `rows` has a class of `NO_IMAGENET_LABEL`."""
        return np.isin(self.labels[rows], [self.classes.index(one) for one in NO_IMAGENET_LABEL])


@dataclass(frozen=True)
class Measured:
    """A descriptor's dimensions, images per second on one core, and answers by experiment."""

    dim: int
    speed: float
    answers: Mapping[str, Answers]

    def means(self, experiment: str) -> tuple[float, ...]:
        """The means of `MEASURES`."""
        return tuple(float(self.answers[experiment][name].mean()) for name in MEASURES)


def read_photos(archive: str) -> Photos:
    """Read all photos of `archive`, ordered by name."""
    images, labels, test = [], [], []
    items = open_source(archive, label_from_folder=True).items()
    for item in sorted(items, key=lambda item: item.key):
        images.append(load_pixels(item.read()))
        labels.append(item.label)
        test.append(item.key.startswith("test/"))
    classes = class_names(labels)
    return Photos(images, encode_labels(labels, classes), classes, np.array(test))


def available(names: Iterable[str] = NAMES) -> list[str]:
    """Those of `names` whose extra is installed."""
    missing = [name for name in PACKAGED if not packaged_installed(name)]
    return [name for name in names if not any(one in name for one in missing)]


def descriptors() -> dict[str, Describe]:
    """The descriptors to compare, by name."""
    return {
        **{name: load_descriptor(name).describe for name in available()},
        "LAB histogram": lambda images: unit_rows(lab_histogram(images)),
        "HSV histogram": lambda images: unit_rows(hsv_histogram(images)),
        "HOG, 64x64 grey": grey_hog,
        "cifar10-cnn:embedding": load_descriptor("cifar10-cnn:embedding").describe,
    }


def grey_hog(images: Sequence[RgbImage]) -> Vectors:
    """HOG of the grey picture at 64 x 64 (9 orientations, 8 x 8 cells, 2 x 2 blocks)."""
    return unit_rows(hog(np.stack([grey(resized(image, 64, 64)) for image in images])))


def measured(photos: Photos, describe: Describe) -> Measured:
    """Measure one descriptor."""
    describe(photos.images[:1])
    started = time.process_time()
    vectors = np.concatenate([describe(some) for some in batches(photos.images, BATCH)])
    speed = len(vectors) / (time.process_time() - started)
    test, training = np.flatnonzero(photos.test), np.flatnonzero(~photos.test)
    everything = np.arange(len(vectors))
    experiments = {"a": (test, training), "b": (test, test), "c": (everything, everything)}
    found = {
        name: answers(vectors, photos.labels, queries, indexed)
        for name, (queries, indexed) in experiments.items()
    }
    return Measured(vectors.shape[1], speed, found)


def answers(
    vectors: Vectors,
    labels: NDArray[np.int32],
    queries: NDArray[np.intp],
    indexed: NDArray[np.intp],
) -> Answers:
    """`MEASURES` of the rows `queries` of `vectors` as queries to the rows `indexed`."""
    scores = vectors[queries].astype(np.float64) @ vectors[indexed].T.astype(np.float64)
    itself = queries[:, None] == indexed
    scores[itself] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    relevant = relevant_counts(labels[indexed], labels[queries], itself.any(axis=1))
    return class_measures(labels[indexed][best], labels[queries], relevant, MEASURES)


def difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> tuple[float, float, float]:
    """The mean of `ours` - `theirs`, and its 95% interval (paired bootstrap)."""
    (found,) = compare_runs([("theirs", {"value": theirs}), ("ours", {"value": ours})])
    return found.difference, *found.interval


def main() -> None:
    """Print a table of quality and cost, and one of differences to the baseline."""
    photos = read_photos(photos_archive())
    print(f"{len(photos.images)} photos, {int(photos.test.sum())} of them test photos")
    print("(a) test photos in training photos; leave-one-out on (b) the test photos, (c) all\n")
    columns = [f"({one}) {name}" for one in "abc" for name in MEASURES]
    print(heading(["descriptor", "dimensions", "MB", "images/s", *columns]))
    found = {}
    for name, describe in descriptors().items():
        found[name] = one = measured(photos, describe)
        figures = [f"{mean:.4f}" for experiment in "abc" for mean in one.means(experiment)]
        print(row([name, str(one.dim), _megabytes(name), f"{one.speed:.0f}", *figures]), flush=True)
    print("\nMB: the model's files; images/s: per second of processor time on one core, without")
    print("decoding\n")
    _print_differences(photos, found)


def _megabytes(name: str) -> str:
    if name not in NAMES:
        return "-"
    return f"{sum(map(size_of, files_of(load_descriptor(name)).values())) / 1e6:.1f}"


def _print_differences(photos: Photos, found: Mapping[str, Measured]) -> None:
    measure = MEASURES[0]
    everything = np.arange(len(photos.images))
    parts = {}
    for experiment, rows in (("b", np.flatnonzero(photos.test)), ("c", everything)):
        without = photos.unlabelled(rows)
        parts[f"({experiment}), n={len(rows)}"] = experiment, np.ones_like(without)
        parts[f"({experiment}) no ImageNet label, n={without.sum()}"] = experiment, without
    print(f"{measure}, and how much that is above {BASELINE} (95% interval)\n")
    print(heading(["descriptor", *parts]))
    for name in available():
        cells = [name]
        for experiment, chosen in parts.values():
            ours, theirs = (
                found[each].answers[experiment][measure][chosen] for each in (name, BASELINE)
            )
            more, low, high = difference(ours, theirs)
            above = f": {more:+.3f} ({low:+.3f} to {high:+.3f})" if name != BASELINE else ""
            cells.append(f"{ours.mean():.3f}{above}")
        print(row(cells))
    print(f"\nno ImageNet label: queries of {', '.join(NO_IMAGENET_LABEL)}")


if __name__ == "__main__":
    main()
