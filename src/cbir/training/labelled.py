"""Reads labelled training and test images and splits off the held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError, ImageError
from cbir.images.decode import load_pixels
from cbir.images.items import ImageSource, SourceItem
from cbir.machine import usable_cores
from cbir.measures.by_class import class_names, encode_labels
from cbir.types import RgbImage
from cbir.wording import counted, listed

HELD_OUT = 0.1
FEWEST_IMAGES = 20
"""With fewer, a tenth is not two images: one to index, and one to query it with."""
MOST_UNREADABLE = 0.1
LABEL_EVERY_IMAGE = (
    "label every image: --label-from-folder, or --metadata FILE with the columns path and label"
)
_READ_AT_ONCE = 256

Say = Callable[[str], None]
Prepare = Callable[[RgbImage], RgbImage]


@dataclass(frozen=True)
class Labelled:
    """Images and their class numbers int64 (n,), UNLABELLED for an image without a label.

    `classes` are the label names by number; `origin` names the data set.
    """

    images: list[RgbImage]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    origin: str

    def take(self, rows: NDArray[np.intp]) -> Labelled:
        """The images at `rows`, in that order."""
        images = [self.images[row] for row in rows]
        return Labelled(images, self.labels[rows], self.classes, self.origin)

    def stacked(self) -> NDArray[np.uint8]:
        """The images, all of one size, as uint8 (n, height, width, 3)."""
        return np.stack(self.images)


def read_labelled(
    source: ImageSource,
    prepare: Prepare,
    *,
    need_labels: bool = True,
    limit: int | None = None,
    seed: int = 0,
    say: Say = lambda _: None,
) -> Labelled:
    """Read the images of `source` in order and prepare each with `prepare`.

    `limit` takes a random sample of that size. Unreadable images are skipped and reported. Raises
    `CbirError` if more than a tenth are unreadable or there is no image; with `need_labels` also if
    an image has no label, all have the same label, or labels differ only in case.
    """
    items = source.items() if limit is None else sampled(source, limit, seed)
    images: list[RgbImage] = []
    labels: list[str | None] = []
    unreadable: list[str] = []
    files = False
    for item, found in _read(items, prepare):
        if isinstance(found, str):
            say(f"skipped {item.location}: {found}")
            unreadable.append(item.location)
            continue
        if need_labels and item.label is None:
            raise CbirError(f"{item.location} has no label", LABEL_EVERY_IMAGE)
        images.append(found)
        labels.append(item.label)
        files = files or item.file_size is not None
    total = len(images) + len(unreadable)
    if not total:
        raise CbirError(f"{source.uri} has no images", "name a folder or archive that holds some")
    if len(unreadable) > MOST_UNREADABLE * total:
        raise CbirError(
            f"{len(unreadable):,} of {counted(total, 'image')} cannot be read: "
            f"{listed(unreadable, 3)}",
            "repair or remove them: training leaves out at most a tenth",
        )
    classes = class_names(labels)
    if need_labels and len(classes) < 2:
        raise CbirError(
            f"all images of {source.uri} have the label '{classes[0]}'",
            "training needs at least two labels, for example one folder for each",
        )
    if need_labels:
        require_distinct(classes)
    codes = encode_labels(labels, classes).astype(np.int64)
    return Labelled(images, codes, classes, _origin(source, files))


def read_test(
    source: ImageSource, prepare: Prepare, classes: tuple[str, ...], say: Say
) -> Labelled:
    """Read labelled test images; raises `CbirError` unless they have exactly these classes."""
    tested = read_labelled(source, prepare, say=say)
    if tested.classes != classes:
        differing = sorted({*tested.classes} ^ {*classes})
        raise CbirError(
            f"the test images and training images have different classes: {listed(differing, 3)}",
            "label both in the same way",
        )
    return tested


def require_distinct(classes: Sequence[str]) -> None:
    """Raise `CbirError` if two labels differ only in case."""
    first: dict[str, str] = {}
    for label in classes:
        other = first.setdefault(label.casefold(), label)
        if other != label:
            raise CbirError(
                f"the labels '{other}' and '{label}' differ only in case",
                "use one spelling, or other names if they are different classes",
            )


def split(everything: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """(held out, training) as `random_tenth`; raises `CbirError` if fewer than two are held out."""
    count = len(everything.images)
    if count < FEWEST_IMAGES:
        raise CbirError(
            f"{count} images are too few to train on",
            f"give at least {FEWEST_IMAGES}: a tenth is held out for tuning",
        )
    held_out, training = random_tenth(everything, seed)
    if len(held_out.images) < 2:
        single = int(np.sum(np.bincount(everything.labels) == 1))
        raise CbirError(
            f"too few images can be held out for tuning: {single:,} of "
            f"{counted(len(everything.classes), 'class')} have a single image",
            "give each class at least two images, or leave out classes of one",
        )
    return held_out, training


def random_tenth(everything: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """(held out, training): a random tenth, and the rest.

    A class whose images were all held out goes back to training.
    """
    order = np.random.default_rng(seed).permutation(len(everything.images))
    held_count = round(len(order) * HELD_OUT)
    held, training = order[:held_count], order[held_count:]
    lost = ~np.isin(everything.labels[held], everything.labels[training])
    training = np.concatenate([training, held[lost]])
    return everything.take(held[~lost]), everything.take(training)


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The accuracy of `logits` (n, classes), 0..1."""
    return float(np.mean(logits.argmax(axis=1) == labels))


def prefix_of(source: ImageSource) -> str:
    """The common id prefix of the images in `source`, for the model card."""
    return f"{source.name}/{source.scope}"


def sampled(source: ImageSource, limit: int, seed: int) -> Iterator[SourceItem]:
    """A random sample of the items of `source`, in source order."""
    items = list(source.items())
    rows = np.random.default_rng(seed).permutation(len(items))[:limit]
    return (items[row] for row in np.sort(rows))


def _read(
    items: Iterator[SourceItem], prepare: Prepare
) -> Iterator[tuple[SourceItem, RgbImage | str]]:
    """Each item with its prepared pixels, or with the reason why they are missing."""

    def read(item: SourceItem) -> RgbImage | str:
        try:
            return prepare(load_pixels(item.read()))
        except ImageError as error:
            return error.message
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    with ThreadPoolExecutor(usable_cores()) as pool:
        while some := list(islice(items, _READ_AT_ONCE)):
            yield from zip(some, pool.map(read, some), strict=True)


def _origin(source: ImageSource, files: bool) -> str:
    if source.uri == "cifar10":
        # Canonical CIFAR-10 is pixels; files are a re-encoded copy, which lowers all scores.
        return "CIFAR-10 (JPEG copy)" if files else "CIFAR-10"
    return source.name
