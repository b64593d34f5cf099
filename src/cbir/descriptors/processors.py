"""Reads how models of transformers, open_clip and timm preprocess images, from their files.

The reference of transformers is its Pillow backend, as the weights were trained; open_clip and timm
use Pillow through torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cbir.descriptors.configs import Config, OpenQuestionError, Read, read_config
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Found,
    open_clip_preprocessing,
    timm_preprocessing,
)

RESAMPLINGS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's number, which `resample` is."""

WARPED_FROM = 384
"""ConvNeXT crops smaller inputs and warps larger ones."""

CLIP, IMAGENET, HALF = (CLIP_MEAN, CLIP_STD), (IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3,) * 2


def _usual(
    resample: int,
    levels: tuple[tuple[float, ...], tuple[float, ...]],
    shorter: int | None = None,
    square: int | None = None,
    crop: int | None = None,
) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": shorter} if shorter else {"height": square, "width": square},
        "default_to_square": not shorter,
        "do_center_crop": crop is not None,
        "crop_size": crop,
        "resample": resample,
        "image_mean": list(levels[0]),
        "image_std": list(levels[1]),
    }


PROCESSORS: Mapping[str, dict[str, Any]] = {
    "Beit": _usual(3, HALF, square=224) | {"crop_size": 224},
    "Bit": _usual(3, CLIP, 224, crop=224),
    "Blip": _usual(3, CLIP, square=384),
    "CLIP": _usual(3, CLIP, 224, crop=224),
    "ChineseCLIP": _usual(3, CLIP, 224, crop=224),
    "ConvNext": _usual(3, HALF, 384),
    "DINOv3ViT": _usual(2, IMAGENET, square=224),
    "DeiT": _usual(3, HALF, square=256, crop=224),
    "EfficientNet": _usual(3, HALF, square=346) | {"crop_size": 289},
    "Levit": _usual(3, IMAGENET, 224, crop=224),
    "MobileNetV1": _usual(2, HALF, 256, crop=224),
    "MobileNetV2": _usual(2, HALF, 256, crop=224),
    "Pvt": _usual(3, IMAGENET, square=224),
    "Siglip": _usual(3, HALF, square=224) | {"default_to_square": False},
    "ViT": _usual(2, HALF, square=224),
}
"""What `XImageProcessor` of transformers does where its file says nothing."""

MODEL_TYPES: Mapping[str, str] = {
    "beit": "Beit",
    "bit": "Bit",
    "chinese_clip": "ChineseCLIP",
    "clip": "CLIP",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "deit": "DeiT",
    "dinov2": "Bit",
    "efficientnet": "EfficientNet",
    "levit": "Levit",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "regnet": "ConvNext",
    "resnet": "ConvNext",
    "siglip": "Siglip",
    "swin": "ViT",
    "vit": "ViT",
}
"""The image processor for a `model_type` of `config.json`, as `AutoImageProcessor` chooses it."""


def read_preprocessing(folder: Path) -> Read[Preprocessing]:
    """How the model in `folder` prepares images, by the first of its files that says so.

    Those are transformers' `preprocessor_config.json` and `processor_config.json`, open_clip's
    `open_clip_config.json` and `preprocess_cfg.json` (also in `visual/`), and timm's `config.json`.
    Nothing is guessed: a default of the reference for what its file leaves out is an assumption,
    and what `Preprocessing` cannot express is a question; files that say nothing ask nothing.
    Tensors are float32 in NCHW order; the network's own input decides otherwise. Raises `CbirError`
    for values that mean nothing.
    """
    network = read_config(folder / "config.json") or Config("config.json", {})
    transformers = partial(_transformers, model_type=network.text("model_type") or "")
    readers: Mapping[str, Callable[[Config], Found | None]] = {
        "preprocessor_config.json": transformers,
        "processor_config.json": partial(_section, "image_processor", transformers),
        "open_clip_config.json": _open_clip,
        "preprocess_cfg.json": partial(open_clip_preprocessing, size=None),
        "visual/preprocess_cfg.json": partial(open_clip_preprocessing, size=None),
        "config.json": _timm,
    }
    found: list[tuple[str, Found]] = []
    questions: list[str] = []
    for name, read in readers.items():
        config = read_config(folder / name)
        try:
            made = read(config) if config else None
        except OpenQuestionError as question:
            questions.append(f"{name}: {question}")
        else:
            found += [(name, made)] if made else []
    if not found:
        return Read(None, (), tuple(questions))
    name, (preprocessing, assumed) = found[0]
    others = [
        f"{other} says otherwise ({differing}); {name} is followed"
        for other, (differing, _) in found[1:]
        if replace(differing, crop=preprocessing.crop) != preprocessing
    ]
    return Read(preprocessing, (*(f"{name}: {line}" for line in assumed), *others))


def _section(key: str, read: Callable[[Config], Found], config: Config) -> Found | None:
    own = config.section(key)
    return read(own) if own.values else None


def _open_clip(config: Config) -> Found:
    vision = config.section("model_cfg").section("vision_cfg")
    return open_clip_preprocessing(config.section("preprocess_cfg"), vision.pair("image_size"))


