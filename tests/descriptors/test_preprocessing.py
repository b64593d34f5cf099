"""A card's preprocessing makes the input that it says, of images of any size."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cbir.descriptors import preprocessing
from cbir.descriptors.preprocessing import Preprocessing
from cbir.errors import CbirError
from tests.descriptors.support_photos import picture

SIZES = [(1, 1), (3, 900), (900, 3), (20, 24), (64, 64), (301, 200)]
BICUBIC = Image.Resampling.BICUBIC


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), BICUBIC))


HOWS: list[dict[str, Any]] = [
    {"resize": "stretch"},
    {"resize": "stretch", "side": (27, 24)},
    {"resize": "fit"},
    {"resize": "fit", "side": (20, 30), "fill": (1, 2, 3)},
    {"resize": "shortest", "side": 28},
    {"resize": "shortest", "side": (21, 31)},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("more", [{}, {"keep_exact": False, "crop": "floor", "antialias": False}])
def test_every_image_becomes_the_input(
    how: dict[str, Any], more: dict[str, Any], size: tuple[int, int]
) -> None:
    own = Preprocessing(height=20, width=24, layout="NHWC", dtype="uint8", **how, **more)
    image = picture((200, 60, 20), 1, size)
    small = own.prepare(image)
    made = own.inputs([image])
    assert (made.shape, made.dtype, small.dtype) == ((1, 20, 24, 3), np.uint8, np.uint8)
    assert max(small.shape) <= 31 + 3
    np.testing.assert_array_equal(own.prepare(small), small)
    np.testing.assert_array_equal(own.inputs([small]), made)
    if not more:
        np.testing.assert_array_equal(small[None], made)


def test_an_image_of_the_inputs_size_is_kept_or_treated_like_any_other() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    plain = {"height": 20, "width": 20, "resize": "shortest", "side": 30, "layout": "NHWC"}
    kept = Preprocessing(**plain, dtype="uint8")
    np.testing.assert_array_equal(kept.inputs([image])[0], image)
    like_any = Preprocessing(**plain, dtype="uint8", keep_exact=False)
    np.testing.assert_array_equal(like_any.inputs([image])[0], resized(image, 30, 30)[5:25, 5:25])


def test_an_odd_crop_is_rounded_as_the_card_says() -> None:
    image = np.random.default_rng(0).integers(0, 256, (23, 20, 3), dtype=np.uint8)
    for crop, top in [("round", 2), ("floor", 1)]:
        own = Preprocessing(height=20, width=20, resize="shortest", side=20, crop=crop)
        np.testing.assert_array_equal(own.prepare(image), image[top : top + 20])


def test_stretching_is_pillows() -> None:
    image = picture((10, 90, 200), 2, (50, 120))
    own = Preprocessing(height=20, width=24, resize="stretch")
    np.testing.assert_array_equal(own.prepare(image), resized(image, 24, 20))


def test_the_shorter_side_is_resized_and_the_centre_is_cut_out() -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 60, 3), dtype=np.uint8)
    own = Preprocessing(height=20, width=20, resize="shortest", side=30)
    np.testing.assert_array_equal(own.prepare(image), resized(image, 30, 60)[20:40, 5:25])


def test_the_whole_image_is_fitted_and_padded() -> None:
    image = picture((10, 90, 200), 2, (40, 80))
    own = Preprocessing(height=20, width=20, resize="fit", fill=7)
    small = own.prepare(image)
    assert (small[:, :5] == 7).all() and (small[:, 15:] == 7).all()
    np.testing.assert_array_equal(small[:, 5:15], resized(image, 10, 20))


def test_of_a_long_strip_only_the_crop_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 900, 3), dtype=np.uint8)
    own = Preprocessing(height=32, width=32, resize="shortest", side=36)
    whole = own.prepare(image)
    monkeypatch.setattr(preprocessing, "MAX_AREA", 0)
    assert np.abs(own.prepare(image).astype(int) - whole).max() <= 2
    monkeypatch.undo()
    assert own.prepare(np.zeros((1, 1_000_000, 3), np.uint8)).shape == (32, 32, 3)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(1, 5_000), (5_000, 1), (1, 4_999)])
def test_a_long_strip_takes_little_memory(size: tuple[int, int], antialias: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    own = Preprocessing(height=224, width=224, resize="shortest", side=256, keep_exact=False,
                        antialias=antialias)  # fmt: skip
    tracemalloc.start()
    try:
        made = own.inputs([image])
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    # The centre, around half of the width: a few of the strip's own pixels, each very wide.
    middle = image.reshape(-1, 3)[max(size) // 2 - 2 : max(size) // 2 + 2]
    levels = made[0].transpose(1, 2, 0).reshape(-1, 3) * 255
    slack = 30  # the cubic kernel overshoots
    assert (levels >= middle.min(axis=0).astype(float) - slack).all()
    assert (levels <= middle.max(axis=0).astype(float) + slack).all()


def test_values_are_scaled_centred_and_divided() -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (image / 255 - mean) / std
    own = Preprocessing(height=8, width=8, mean=mean, std=std)
    made = own.inputs([image])
    assert (made.shape, made.dtype) == ((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(made[0].transpose(1, 2, 0), expected, atol=1e-5)
    last = Preprocessing(height=8, width=8, mean=mean, std=std, layout="NHWC").inputs([image])
    np.testing.assert_allclose(last[0], expected, atol=1e-5)
    raw = Preprocessing(height=8, width=8, layout="NHWC", dtype="uint8").inputs([image])
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw[0], image)


def test_fields_that_came_later_leave_older_fingerprints_alone() -> None:
    old = {"height", "width", "resize", "side", "interpolation", "reducing_gap", "fill", "scale",
           "mean", "std", "layout", "dtype"}  # fmt: skip
    assert set(Preprocessing(height=8, width=8).to_json()) == old
    later = {"crop": "floor", "antialias": False, "keep_exact": False}
    made = Preprocessing.parse({"height": 8, "width": 8, "side": [9, 10], **later}).to_json()
    assert {name: made[name] for name in later} == later and made["side"] == [9, 10]
    assert Preprocessing.parse(json.loads(json.dumps(made))).to_json() == made


def test_it_survives_json() -> None:
    own = Preprocessing(height=8, width=9, resize="shortest", side=12, mean=(1.0, 2.0, 3.0))
    assert Preprocessing.parse(own.to_json()) == own


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resize": "squeeze"}, "resize is 'squeeze'"),
        ({"interpolation": "magic"}, "interpolation is 'magic'"),
        ({"layout": "CHWN"}, "layout"),
        ({"dtype": "int8"}, "dtype"),
        ({"height": 0}, "an input of 8 x 0"),
        ({"width": 10**6}, "an input of"),
        ({"width": 8.5}, "an input of"),
        ({"resize": "shortest"}, "needs a 'side'"),
        ({"resize": "shortest", "side": 7}, "no crop"),
        ({"side": [7, 9]}, "no crop"),
        ({"side": [9, 9, 9]}, "side is"),
        ({"side": 9.0}, "side is"),
        ({"side": 10**6}, "side is"),
        ({"crop": "ceil"}, "crop is 'ceil'"),
        ({"antialias": False, "interpolation": "lanczos"}, "interpolation is 'lanczos'"),
        ({"keep_exact": 2}, "keep_exact is 2"),
        ({"mean": [1]}, "one finite value a channel"),
        ({"scale": float("nan")}, "one finite value a channel"),
        ({"std": [1, 0, 1]}, "std must be above 0"),
        ({"fill": 256}, "fill must be a level of grey"),
        ({"fill": [1, 2]}, "level of grey"),
    ],
)
def test_what_no_network_could_mean_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CbirError, match=message):
        Preprocessing.parse({"height": 8, "width": 8, **wrong})
