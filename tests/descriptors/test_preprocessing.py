"""A card's preprocessing makes the input that it says, of images of any size."""

from __future__ import annotations

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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", [{"resize": "stretch"}, {"resize": "fit"},
                                 {"resize": "shortest", "side": 28}])  # fmt: skip
def test_every_image_becomes_the_input(how: dict[str, Any], size: tuple[int, int]) -> None:
    own = Preprocessing(height=20, width=24, **how)
    image = picture((200, 60, 20), 1, size)
    small = own.prepare(image)
    assert (small.shape, small.dtype) == ((20, 24, 3), np.uint8)
    np.testing.assert_array_equal(own.prepare(small), small)
    np.testing.assert_array_equal(own.inputs([image]), own.inputs([small]))


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
        ({"side": 9}, "'side' belongs to"),
        ({"resize": "shortest"}, "'side' belongs to"),
        ({"resize": "shortest", "side": 7}, "no crop"),
        ({"mean": [1]}, "one finite value a channel"),
        ({"scale": float("nan")}, "one finite value a channel"),
        ({"std": [1, 0, 1]}, "std must be above 0"),
        ({"fill": 256}, "level of grey"),
    ],
)
def test_what_no_network_could_mean_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CbirError, match=message):
        Preprocessing.parse({"height": 8, "width": 8, **wrong})