def _timm(config: Config) -> Found | None:
    if {"architecture", "input_size"} <= set(config.values):  # the form of older files
        return timm_preprocessing(config)
    return _section("pretrained_cfg", timm_preprocessing, config)


def _transformers(config: Config, model_type: str) -> Found:
    kind, assumed = _processor(config, model_type)
    usual = PROCESSORS[kind]
    said = {key: value for key, value in config.values.items() if value is not None}
    merged = Config(config.file, usual | said)
    for key in ("do_pad", "do_flip_channel_order", "use_square_size"):
        if merged.flag(key, False):
            raise OpenQuestionError(f"'{key}' cannot be represented")
    if not merged.flag("do_resize", True):
        raise OpenQuestionError("images are not resized: give the network's input size")
    if missing := config.missing("size", "resample", "image_mean", "image_std"):
        assumed.append(f"the defaults of {kind}ImageProcessor for {', '.join(missing)}")
    if kind == "DINOv3ViT":
        assumed.append("resized pixels are rounded to whole levels, which the reference does not")
    number = merged.whole("resample")
    if number not in range(len(RESAMPLINGS)):
        merged.refuse("resample")
    return Preprocessing(
        **(_convnext(merged) if kind == "ConvNext" else _sizes(merged, kind)),
        **_levels(merged, kind),
        interpolation=RESAMPLINGS[number or 0],
        crop="floor",
        keep_exact=False,
    ), assumed


def _processor(config: Config, model_type: str) -> tuple[str, list[str]]:
    """The key of `PROCESSORS` for a file, and what was assumed."""
    old = config.text("feature_extractor_type") or ""
    name = config.text("image_processor_type") or old.replace("FeatureExtractor", "ImageProcessor")
    if not name:
        if model_type not in MODEL_TYPES:
            raise OpenQuestionError("neither it nor config.json names an image processor")
        kind = MODEL_TYPES[model_type]
        return kind, [f"{kind}ImageProcessor, as for models of type '{model_type}'"]
    kind = name.removesuffix("Fast").removesuffix("ImageProcessor")
    if kind not in PROCESSORS:
        raise OpenQuestionError(f"the image processor {name[:60]!r} is not known")
    fast = name.endswith("Fast")
    return kind, [f"Pillow resizes, where {name} uses torchvision"] if fast else []


def _sizes(config: Config, kind: str) -> dict[str, Any]:
    """Resize, side and input size as `Preprocessing` has them."""
    size = _size(config, "size", config.flag("default_to_square", True))
    crop = _size(config, "crop_size", True) if config.flag("do_center_crop", False) else size
    if isinstance(crop, int):
        raise OpenQuestionError("inputs keep their aspect ratio: give the network's input size")
    if isinstance(size, int) and kind == "Levit":
        size = int(256 / 224 * size)
    frame = (size, size) if isinstance(size, int) else size
    if frame[0] < crop[0] or frame[1] < crop[1]:
        raise OpenQuestionError("the crop is larger than the resized image")
    return {
        "resize": "shortest" if isinstance(size, int) else "stretch",
        "side": None if size == crop else size,
        "height": crop[0],
        "width": crop[1],
    }


def _convnext(config: Config) -> dict[str, Any]:
    side = _size(config, "size", config.flag("default_to_square", False))
    if isinstance(side, tuple) or config.flag("do_center_crop", False):
        raise OpenQuestionError("'size' without 'shortest_edge', or a second crop")
    square = {"height": side, "width": side}
    if side >= WARPED_FROM:
        return {"resize": "stretch", **square}
    part = config.part("crop_pct", 224 / 256)
    return {"resize": "shortest", "side": int(side / part), **square}


def _size(config: Config, key: str, square: bool) -> int | tuple[int, int]:
    """The shorter side, or height and width."""
    value = config.values.get(key)
    if not isinstance(value, dict):
        sides = config.pair(key) or config.refuse(key)
        return sides if square or isinstance(value, list) else sides[0]
    named = config.section(key)
    lengths = [named.whole(name) for name in ("shortest_edge", "height", "width")]
    others = set(named.values) - {"shortest_edge", "height", "width"}
    if any(named.values[name] is not None for name in others):
        raise OpenQuestionError(f"'{key}' by {', '.join(sorted(others))[:60]}")
    shorter, height, width = lengths
    if shorter and not height and not width:
        return shorter
    return (height, width) if height and width and not shorter else config.refuse(key)


def _levels(config: Config, kind: str) -> dict[str, Any]:
    """Scale, mean and standard deviation."""
    scale, offset = 1.0, 0.0
    if config.flag("do_rescale", True):
        factor = config.number("rescale_factor")
        scale = 1 / 255 if factor is None else factor
        offset = 1.0 if kind == "EfficientNet" and config.flag("rescale_offset", False) else 0.0
    normalised = config.flag("do_normalize", True)
    again = kind == "EfficientNet" and config.flag("include_top", True)
    mean = config.channels("image_mean") or config.refuse("image_mean")
    std = config.channels("image_std") or config.refuse("image_std")
    divisions = normalised + again  # EfficientNet's second one is without a mean
    return {
        "scale": scale,
        "mean": tuple(offset + level * normalised for level in mean),
        "std": tuple((1.0, level, level * level)[divisions] for level in std),
    }
