"""What the files of a model say about images, what they leave open, and files from strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cbir.descriptors.configs import Read
from cbir.descriptors.preprocessing import Preprocessing
from cbir.descriptors.processors import read_preprocessing
from cbir.errors import CbirError

HF = "preprocessor_config.json"


def read(folder: Path, **files: Any) -> Read[Preprocessing]:
    """Of a folder with `files`, by name without `.json`; bytes are written as they are."""
    for name, values in files.items():
        data = values if isinstance(values, bytes) else json.dumps(values).encode()
        (folder / f"{name}.json").write_bytes(data)
    return read_preprocessing(folder)


def said(found: Read[Preprocessing]) -> dict[str, Any]:
    """What differs from the defaults of `Preprocessing`, without levels."""
    assert found.value is not None, found.questions
    usual = Preprocessing(height=1, width=1).to_json()
    made = found.value.to_json()
    return {k: v for k, v in made.items() if v != usual.get(k) and k not in ("mean", "std")}


def test_what_the_file_says_is_taken_without_a_word(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        preprocessor_config={
            "image_processor_type": "BitImageProcessor", "do_center_crop": True, "resample": 3,
            "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256},
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        },
    )  # fmt: skip
    assert (found.assumptions, found.questions) == ((), ())
    assert said(found) == {"height": 224, "width": 224, "resize": "shortest", "side": 256,
                           "crop": "floor", "keep_exact": False}  # fmt: skip
    assert found.value and found.value.mean == (0.485, 0.456, 0.406)


def test_defaults_of_the_reference_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, preprocessor_config={"image_processor_type": "SiglipImageProcessorFast",
                                                "size": {"height": 256, "width": 256}})  # fmt: skip
    assert said(found)["height"] == 256
    first, second = found.assumptions
    assert "torchvision" in first
    assert "SiglipImageProcessor for resample, image_mean, image_std" in second


def test_the_type_of_the_model_names_the_processor(tmp_path: Path) -> None:
    found = read(tmp_path, preprocessor_config={}, config={"model_type": "dinov2"})
    assert said(found)["side"] == 224
    assert "BitImageProcessor, as for models of type 'dinov2'" in found.assumptions[0]


def test_newer_files_hold_the_processor_in_a_section(tmp_path: Path) -> None:
    own = {"image_processor_type": "ViTImageProcessor", "size": {"height": 96, "width": 64}}
    found = read(tmp_path, processor_config={"image_processor": own, "tokenizer": {}})
    assert (said(found)["height"], said(found)["width"]) == (96, 64)


def test_open_clip_counts_the_networks_size_first(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        open_clip_config={
            "model_cfg": {"vision_cfg": {"image_size": 256}, "text_cfg": {}},
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 224,
                               "interpolation": "bicubic", "resize_mode": "squash"},
        },
    )  # fmt: skip
    assert said(found) == {"height": 256, "width": 256, "keep_exact": False}
    assert found.assumptions == ()


def test_the_folder_visual_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "visual").mkdir()
    (tmp_path / "visual" / "preprocess_cfg.json").write_text('{"size": [64, 64]}')
    found = read(tmp_path, config={"embed_dim": 512})
    assert said(found)["side"] == 64
    assert "open_clip's defaults for mean, std, interpolation, resize_mode" in found.assumptions[0]


@pytest.mark.parametrize("nested", [True, False])
def test_timms_files_of_both_ages(nested: bool, tmp_path: Path) -> None:
    own = {"input_size": [3, 240, 240], "crop_pct": 0.9, "interpolation": "bicubic",
           "mean": [0.5] * 3, "std": [0.5] * 3, "crop_mode": "center"}  # fmt: skip
    top = {"architecture": "a", "num_classes": 0}
    found = read(tmp_path, config={**top, "pretrained_cfg": own} if nested else {**top, **own})
    assert (said(found)["height"], said(found)["side"]) == (240, 266)
    assert found.assumptions == ()


def test_a_second_file_that_says_otherwise_is_named(tmp_path: Path) -> None:
    clip = {"image_processor_type": "CLIPImageProcessor"}
    same = {"model_cfg": {"vision_cfg": {"image_size": 224}}, "preprocess_cfg": {}}
    found = read(tmp_path, preprocessor_config=clip, open_clip_config=same)
    assert not [line for line in found.assumptions if "otherwise" in line]
    same["preprocess_cfg"] = {"resize_mode": "squash"}
    found = read(tmp_path, preprocessor_config=clip, open_clip_config=same)
    assert said(found)["resize"] == "shortest"
    assert any(
        line.startswith("open_clip_config.json says otherwise") for line in found.assumptions
    )


@pytest.mark.parametrize(
    ("values", "question"),
    [
        ({}, "neither it nor config.json names an image processor"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "'Siglip2ImageProcessor' is not known"),
        ({"image_processor_type": "X" * 999}, "is not known"),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "not resized"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "'do_pad'"),
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, "input size"),
        ({"image_processor_type": "CLIPImageProcessor", "size": 100}, "crop is larger"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 9}}, "longest"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": [9, 9]}, "shortest_edge"),
    ],
)
def test_what_cannot_be_represented_is_a_question(
    values: dict[str, Any], question: str, tmp_path: Path
) -> None:
    found = read(tmp_path, preprocessor_config=values)
    assert found.value is None
    (line,) = found.questions
    assert line.startswith(HF) and question in line and len(line) < 200 and "\n" not in line


def test_a_folder_without_files_says_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, config={"model_type": "clip", "architectures": ["CLIPModel"]})
    assert (found.value, found.questions) == (None, ())


VIT = {"image_processor_type": "ViTImageProcessor"}


@pytest.mark.parametrize(
    "files",
    [
        {"preprocessor_config": b""},
        {"preprocessor_config": b"\xff\xfe"},
        {"preprocessor_config": b"[1]"},
        {"preprocessor_config": b"[" * 100_000},
        {"preprocessor_config": b'{"size": ' + b"9" * 5000 + b"}"},
        {"preprocessor_config": b" " * (2**24 + 1)},
        {"preprocessor_config": {"image_processor_type": 7}},
        {"preprocessor_config": VIT | {"size": "224"}},
        {"preprocessor_config": VIT | {"size": -5}},
        {"preprocessor_config": VIT | {"size": 10**9}},
        {"preprocessor_config": VIT | {"size": True}},
        {"preprocessor_config": VIT | {"size": [1, 2, 3]}},
        {"preprocessor_config": VIT | {"size": {"height": 224}}},
        {"preprocessor_config": VIT | {"size": {"height": 224, "width": 22.5}}},
        {"preprocessor_config": VIT | {"resample": 77}},
        {"preprocessor_config": VIT | {"resample": "bicubic"}},
        {"preprocessor_config": VIT | {"image_mean": [0.5]}},
        {"preprocessor_config": VIT | {"image_mean": ["0.5"] * 3}},
        {"preprocessor_config": b'{"image_processor_type": "ViTImageProcessor", "image_std": NaN}'},
        {"preprocessor_config": VIT | {"image_std": [0.5, 0.5, 0]}},
        {"preprocessor_config": VIT | {"image_std": 10**400}},
        {"preprocessor_config": VIT | {"do_resize": "yes"}},
        {"preprocessor_config": {"image_processor_type": "EfficientNetImageProcessor",
                                 "image_std": 1e300}},
        {"preprocessor_config": {"image_processor_type": "ConvNextImageProcessor", "size": 224,
                                 "crop_pct": 1.5}},
        {"preprocessor_config": {"image_processor_type": "LevitImageProcessor",
                                 "size": {"shortest_edge": 10**400}}},
        {"preprocess_cfg": {"interpolation": "magic"}},
        {"preprocess_cfg": {"resize_mode": ["squash"]}},
        {"preprocess_cfg": {"size": 0}},
        {"preprocess_cfg": {"fill_color": 300, "resize_mode": "longest"}},
        {"open_clip_config": {"model_cfg": {"vision_cfg": [1]}}},
        {"config": {"pretrained_cfg": {"input_size": [3, 224]}}},
        {"config": {"pretrained_cfg": {"input_size": [3, 224, "x"]}}},
        {"config": {"pretrained_cfg": {"crop_mode": "magic"}}},
        {"config": {"pretrained_cfg": {"interpolation": "random"}}},
        {"config": {"pretrained_cfg": {"crop_pct": 1e-9}}},
        {"config": {"pretrained_cfg": {"crop_pct": -1}}},
        {"config": {"model_type": ["clip"]}},
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_one_line(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CbirError) as raised:
        read(tmp_path, **files)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 250


def test_a_network_for_grey_images_is_a_question(tmp_path: Path) -> None:
    grey = {"input_size": [1, 28, 28], "mean": [0.1], "std": [0.3]}
    found = read(tmp_path, config={"pretrained_cfg": grey})
    assert found.value is None and "1 channels" in found.questions[0]
