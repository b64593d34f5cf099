"""Pictures of a Bag-of-Visual-Words model: what it sees in an image, its words, its filters.

Each function returns pictures by name, none if the model has no such part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.arrays import read_npz
from cbir.descriptors.blocks import Block, raw_features, settings_of
from cbir.descriptors.bovw import ARRAYS_FILE, BovwDescriptor
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.local.hog import hog_picture
from cbir.descriptors.local.patches import ANSWERS
from cbir.descriptors.local.sift import CELLS
from cbir.descriptors.resize import resized
from cbir.descriptors.vocabulary import vocabulary_of
from cbir.errors import CbirError
from cbir.files import content
from cbir.report.pictures import (
    ACCENT,
    YELLOW,
    Row,
    below,
    beside,
    captioned,
    enlarged,
    grid,
    sheet,
    with_dots,
    with_keypoints,
    with_window,
)
from cbir.report.plot_style import SERIES, pixels, require_matplotlib
from cbir.report.plots import bars_plot
from cbir.report.word_patches import (
    PATCH_SIDE,
    WINDOW,
    Local,
    count_words,
    local_of,
    nearest_words,
    patch_of,
    rows_of,
)
from cbir.types import Floats, RgbImage

Pictures = dict[str, RgbImage]

WORDS = ("sift", "dense-sift")
FILTERS = "patches"

SIDE = 768
MANY_POINTS = 400
STRONGEST = 12
OF_ONE_IMAGE = 6
PATCHES_OF_A_WORD = 10
WORDS_OF_A_SHEET = 12
FILTERS_OF_A_SHEET = 256
FILTER_SCALE = 5
SEED = 0


@dataclass(frozen=True)
class Part:
    """A block of a model, with its number, fitted arrays and colour."""

    number: int
    block: Block
    arrays: Mapping[str, Floats]

    @property
    def name(self) -> str:
        return f"block {self.number}, {self.block.feature}"

    @property
    def colour(self) -> str:
        return SERIES[self.number % len(SERIES)]


def parts_of(model: BovwDescriptor) -> list[Part]:
    """The blocks of `model`."""
    arrays = read_npz(content(model.files[ARRAYS_FILE]), ARRAYS_FILE)
    return [
        Part(
            number,
            block,
            {
                name.partition("/")[2]: array.astype(np.float32, copy=False)
                for name, array in arrays.items()
                if name.startswith(f"{number}/")
            },
        )
        for number, block in enumerate(model.card.blocks)
    ]


def require_drawable(descriptor: Descriptor) -> BovwDescriptor:
    """`descriptor`, if it is a model of local features; else raises `CbirError`."""
    if isinstance(descriptor, BovwDescriptor):
        return descriptor
    raise CbirError(
        f"{descriptor.spec.name} has no local features, words or filters to draw",
        "use a model of `cbir train bovw`",
    )


def has_words(model: BovwDescriptor) -> bool:
    """Whether the model has visual words."""
    return any(block.feature in WORDS for block in model.card.blocks)


def image_pictures(model: BovwDescriptor, image: RgbImage, name: str) -> Pictures:
    """What `model` sees in `image` (RGB, any size), named `name`: "keypoints", "hog", "words".

    Raises `MissingExtraError` if charts of words need matplotlib.
    """
    if any(block.feature in (*WORDS, FILTERS) for block in model.card.blocks):
        require_matplotlib("a chart of visual words", "bovw")
    prepared = model.prepare(image)
    found: dict[str, list[RgbImage]] = {"keypoints": [], "hog": [], "words": []}
    for part in parts_of(model):
        if part.block.feature in WORDS:
            local = local_of(part.block, prepared)
            found["keypoints"].append(_keypoints(part, local))
            found["words"].append(_words(part, local))
        elif part.block.feature == FILTERS:
            found["words"].append(_answers(part, prepared))
        elif part.block.feature == "hog":
            found["hog"].append(_hog(part, prepared))
    titles = {
        "keypoints": f"{name}: where local descriptors are taken",
        "hog": f"{name}: histograms of oriented gradients",
        "words": f"{name} in words",
    }
    return {kind: captioned(below(p), titles[kind]) for kind, p in found.items() if p}


def word_pictures(model: BovwDescriptor, images: Sequence[RgbImage], source: str) -> Pictures:
    """Patches of `images` (at the model's size, of `source`) for words of each vocabulary.

    Shows the most frequent words, and as many others at random. Raises `CbirError` if no image
    has a local descriptor.
    """
    pictures = {}
    for part in parts_of(model):
        if part.block.feature not in WORDS:
            continue
        vocabulary = vocabulary_of(part.arrays, part.name)
        counted = count_words(part.block, vocabulary, images, PATCHES_OF_A_WORD)
        by_count = np.argsort(-counted.counts, kind="stable")
        by_count = by_count[counted.counts[by_count] > 0]
        if not len(by_count):
            continue
        frequent, others = np.split(by_count, [min(WORDS_OF_A_SHEET, len(by_count))])
        drawn = np.random.default_rng(SEED).permutation(others)[:WORDS_OF_A_SHEET]
        groups = (("most frequent", frequent), ("others, at random", np.sort(drawn)))
        sheets = [
            captioned(sheet(rows_of(counted, words.tolist()), PATCH_SIDE), title)
            for title, words in groups
            if len(words)
        ]
        pictures[f"words-{part.number}-{part.block.feature}"] = captioned(
            beside(sheets),
            f"{part.name}: patches nearest to visual words",
            f"{int(counted.counts.sum()):,} local descriptors of {len(images):,} images of {source}"
            f"; {len(by_count):,} of {vocabulary.size:,} words are among them",
            "each row: number of the word, its share of these descriptors, and the nearest "
            "patches, one per image, rotated upright",
        )
    if not pictures:
        raise CbirError(
            f"{source}: no image has a keypoint, so none has a visual word",
            "use other images, or more of them",
        )
    return pictures


def filter_pictures(model: BovwDescriptor) -> Pictures:
    """The patch filters of each block that has them, with the whitening undone and as they are."""
    pictures = {}
    for part in parts_of(model):
        if part.block.feature != FILTERS:
            continue
        filters, size = part.arrays["filters"], settings_of(part.block)["patch"]
        shown = np.linspace(0, len(filters) - 1, min(FILTERS_OF_A_SHEET, len(filters)))
        some = filters[np.unique(shown.astype(np.intp))]
        columns = int(np.ceil(np.sqrt(len(some))))
        sides = (
            ("as patches of pixels (whitening undone)", _unwhitened(part, some)),
            ("as they are, in whitened space", some),
        )
        pictures[f"filters-{part.number}"] = captioned(
            beside(
                [
                    captioned(grid(_as_colours(rows, size), columns, FILTER_SCALE), title)
                    for title, rows in sides
                ]
            ),
            f"{part.name}: {len(some):,} of {len(filters):,} filters of {size}x{size} pixels",
            "each scaled to its greatest contrast around grey",
        )
    return pictures


def _keypoints(part: Part, local: Local) -> RgbImage:
    """The image with its keypoints, or with the dense grid and one descriptor's 4 x 4 cells."""
    large, factor = enlarged(local.image, SIDE)
    height, width = local.image.shape[:2]
    points = local.points
    if part.block.feature == "sift":
        said = f"{len(points):,} keypoints; circles: size, lines: angle"
        if len(points) > MANY_POINTS:
            said += f"; the {MANY_POINTS} strongest are drawn"
        drawn = with_keypoints(large, points[:MANY_POINTS][::-1], factor, YELLOW)
    else:
        size = float(points[:, 2].min())
        smallest = points[points[:, 2] == size]
        middle = smallest[np.argmin(np.abs(smallest[:, :2] - [width / 2, height / 2]).sum(axis=1))]
        sizes = ", ".join(f"{s:g}" for s in np.unique(points[:, 2]))
        said = (
            f"{len(points):,} descriptors at the dots, of sizes {sizes}; "
            f"squares: the {CELLS} x {CELLS} cells of one descriptor of size {size:g}"
        )
        drawn = with_dots(large, smallest, factor, YELLOW)
        drawn = with_window(drawn, middle, WINDOW * size, CELLS, factor, ACCENT)
    return captioned(drawn, part.name, f"{width} x {height} pixels; {said}")


def _hog(part: Part, image: RgbImage) -> RgbImage:
    """The image beside its HOG picture."""
    settings = settings_of(part.block)
    if settings["size"] is not None:
        image = resized(image, *settings["size"])
    cell, orientations = settings["cell"], settings["orientations"]
    seen = hog_picture(image, orientations=orientations, cell=cell)
    large, _ = enlarged(image, SIDE // 2)
    stars, _ = enlarged(seen, SIDE // 2)
    height, width = image.shape[:2]
    return captioned(
        beside([large, stars]),
        part.name,
        f"{width} x {height} pixels; {orientations} orientations in cells of {cell} x {cell}; "
        "the brighter a ray, the stronger the edges along it",
    )


def _words(part: Part, local: Local) -> RgbImage:
    """The image's words as bars, by share and by tf-idf, and the strongest words' patches."""
    vocabulary = vocabulary_of(part.arrays, part.name)
    words, distances = nearest_words(vocabulary, local.descriptors)
    shares = np.bincount(words, minlength=vocabulary.size) / max(1, len(words))
    weights, measure = shares, "share"
    charts = [(shares, f"share of {len(words):,} local descriptors", True)]
    if vocabulary.idf is not None:
        weights, measure = shares * vocabulary.idf, "tf-idf"
        charts.append((weights, "tf-idf: share times the logarithm of rarity", False))
    strongest = [int(w) for w in np.argsort(-weights, kind="stable")[:STRONGEST] if weights[w] > 0]
    drawn = [
        pixels(bars_plot(values, title, part.colour, named=strongest, percent=percent))
        for values, title, percent in charts
    ]
    if strongest:
        rows = []
        for word in strongest:
            own = np.flatnonzero(words == word)
            nearest = own[np.argsort(distances[own], kind="stable")][:OF_ONE_IMAGE]
            told = f"{weights[word]:.3f}" if measure == "tf-idf" else f"{weights[word]:.1%}"
            label = f"word {word}: {told}, {len(own):,} x"
            rows.append(Row(label, [patch_of(local, int(number)) for number in nearest]))
        drawn.append(
            captioned(_two_columns(rows), f"strongest words by {measure}, with their patches here")
        )
    encoding = settings_of(part.block)["encoding"]
    return captioned(
        below(drawn),
        f"{part.name}: {np.count_nonzero(shares):,} of {vocabulary.size:,} words",
        *(
            []
            if encoding == "hard"
            else [f"each descriptor's nearest word; the vector is {encoding}"]
        ),
    )


def _two_columns(rows: Sequence[Row]) -> RgbImage:
    """A sheet of `rows`, the first half on the left."""
    half = -(-len(rows) // 2)
    return beside([sheet(part, PATCH_SIDE) for part in (rows[:half], rows[half:]) if part])


def _answers(part: Part, image: RgbImage) -> RgbImage:
    """The response of each patch filter to the whole image, and the strongest filters."""
    settings = settings_of(part.block)
    count, size = len(part.arrays["filters"]), settings["patch"]
    raw = raw_features(part.block, part.arrays, [image])[0]
    answers = raw.reshape(-1, ANSWERS[settings["activation"]], count).sum(axis=(0, 1))
    shares = answers / max(float(answers.sum()), 1e-12)
    strongest = np.argsort(-shares, kind="stable")[: 2 * STRONGEST]
    patches = _as_colours(_unwhitened(part, part.arrays["filters"][strongest]), size)
    return captioned(
        below(
            [
                pixels(
                    bars_plot(
                        shares,
                        f"share of all responses of {count:,} filters",
                        part.colour,
                        named=strongest[:STRONGEST].tolist(),
                        percent=True,
                    )
                ),
                captioned(
                    grid(patches, 2 * STRONGEST, 6),
                    f"the {len(patches)} filters with the strongest responses, strongest first",
                ),
            ]
        ),
        part.name,
    )


def _unwhitened(part: Part, filters: Floats) -> Floats:
    """`filters` (n, d) without the whitening: patches as differences from the mean."""
    return np.asarray(np.linalg.solve(part.arrays["whitening"].T, filters.T).T, dtype=np.float32)


def _as_colours(rows: Floats, size: int) -> NDArray[np.uint8]:
    """Rows (n, size * size * 3) as patches: 0 is grey, the extreme of a row white or black."""
    greatest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12)
    shades = np.rint(127.5 + 127.5 * rows / greatest).astype(np.uint8)
    return np.asarray(shades.reshape(-1, size, size, 3))
