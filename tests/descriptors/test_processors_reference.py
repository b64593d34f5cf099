"""Inputs equal those of transformers, open_clip and timm, for images of any size.

The reference of transformers is its Pillow backend: it is what the weights were trained with, while
its torchvision backend differs from it by a level or two. Every reference reads the same file, and
gets the same pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.reference.comparing import INPUTS as TOLERANCE
from benchmarks.reference.comparing import SIZES
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.processors import MODEL_TYPES, PROCESSORS, read_preprocessing
from cbir.types import RgbImage

pytestmark = pytest.mark.reference

Reference = Callable[[RgbImage], np.ndarray]
CLIP_LEVELS = {"image_mean": [0.48145466, 0.4578275, 0.40821073],
               "image_std": [0.26862954, 0.26130258, 0.27577711]}  # fmt: skip
IMAGENET_LEVELS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
FLAGS = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
         "rescale_factor": 0.00392156862745098}  # fmt: skip
CROP = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "clip, as openai and Xenova wrote it": {
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 224, **CLIP_LEVELS,
    },
    "clip, as transformers writes it": {
        **FLAGS, **CLIP_LEVELS, **CROP, "image_processor_type": "CLIPImageProcessor", "resample": 3,
        "processor_class": "CLIPProcessor", "size": {"shortest_edge": 224},
    },
    "clip, larger than its crop": {
        **CLIP_LEVELS, "image_processor_type": "CLIPImageProcessor", "size": 61,
        "crop_size": {"height": 50, "width": 37},
    },
    "siglip": {
        **FLAGS, **HALF, "image_processor_type": "SiglipImageProcessor", "resample": 3,
        "processor_class": "SiglipProcessor", "size": {"height": 256, "width": 256},
    },
    "siglip 2, fixed resolution": {
        **FLAGS, **HALF, "do_convert_rgb": None, "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor", "resample": 2, "size": {"height": 256, "width": 256},
    },
    "dinov2": {
        **FLAGS, **IMAGENET_LEVELS, **CROP, "image_processor_type": "BitImageProcessor",
        "resample": 3, "size": {"shortest_edge": 256},
    },
    "bit, defaults": {"image_processor_type": "BitImageProcessor"},
    "vit, old": {
        "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
        "resample": 2, "size": 224, **HALF,
    },
    "vit, oblong": {"image_processor_type": "ViTImageProcessor", "size": [96, 128]},
    "vit, unscaled": {
        "image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False,
        "resample": 4,
    },
    "deit": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224},
    "convnext, cropped": {
        "crop_pct": 0.875, "feature_extractor_type": "ConvNextFeatureExtractor", "resample": 3,
        "size": 224, **IMAGENET_LEVELS,
    },
    "convnext, warped": {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384},
        "crop_pct": None,
    },
    "efficientnet": {
        **FLAGS, **IMAGENET_LEVELS, "image_processor_type": "EfficientNetImageProcessor",
        "do_center_crop": False, "crop_size": {"height": 289, "width": 289}, "resample": 0,
        "include_top": True, "rescale_offset": False, "size": {"height": 224, "width": 224},
    },
    "efficientnet, offset": {
        "image_processor_type": "EfficientNetImageProcessor", "rescale_factor": 1 / 127.5,
        "rescale_offset": True, "include_top": False, "size": {"height": 100, "width": 90},
        "do_center_crop": True, "crop_size": {"height": 89, "width": 61}, "resample": 1,
    },
    "levit": {"image_processor_type": "LevitImageProcessor"},
    "mobilenet v2": {"image_processor_type": "MobileNetV2ImageProcessor", "resample": 5},
    "blip": {"image_processor_type": "BlipImageProcessor", "size": {"height": 96, "width": 96}},
}  # fmt: skip

OPEN_CLIP: dict[str, dict[str, Any]] = {
    "defaults": {},
    "shortest": {"size": 224, "resize_mode": "shortest", "interpolation": "bilinear"},
    "shortest, oblong": {"size": [96, 131], "interpolation": "bilinear"},
    "longest": {"size": 225, "resize_mode": "longest", "fill_color": 119},
    "longest, oblong": {"size": [97, 130], "resize_mode": "longest", "interpolation": "bilinear"},
    "squash": {"size": [256, 256], "resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    "random": {"size": 100, "interpolation": "random", "mode": "RGB", "mean": [0.0] * 3},
}

TIMM: dict[str, dict[str, Any]] = {
    "defaults": {"input_size": [3, 224, 224]},
    "center": {"input_size": [3, 224, 224], "crop_pct": 0.9, "crop_mode": "center"},
    "center, odd": {"input_size": [3, 111, 111], "crop_pct": 0.94, "interpolation": "bilinear"},
    "center, oblong": {"input_size": [3, 96, 131], "crop_pct": 0.95, "interpolation": "bicubic"},
    "squash": {"input_size": [3, 98, 75], "crop_pct": 0.8, "crop_mode": "squash"},
    "whole": {"input_size": [3, 96, 96], "crop_pct": 1.0, "crop_mode": "squash"},
    "border": {"input_size": [3, 111, 111], "crop_pct": 1.0, "crop_mode": "border"},
    "border, cropped": {"input_size": [3, 112, 95], "crop_pct": 0.85, "crop_mode": "border",
                        "mean": [0.1, 0.5, 0.9], "std": [0.2, 0.3, 0.4]},
    "nearest": {"input_size": [3, 50, 50], "crop_pct": 0.7, "interpolation": "nearest"},
}  # fmt: skip


@pytest.fixture(scope="module")
def images() -> list[RgbImage]:
    random = np.random.default_rng(13)
    assert len(SIZES) == len(set(SIZES)) == 50
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def written(folder: Path, name: str, values: dict[str, Any]) -> Preprocessing:
    """What the file `name` in `folder` says."""
    (folder / name).write_text(json.dumps(values))
    found = read_preprocessing(folder)
    assert found.value is not None, found.questions
    return found.value


def worst(own: Preprocessing, reference: Reference, images: list[RgbImage]) -> float:
    """The largest difference between own inputs and the reference's; shapes must agree."""
    worst = 0.0
    for image in images:
        made, expected = own.inputs([image])[0], reference(image)
        assert made.shape == expected.shape and made.dtype == np.float32
        assert np.isfinite(expected).all()
        worst = max(worst, float(np.abs(made - expected).max()))
        again = own.inputs([own.prepare(image)])[0]
        np.testing.assert_array_equal(made, again)
    return worst


