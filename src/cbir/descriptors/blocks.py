"""Blocks: the components of a Bag-of-Visual-Words vector, from pixels to unit rows.

A block is one feature of `cbir.descriptors.local` with its settings:

    images -> raw_features -> head_rows (power, unit norm) -> block_rows (mean, projection, unit)

A head reads the concatenated `head_rows` of all blocks; the vector consists of `block_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir.descriptors.arrays import Arrays
from cbir.descriptors.fusion import projected, signed_power, unit_rows
from cbir.descriptors.resize import Size, resized
from cbir.descriptors.vocabulary import Vocabulary, vocabulary_of
from cbir.errors import CbirError
from cbir.types import Floats, RgbImage, Vectors
from cbir.wording import did_you_mean

if TYPE_CHECKING:
    from cbir.descriptors.local.sift import LocalFeatures

Settings = Mapping[str, Any]
Width = Callable[[Settings, Arrays, Size], int]
Rows = Callable[[Settings, Arrays, Sequence[RgbImage]], Floats]

SIFT_DIM = 128
ENCODINGS = ("hard", "soft", "vlad")


@dataclass(frozen=True)
class Block:
    """One feature (a name in `FEATURES`) and how it enters the vector.

    `params` are the settings that differ from the feature's defaults; "size" [width, height]
    first resizes the image for this block only. `weight` is the block's share of the fused cosine:
    a block of weight 0 serves only the head. `power` is applied to raw rows, preserving the sign,
    before normalisation.
    """

    feature: str
    params: Settings = field(default_factory=dict)
    weight: float = 1.0
    power: float = 1.0


@dataclass(frozen=True)
class Feature:
    """How to compute a feature: default settings, arrays, dimensions and rows.

    `version` is part of fingerprints: change it when the same settings give different rows.
    `fixed_size`: all images must have the same size.
    """

    version: str
    defaults: Settings
    width: Width
    rows: Rows
    arrays: tuple[str, ...] = ()
    optional_arrays: tuple[str, ...] = ()
    fixed_size: bool = False
    uses_opencv: bool = True


def raw_features(block: Block, arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
    """Raw rows (n, D) of `images`, finite; zero for an image without features.

    `arrays` are the block's own, without the block number: "words", "idf", "filters", ...
    """
    settings = settings_of(block)
    if settings["size"] is not None:
        width, height = settings["size"]
        images = [resized(image, width, height) for image in images]
    return FEATURES[block.feature].rows(settings, arrays, images)


def head_rows(block: Block, raw: Floats) -> Vectors:
    """Apply the block's power to raw rows (n, D) and normalise them: the input of a head."""
    return unit_rows(signed_power(raw, block.power))


def block_rows(block: Block, arrays: Arrays, raw: Floats) -> Vectors:
    """Raw rows (n, D) to vector components: power, unit norm, `mean`, `projection`, unit norm."""
    return projected(
        head_rows(block, raw), _float32(arrays, "mean"), _float32(arrays, "projection")
    )


def raw_dim(block: Block, arrays: Arrays, size: Size) -> int:
    """The number of dimensions of `raw_features` for images of the model's `size`.

    Raises `CbirError` if the settings are invalid or the arrays do not fit them.
    """
    settings = settings_of(block)
    feature = FEATURES[block.feature]
    own = tuple(settings["size"]) if settings["size"] else size
    if feature.fixed_size and isinstance(own, int):
        raise CbirError(f"{block.feature} needs images of one size", 'give the block a "size"')
    missing = set(feature.arrays) - set(arrays)
    if missing:
        raise CbirError(f"{block.feature} lacks the array '{min(missing)}'")
    unknown = set(arrays) - {*feature.arrays, *feature.optional_arrays, "mean", "projection"}
    if unknown:
        raise CbirError(f"{block.feature} does not use the array '{min(unknown)}'")
    return feature.width(settings, arrays, own)


def vector_dim(block: Block, arrays: Arrays, size: Size) -> int:
    """The number of dimensions of `block_rows`; raises `CbirError` as `raw_dim` does."""
    width = raw_dim(block, arrays, size)
    mean, projection = arrays.get("mean"), arrays.get("projection")
    if mean is not None and mean.shape != (width,):
        raise CbirError(f"a mean of shape {mean.shape} does not fit {width} dimensions")
    if projection is None:
        return width
    if projection.ndim != 2 or len(projection) != width or not projection.shape[1]:
        raise CbirError(f"a projection of shape {projection.shape} does not fit {width} dimensions")
    return int(projection.shape[1])


