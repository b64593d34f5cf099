"""Visual words as pictures: the patches of images that are nearest to each word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.blocks import Block, local_features, settings_of
from cbir.descriptors.local.sift import CELL_WIDTH, CELLS
from cbir.descriptors.resize import resized
from cbir.descriptors.vocabulary import Vocabulary
from cbir.report.pictures import Row, cut_out
from cbir.types import Floats, RgbImage

WINDOW = CELLS * CELL_WIDTH
"""The side of the window of a SIFT descriptor, in keypoint sizes."""

PATCH_SIDE = 56


@dataclass(frozen=True)
class Local:
    """An image at a block's size, its points (n, 4) and local descriptors (n, dim)."""

    image: RgbImage
    points: Floats
    descriptors: Floats


@dataclass(frozen=True)
class Counted:
    """How many local descriptors each word has (k,), and the nearest of them.

    `patches`: word -> patches, the nearest to the word first, one per image.
    """

    counts: NDArray[np.intp]
    patches: Mapping[int, list[RgbImage]]


def local_of(block: Block, image: RgbImage) -> Local:
    """The points and local descriptors of a block of words in an `image` of the model's size."""
    settings = settings_of(block)
    if settings["size"] is not None:
        image = resized(image, *settings["size"])
    found = local_features(block.feature, settings, image)
    return Local(image, found.points, found.descriptors)


def nearest_words(vocabulary: Vocabulary, descriptors: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The word (n,) of each descriptor and its squared distance to it (n,)."""
    words = vocabulary.hard(descriptors).words[:, 0]
    return words, np.square(descriptors - vocabulary.words[words]).sum(axis=1, dtype=np.float32)


def patch_of(local: Local, number: int) -> RgbImage:
    """The window of local descriptor `number`, upright."""
    point = local.points[number]
    return cut_out(local.image, point, WINDOW * float(point[2]), PATCH_SIDE)


def count_words(
    block: Block, vocabulary: Vocabulary, images: Iterable[RgbImage], each: int
) -> Counted:
    """Count the words of `images` (at the model's size), and keep the `each` nearest patches.

    An image contributes only its nearest descriptor to a word, as neighbouring ones look the same.
    """
    counts = np.zeros(vocabulary.size, dtype=np.intp)
    best: dict[int, list[tuple[float, RgbImage]]] = {}
    for image in images:
        local = local_of(block, image)
        words, distances = nearest_words(vocabulary, local.descriptors)
        counts += np.bincount(words, minlength=vocabulary.size)
        order = np.lexsort((distances, words))
        present, first = np.unique(words[order], return_index=True)
        for word, place in zip(present.tolist(), order[first].tolist(), strict=True):
            found, distance = best.setdefault(word, []), float(distances[place])
            if len(found) < each or distance < found[-1][0]:
                found.append((distance, patch_of(local, place)))
                found.sort(key=lambda pair: pair[0])
                del found[each:]
    return Counted(counts, {word: [patch for _, patch in found] for word, found in best.items()})


def rows_of(counted: Counted, words: Iterable[int]) -> list[Row]:
    """A row for each of `words`: number, share of all local descriptors, patches."""
    total = max(1, int(counted.counts.sum()))
    return [
        Row(
            f"{word}  {100 * int(counted.counts[word]) / total:.2f}%", counted.patches.get(word, [])
        )
        for word in words
    ]
