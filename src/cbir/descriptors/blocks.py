"""Blocks: what a Bag-of-Visual-Words vector is made of, from pixels to unit rows.

A block is one feature of `cbir.descriptors.local` with its settings. Its way:

    images -> raw_features -> head_rows (power, unit norm) -> block_rows (mean, projection, unit)

A head reads `head_rows` of all blocks side by side; the vector is made of `block_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir.descriptors.arrays import Arrays
from cbir.descriptors.fusion import Floats, projected, signed_power, unit_rows
from cbir.descriptors.resize import resized
from cbir.descriptors.vocabulary import Vocabulary, vocabulary_of
from cbir.errors import CbirError
from cbir.types import RgbImage, Vectors
from cbir.wording import did_you_mean

if TYPE_CHECKING:
    from cbir.descriptors.local.sift import LocalFeatures

Settings = Mapping[str, Any]
Size = tuple[int, int] | int
"""Width and height, or the longest side of pictures whose aspect ratio is kept."""

SIFT_DIM = 128
ENCODINGS = ("hard", "soft", "vlad")


@dataclass(frozen=True)
class Block:
    """One feature (a name in `FEATURES`) and what is done with it.

    `params` differ from the feature's defaults; "size" [width, height] brings the picture to a
    size of the block's own first. `weight` is the share in the fused cosine: 0 feeds the head
    alone. `power` is applied to raw rows with their sign kept, before unit norm.
    """

    feature: str
    params: Settings = field(default_factory=dict)
    weight: float = 1.0
    power: float = 1.0


@dataclass(frozen=True)
class Feature:
    """How a feature is computed: its settings, arrays, width and rows.

    `version` stands in fingerprints: change it when the rows of unchanged settings change.
    `fixed_size`: all pictures must be of one size.
    """

    version: str
    defaults: Settings
    width: Callable[[Settings, Arrays, Size], int]
    rows: Callable[[Settings, Arrays, Sequence[RgbImage]], Floats]
    arrays: tuple[str, ...] = ()
    optional_arrays: tuple[str, ...] = ()
    fixed_size: bool = False
    uses_opencv: bool = True


def raw_features(block: Block, arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    """Raw rows (n, D) of `images`, finite; zero where an image has nothing to say.

    `arrays` are the block's own, without the block's number: "words", "idf", "filters", ...
    """
    settings = settings_of(block)
    if settings["size"] is not None:
        width, height = settings["size"]
        images = [resized(image, width, height) for image in images]
    return FEATURES[block.feature].rows(settings, arrays, images)


def head_rows(block: Block, raw: Floats) -> Vectors:
    """Raw rows (n, D) to the block's power and unit norm: what a head is fitted on."""
    return unit_rows(signed_power(raw, block.power))


def block_rows(block: Block, arrays: Arrays, raw: Floats) -> Vectors:
    """Raw rows (n, D) as they stand in the vector: power, unit, `mean`, `projection`, unit."""
    return projected(
        head_rows(block, raw), _float32(arrays, "mean"), _float32(arrays, "projection")
    )


def raw_dim(block: Block, arrays: Arrays, size: Size) -> int:
    """How many numbers `raw_features` gives for a picture of the model's `size`.

    Raises `CbirError` where the settings are not possible or the arrays do not fit them.
    """
    settings = settings_of(block)
    feature = FEATURES[block.feature]
    own = tuple(settings["size"]) if settings["size"] else size
    if feature.fixed_size and isinstance(own, int):
        raise CbirError(f"{block.feature} needs pictures of one size", 'give the block a "size"')
    missing = set(feature.arrays) - set(arrays)
    if missing:
        raise CbirError(f"{block.feature} lacks the array '{min(missing)}'")
    unknown = set(arrays) - {*feature.arrays, *feature.optional_arrays, "mean", "projection"}
    if unknown:
        raise CbirError(f"{block.feature} has no use for the array '{min(unknown)}'")
    return feature.width(settings, arrays, own)


def vector_dim(block: Block, arrays: Arrays, size: Size) -> int:
    """How many numbers `block_rows` gives; raises `CbirError` as `raw_dim` does."""
    width = raw_dim(block, arrays, size)
    mean, projection = arrays.get("mean"), arrays.get("projection")
    if mean is not None and mean.shape != (width,):
        raise CbirError(f"a mean of shape {mean.shape} does not fit {width} numbers")
    if projection is None:
        return width
    if projection.ndim != 2 or len(projection) != width or not projection.shape[1]:
        raise CbirError(f"a projection of shape {projection.shape} does not fit {width} numbers")
    return int(projection.shape[1])


