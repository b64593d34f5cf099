"""The small picture kept with every record."""

import io

import numpy as np
import pytest
from PIL import Image

from cbir.images.decode import decode
from cbir.images.thumbnails import MAX_OWN_BYTES, media_type, thumbnail
from tests.images.support_images import HEIC, encoded, four_colours, noise


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_small_file_of_a_web_format_is_its_own_thumbnail(form):
    data = encoded(four_colours(), form)
    assert len(data) <= MAX_OWN_BYTES
    assert thumbnail(data, decode(data)) is data


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_a_small_file_of_a_huge_picture_is_shrunk(form):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.new("RGB", (900, 600), "teal"), form, **options)
    assert len(data) <= MAX_OWN_BYTES
    assert decode(thumbnail(data, decode(data))).shape == (171, 256, 3)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_the_thumbnail_of_an_animation_is_its_first_frame(form):
    first, second = four_colours(), Image.new("RGB", (48, 32), "white")
    data = encoded(first, form, save_all=True, append_images=[second])
    assert len(data) <= MAX_OWN_BYTES
    small = Image.open(io.BytesIO(thumbnail(data, decode(data))))
    assert getattr(small, "n_frames", 1) == 1
    assert np.abs(np.asarray(small).astype(int) - np.asarray(first).astype(int)).mean() < 8


def test_a_gif_that_is_damaged_after_its_first_frame_is_drawn_anew():
    first, second = four_colours(), Image.new("RGB", (48, 32), "white")
    whole = encoded(first, "GIF", save_all=True, append_images=[second])
    start = whole.rindex(b"\x2c\0\0\0\0")  # of the second frame
    damaged = 0
    for end in range(start - 8, len(whole)):
        data = whole[:end]
        small = thumbnail(data, decode(data))
        assert decode(small).shape == (32, 48, 3)
        damaged += small != data
    assert damaged > 5


def test_the_thumbnail_of_a_white_drawing_can_be_seen_on_white():
    layer = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (16, 16, 48, 48))
    data = encoded(layer, "PNG")
    small = np.asarray(Image.open(io.BytesIO(thumbnail(data, decode(data)))).convert("RGB"))
    assert small[4, 4].max() < 40
    assert small[32, 32].min() > 215


@pytest.mark.parametrize("data", [encoded(four_colours(), "BMP"), HEIC])
def test_a_small_file_that_browsers_do_not_show_becomes_a_jpeg(data):
    pixels = decode(data)
    small = thumbnail(data, pixels)
    assert media_type(small) == "image/jpeg"
    assert np.abs(decode(small).astype(int) - pixels.astype(int)).mean() < 8


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(600, 300, (256, 128)), (300, 900, (85, 256)), (100, 120, (100, 120)), (5000, 1, (256, 1))],
)
def test_large_files_are_shrunk_to_256_pixels_and_never_enlarged(height, width, expected):
    pixels = np.asarray(four_colours().resize((width, height)))
    data = encoded(np.vstack([noise(1, 100, 100)]), "PNG")
    assert len(data) > MAX_OWN_BYTES
    small = thumbnail(data, pixels)
    assert media_type(small) == "image/jpeg"
    assert decode(small).shape == (*expected, 3)


def test_the_thumbnail_of_a_large_photo_looks_like_it():
    pixels = np.asarray(four_colours(900, 600))
    small = decode(thumbnail(bytes(10_000), pixels))
    expected = np.asarray(four_colours(256, 170).resize(small.shape[1::-1]))
    assert np.abs(small.astype(int) - expected.astype(int)).mean() < 5


def test_tiny_pixels_without_a_file_are_kept_without_loss():
    pixels = noise(2)
    small = thumbnail(None, pixels)
    assert media_type(small) == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(small))), pixels)


def test_large_pixels_without_a_file_become_a_small_jpeg():
    assert media_type(thumbnail(None, noise(3, 400, 400))) == "image/jpeg"


def test_the_media_type_of_what_is_no_picture_is_plain_bytes():
    assert media_type(b"hello") == "application/octet-stream"