def settings_of(block: Block) -> dict[str, Any]:
    """All settings of a block, including defaults; raises `CbirError` if one is invalid."""
    if block.feature not in FEATURES:
        hint = did_you_mean(block.feature, FEATURES)
        raise CbirError(f"unknown feature '{block.feature}'", hint)
    if not (block.weight >= 0 and 0 < block.power <= 1):
        raise CbirError(f"{block.feature}: weight {block.weight}, power {block.power}")
    defaults = {**FEATURES[block.feature].defaults, "size": None}
    for name, value in block.params.items():
        if name not in defaults:
            hint = did_you_mean(name, defaults)
            raise CbirError(f"{block.feature} has no setting '{name}'", hint)
        if not _possible(name, value, defaults[name]):
            raise CbirError(f"{block.feature}: {name} cannot be {value!r}")
    settings = {**defaults, **block.params}
    if settings.get("encoding") == "vlad" and list(settings["pyramid"]) != [1]:
        raise CbirError(f"{block.feature}: vlad has no spatial pyramid", 'omit "pyramid"')
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
    lowest_is_zero = default == 0  # no limit, no bias
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


def _histogram_rows(feature: str) -> Rows:
    def rows(settings: Settings, _arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
        from cbir.descriptors.local.histograms import HISTOGRAMS

        return HISTOGRAMS[feature](images, settings["bins"], settings["grid"])

    return rows


def _bins_width(settings: Settings, _arrays: Arrays, _size: Size) -> int:
    return int(np.prod(settings["bins"])) * int(settings["grid"]) ** 2


# --- Words of SIFT descriptors ---------------------------------------------------------------


def local_features(feature: str, settings: Settings, image: RgbImage) -> LocalFeatures:
    """The local features of `image` for a block of words ("sift" or "dense-sift")."""
    from cbir.descriptors.local.sift import dense_sift, keypoint_sift, root_sift

    if feature == "sift":
        found = keypoint_sift(image, settings["limit"])
    else:
        found = dense_sift(image, settings["step"], settings["sizes"])
    if settings["root"]:
        return replace(found, descriptors=root_sift(found.descriptors))
    return found


def _words_rows(feature: str) -> Rows:
    def rows(settings: Settings, arrays: Arrays, images: Sequence[RgbImage]) -> Floats:
        vocabulary = vocabulary_of(arrays, "the block")
        found = (local_features(feature, settings, image) for image in images)
        return np.stack(
            [
                _encoded(settings, vocabulary, local, image.shape)
                for local, image in zip(found, images, strict=True)
            ]
        )

    return rows


def _encoded(
    settings: Settings, vocabulary: Vocabulary, local: LocalFeatures, shape: tuple[int, ...]
) -> Floats:
    """The row (D,) of one image of `shape` (height, width, 3)."""
    if settings["encoding"] == "vlad":
        return vocabulary.vlad(local.descriptors)
    if settings["encoding"] == "soft":
        found = vocabulary.soft(local.descriptors, settings["nearest"], settings["sigma"])
    else:
        found = vocabulary.hard(local.descriptors)
    row = vocabulary.histogram(found, local.points, shape, settings["pyramid"])
    return vocabulary.weighted(row) if settings["idf"] else row


def _words_width(settings: Settings, arrays: Arrays, _size: Size) -> int:
    vocabulary = vocabulary_of(arrays, "the block")
    if vocabulary.dim != SIFT_DIM:
        raise CbirError(f"words of {vocabulary.dim} dimensions do not fit SIFT, which has 128")
    if settings["idf"] != ("idf" in arrays):
        raise CbirError(f"the setting idf is {settings['idf']}, which contradicts the array 'idf'")
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
    options = ("activation", "bias", "grid", "stride", "mirror")
    return patch_features(np.stack(images), filters, **{name: settings[name] for name in options})


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


def _words(feature: str, defaults: Settings) -> Feature:
    encoding: Settings = {
        "root": True,
        "encoding": "hard",
        "nearest": 3,
        "sigma": 0.2,
        "pyramid": [1],
        "idf": False,
    }
    rows = _words_rows(feature)
    return Feature("1", {**defaults, **encoding}, _words_width, rows, ("words",), ("idf",))


def _histogram(feature: str, bins: int | list[int]) -> Feature:
    return Feature("1", {"bins": bins, "grid": 1}, _bins_width, _histogram_rows(feature))


FEATURES: Mapping[str, Feature] = {
    "hog": Feature(
        "1",
        {"orientations": 9, "cell": 8, "block": 2},
        _hog_width,
        _hog_rows,
        fixed_size=True,
        uses_opencv=False,
    ),
    "gray": _histogram("gray", 32),
    "lab": _histogram("lab", [4, 7, 7]),
    "hsv": _histogram("hsv", [8, 4, 4]),
    "sift": _words("sift", {"limit": 0}),
    "dense-sift": _words("dense-sift", {"step": 4, "sizes": [8.0]}),
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
"""The features by name, with their default settings."""
