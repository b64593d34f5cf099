"""Reads how models of open_clip and timm preprocess images, from their files."""

from __future__ import annotations

from math import floor
from typing import Any

from cbir.descriptors.configs import Config, OpenQuestionError
from cbir.descriptors.preprocessing import INTERPOLATIONS, Preprocessing

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Found = tuple[Preprocessing, list[str]]
"""The preprocessing and what was assumed."""


def open_clip_preprocessing(config: Config, size: tuple[int, int] | None) -> Found:
    """From open_clip's `PreprocessCfg`; `size` is the network's, which counts first there, too."""
    mode = config.text("mode") or "RGB"
    if mode != "RGB":
        raise OpenQuestionError(f"images in mode {mode[:20]!r} cannot be made")
    missing = config.missing("mean", "std", "interpolation", "resize_mode")
    size = size or config.pair("size")
    missing += [] if size else ["size"]
    height, width = size or (224, 224)
    resizes: dict[str, dict[str, Any]] = {
        "shortest": {"resize": "shortest", "side": height if height == width else (height, width)},
        "longest": {"resize": "fit", "fill": config.whole("fill_color") or 0},
        "squash": {"resize": "stretch"},
    }
    how = config.choice("resize_mode", tuple(resizes), "shortest")
    interpolation = config.choice("interpolation", ("bicubic", "bilinear", "random"), "bicubic")
    if interpolation == "random" or (how == "shortest" and height != width):
        interpolation = "bicubic"  # open_clip's transform for oblong inputs knows no other
    made = Preprocessing(
        **resizes[how],
        height=height,
        width=width,
        interpolation=interpolation,
        mean=config.channels("mean") or CLIP_MEAN,
        std=config.channels("std") or CLIP_STD,
        keep_exact=False,
    )
    return made, [f"open_clip's defaults for {', '.join(missing)}"] if missing else []


def timm_preprocessing(config: Config) -> Found:
    """From timm's `pretrained_cfg`."""
    shape = config.values.get("input_size") or [3, 224, 224]
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int for n in shape):
        config.refuse("input_size")
    channels, height, width = shape
    if channels != 3:
        raise OpenQuestionError(f"the network wants {channels} channels instead of RGB")
    part = config.part("crop_pct", 0.875)
    frame = floor(height / part), floor(width / part)
    mean = config.channels("mean") or IMAGENET_MEAN
    fill = tuple(min(255, max(0, round(255 * level))) for level in mean)
    crops: dict[str, dict[str, Any]] = {
        "center": {"resize": "shortest", "side": frame[0] if frame[0] == frame[1] else frame},
        "squash": {"resize": "stretch", "side": frame},
        "border": {"resize": "fit", "side": frame, "fill": fill},
    }
    made = Preprocessing(
        **crops[config.choice("crop_mode", tuple(crops), "center")],
        height=height,
        width=width,
        interpolation=config.choice("interpolation", INTERPOLATIONS, "bicubic"),
        mean=mean,
        std=config.channels("std") or IMAGENET_STD,
        keep_exact=False,
    )
    missing = config.missing("input_size", "crop_pct", "interpolation", "mean", "std")
    return made, [f"timm's defaults for {', '.join(missing)}"] if missing else []