def settings_of(block: Block) -> dict[str, Any]:
    """All settings of a block, defaults too; raises `CbirError` where one is not possible."""
    if block.feature not in FEATURES:
        raise CbirError(f"unknown feature '{block.feature}'", did_you_mean(block.feature, FEATURES))
    if not (block.weight >= 0 and 0 < block.power <= 1):
        raise CbirError(f"{block.feature}: weight {block.weight}, power {block.power}")
    defaults = {**FEATURES[block.feature].defaults, "size": None}
    for name, value in block.params.items():
        if name not in defaults:
            raise CbirError(
                f"{block.feature} has no setting '{name}'", did_you_mean(name, defaults)
            )
        if not _possible(name, value, defaults[name]):
            raise CbirError(f"{block.feature}: {name} cannot be {value!r}")
    settings = {**defaults, **block.params}
    if settings.get("encoding") == "vlad" and list(settings["pyramid"]) != [1]:
        raise CbirError(f"{block.feature}: vlad has no spatial pyramid", 'leave out "pyramid"')
    return settings


def _possible(name: str, value: object, default: object) -> bool:
    if name in CHOICES:
        return value in CHOICES[name]
    if name == "size":
        return _is_numbers(value, int) and len(value) == 2  # type: ignore[arg-type]
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, Sequence):
        kind = int if all(isinstance(number, int) for number in default) else float
        return _is_numbers(value, kind) and (name != "bins" or len(value) == len(default))  # type: ignore[arg-type]
    lowest_is_zero = default == 0  # a limit of none, a bias of none
    return _is_number(value, type(default)) and (value > 0 or (lowest_is_zero and value == 0))  # type: ignore[operator]


def _is_numbers(value: object, kind: type) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(_is_number(number, kind) and number > 0 for number in value)
    )


def _is_number(value: object, kind: type) -> bool:
    kinds = (int, float) if kind is float else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and value < float("inf")


def _float32(arrays: Arrays, name: str) -> Floats | None:
    array = arrays.get(name)
    return None if array is None else array.astype(np.float32, copy=False)


# --- HOG -------------------------------------------------------------------------------------