def of_transformers(folder: Path) -> Reference:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert type(processor).__name__.endswith("Pil")
    return lambda image: np.asarray(
        processor(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    )


def of_open_clip(values: dict[str, Any]) -> Reference:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    size = values.get("size", 224)
    sized = {**values, "size": tuple(size) if isinstance(size, list) else size}
    transform = image_transform_v2(PreprocessCfg(**sized), is_train=False)
    return lambda image: np.asarray(transform(Image.fromarray(image)))


def of_timm(values: dict[str, Any]) -> Reference:
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config(pretrained_cfg=values))
    return lambda image: np.asarray(transform(Image.fromarray(image)))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_inputs_are_those_of_transformers(
    name: str, images: list[RgbImage], tmp_path: Path
) -> None:
    own = written(tmp_path, "preprocessor_config.json", TRANSFORMERS[name])
    assert worst(own, of_transformers(tmp_path), images) <= TOLERANCE


def test_of_a_strip_whose_resized_form_is_never_made_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(14)
    strips = [
        random.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in [(1, 300), (601, 2), (3, 1001)]
    ]
    own = written(tmp_path, "preprocessor_config.json", TRANSFORMERS["dinov2"])
    assert worst(own, of_transformers(tmp_path), strips) <= TOLERANCE


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_inputs_are_those_of_open_clip(name: str, images: list[RgbImage], tmp_path: Path) -> None:
    own = written(tmp_path, "preprocess_cfg.json", OPEN_CLIP[name])
    assert worst(own, of_open_clip(OPEN_CLIP[name]), images) <= TOLERANCE