def _hog_width(settings: Settings, _arrays: Arrays, size: Size) -> int:
    assert not isinstance(size, int)
    cell, block = settings["cell"], settings["block"]
    across, down = (max(1, side // cell - block + 1) for side in size)
    return int(across * down * block**2 * settings["orientations"])


def _hog_rows(settings: Settings, _arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    from cbir.descriptors.local.hog import hog

    return hog(
        np.stack(images), **{key: settings[key] for key in ("orientations", "cell", "block")}
    )


# --- Histograms of grey and colour -----------------------------------------------------------


def _gray_rows(settings: Settings, _arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    from cbir.descriptors.local.histograms import gray_histogram

    return gray_histogram(images, settings["bins"], settings["grid"])


def _lab_rows(settings: Settings, _arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    from cbir.descriptors.local.histograms import lab_histogram

    return lab_histogram(images, tuple(settings["bins"]), settings["grid"])


def _hsv_rows(settings: Settings, _arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    from cbir.descriptors.local.histograms import hsv_histogram

    return hsv_histogram(images, tuple(settings["bins"]), settings["grid"])


def _bins_width(settings: Settings, _arrays: Arrays, _size: Size) -> int:
    return int(np.prod(settings["bins"])) * int(settings["grid"]) ** 2


# --- Words of SIFT descriptors ---------------------------------------------------------------


def local_features(feature: str, settings: Settings, image: RgbImage) -> LocalFeatures:
    """What a block of words ("sift" or "dense-sift") compares with its words in `image`."""
    from cbir.descriptors.local.sift import dense_sift, keypoint_sift, root_sift

    if feature == "sift":
        found = keypoint_sift(image, settings["limit"])
    else:
        found = dense_sift(image, settings["step"], settings["sizes"])
    if settings["root"]:
        return replace(found, descriptors=root_sift(found.descriptors))
    return found


def _words_rows(feature: str) -> Callable[[Settings, Arrays, Sequence[RgbImage]], Floats]:
    def rows(settings: Settings, arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
        vocabulary = vocabulary_of(arrays, "the block")
        found = (local_features(feature, settings, image) for image in images)
        return np.stack(
            [
                encode(settings, vocabulary, local.points, local.descriptors, image.shape)
                for local, image in zip(found, images, strict=True)
            ]
        )

    return rows


def encode(
    settings: Settings,
    vocabulary: Vocabulary,
    points: Floats,
    descriptors: Floats,
    shape: tuple[int, ...],
) -> Floats:
    """One image's row (D,) of its `descriptors` (n, dim) at `points`, as the settings say."""
    if settings["encoding"] == "vlad":
        return vocabulary.vlad(descriptors)
    if settings["encoding"] == "soft":
        found = vocabulary.soft(descriptors, settings["nearest"], settings["sigma"])
    else:
        found = vocabulary.hard(descriptors)
    row = vocabulary.histogram(found, points, shape, settings["pyramid"])
    return vocabulary.weighted(row) if settings["idf"] else row


def _words_width(settings: Settings, arrays: Arrays, _size: Size) -> int:
    vocabulary = vocabulary_of(arrays, "the block")
    if vocabulary.dim != SIFT_DIM:
        raise CbirError(
            f"words of {vocabulary.dim} numbers do not fit SIFT, which gives {SIFT_DIM}"
        )
    if settings["idf"] != ("idf" in arrays):
        raise CbirError(f"the setting idf is {settings['idf']}, and the array 'idf' says otherwise")
    if settings["encoding"] == "vlad":
        return vocabulary.size * vocabulary.dim
    return vocabulary.size * sum(int(grid) ** 2 for grid in settings["pyramid"])


# --- Whitened patches ------------------------------------------------------------------------


def _patch_rows(settings: Settings, arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    from cbir.descriptors.local.patches import PatchFilters, patch_features

    filters = PatchFilters(
        filters=arrays["filters"].astype(np.float32, copy=False),
        whitening=arrays["whitening"].astype(np.float32, copy=False),
        mean=arrays["whitening-mean"].astype(np.float32, copy=False),
        size=settings["patch"],
    )
    return patch_features(
        np.stack(images),
        filters,
        activation=settings["activation"],
        bias=settings["bias"],
        grid=settings["grid"],
        stride=settings["stride"],
        mirror=settings["mirror"],
    )


def _patch_width(settings: Settings, arrays: Arrays, _size: Size) -> int:
    pixels = settings["patch"] ** 2 * 3
    shapes: dict[str, tuple[int, ...]] = {
        "filters": (len(arrays["filters"]), pixels),
        "whitening": (pixels, pixels),
        "whitening-mean": (pixels,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise CbirError(
                f"{name} of shape {arrays[name].shape} do not fit patches of "
                f"{settings['patch']}x{settings['patch']} pixels"
            )
    from cbir.descriptors.local.patches import ANSWERS

    return int(len(arrays["filters"]) * ANSWERS[settings["activation"]] * settings["grid"] ** 2)


CHOICES: Mapping[str, tuple[str, ...]] = {
    "encoding": ENCODINGS,
    "activation": ("triangle", "relu", "cosine"),
}

_WORDS: Settings = {
    "root": True,
    "encoding": "hard",
    "nearest": 3,
    "sigma": 0.2,
    "pyramid": [1],
    "idf": False,
}

FEATURES: Mapping[str, Feature] = {
    "hog": Feature(
        "1",
        {"orientations": 9, "cell": 8, "block": 2},
        _hog_width,
        _hog_rows,
        fixed_size=True,
        uses_opencv=False,
    ),
    "gray": Feature("1", {"bins": 32, "grid": 1}, _bins_width, _gray_rows),
    "lab": Feature("1", {"bins": [4, 7, 7], "grid": 1}, _bins_width, _lab_rows),
    "hsv": Feature("1", {"bins": [8, 4, 4], "grid": 1}, _bins_width, _hsv_rows),
    "sift": Feature(
        "1", {"limit": 0, **_WORDS}, _words_width, _words_rows("sift"), ("words",), ("idf",)
    ),
    "dense-sift": Feature(
        "1",
        {"step": 4, "sizes": [8.0], **_WORDS},
        _words_width,
        _words_rows("dense-sift"),
        ("words",),
        ("idf",),
    ),
    "patches": Feature(
        "1",
        {
            "patch": 6,
            "activation": "triangle",
            "bias": 0.0,
            "grid": 2,
            "stride": 1,
            "mirror": False,
        },
        _patch_width,
        _patch_rows,
        ("filters", "whitening", "whitening-mean"),
        fixed_size=True,
        uses_opencv=False,
    ),
}
"""The features by name, with their settings' defaults."""