@pytest.mark.parametrize("name", TIMM)
def test_inputs_are_those_of_timm(name: str, images: list[RgbImage], tmp_path: Path) -> None:
    own = written(tmp_path, "config.json", {"architecture": "a", "pretrained_cfg": TIMM[name]})
    assert worst(own, of_timm(TIMM[name]), images) <= TOLERANCE


def test_dinov3_is_about_a_level_away(images: list[RgbImage], tmp_path: Path) -> None:
    from transformers import DINOv3ViTImageProcessor

    own = written(
        tmp_path, "preprocessor_config.json", {"image_processor_type": "DINOv3ViTImageProcessor"}
    )
    processor = DINOv3ViTImageProcessor()

    def reference(image: RgbImage) -> np.ndarray:
        return np.asarray(processor(images=Image.fromarray(image), return_tensors="np")[
            "pixel_values"][0])  # fmt: skip

    assert worst(own, reference, images) <= 1.1 / 255 / min(own.std)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": "stretch", "side": None},
        {"resize": "fit"},
        {"side": 224},
        {"interpolation": "bilinear"},
        {"antialias": False},
        {"scale": 1 / 256},
        {"mean": (0.48, 0.456, 0.406)},
        {"mean": (0.406, 0.456, 0.485)},
        {"std": (0.229, 0.224, 0.229)},
        {"crop": "round", "side": 257},
        {"keep_exact": True},
    ],
)
def test_wrong_preprocessing_is_noticed(
    wrong: dict[str, Any], images: list[RgbImage], tmp_path: Path
) -> None:
    own = written(tmp_path, "preprocessor_config.json", TRANSFORMERS["dinov2"])
    assert worst(replace(own, **wrong), of_transformers(tmp_path), images) > 10 * TOLERANCE


def test_wrong_padding_is_noticed(images: list[RgbImage], tmp_path: Path) -> None:
    own = written(tmp_path, "preprocess_cfg.json", OPEN_CLIP["longest"])
    reference = of_open_clip(OPEN_CLIP["longest"])
    assert worst(replace(own, fill=0), reference, images) > 10 * TOLERANCE
    assert worst(replace(own, resize="stretch"), reference, images) > 10 * TOLERANCE


def test_the_offset_of_the_crop_counts(images: list[RgbImage], tmp_path: Path) -> None:
    name = "clip, larger than its crop"
    own = written(tmp_path, "preprocessor_config.json", TRANSFORMERS[name])
    assert worst(replace(own, crop="round"), of_transformers(tmp_path), images) > 10 * TOLERANCE


def test_defaults_are_those_of_transformers() -> None:
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    for kind, own in PROCESSORS.items():
        theirs = getattr(transformers, f"{kind}ImageProcessor")()
        for key in ("size", "resample", "image_mean", "image_std"):
            value = getattr(theirs, key)
            value = dict(value) if key == "size" else value
            value = list(value) if isinstance(value, tuple) else value
            assert own[key] == value, (kind, key)
        assert own["do_center_crop"] == bool(theirs.do_center_crop), kind
        if own["do_center_crop"]:
            assert dict(theirs.crop_size) == dict.fromkeys(("height", "width"), own["crop_size"])
        assert own["default_to_square"] == type(theirs).default_to_square, kind
    for model_type, kind in MODEL_TYPES.items():
        names = IMAGE_PROCESSOR_MAPPING_NAMES[model_type]
        assert f"{kind}ImageProcessor" in names.values(), model_type


def test_without_antialiasing_pixels_are_those_of_torch(images: list[RgbImage]) -> None:
    import torch
    from torch.nn.functional import interpolate

    for how in ("nearest", "bilinear", "bicubic"):
        own = Preprocessing(height=50, width=61, interpolation=how, antialias=False, scale=1.0)
        corners = {} if how == "nearest" else {"align_corners": False}

        def reference(image: RgbImage, how: str = how, corners: Any = corners) -> np.ndarray:
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
            made = interpolate(pixels, (50, 61), mode=how, **corners)[0]
            return np.asarray(made)

        # Ours are whole levels; of paler pixels, the cubic kernel's overshoot is not cut off.
        assert worst(own, reference, [image // 2 + 64 for image in images]) <= 0.5001
