"""Colours with a profile: Little CMS against the profile's numbers in NumPy."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from cbir.images.decode import decode
from tests.images.support_images import encoded, four_colours, noise
from tests.images.support_profiles import (
    ADOBE,
    PROPHOTO,
    SRGB,
    cmyk_profile,
    grey_profile,
    ink_lab,
    rgb_profile,
    srgb_of_lab,
    srgb_of_xyz,
    to_srgb,
)

WIDE = rgb_profile(PROPHOTO, 1.8)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}


def difference(got, expected):
    return int(np.abs(got.astype(int) - expected.astype(int)).max())


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize(("primaries", "gamma"), [(PROPHOTO, 1.8), (ADOBE, 2.2), (SRGB, 1.0)])
def test_a_profile_is_applied_as_its_numbers_say(form, primaries, gamma):
    pixels = noise(1, 40, 50)
    data = encoded(pixels, form, icc_profile=rgb_profile(primaries, gamma), **LOSSLESS[form])
    expected = to_srgb(pixels, primaries, gamma)
    assert difference(expected, pixels) > 20
    assert difference(decode(data), expected) <= 2


@pytest.mark.parametrize("options", [{}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}])
def test_a_profile_of_a_jpeg_is_applied_with_and_without_exif(options):
    plain = encoded(noise(2, 24, 24), "JPEG", quality=95, **options)
    data = encoded(noise(2, 24, 24), "JPEG", quality=95, icc_profile=WIDE, **options)
    assert difference(decode(data), to_srgb(decode(plain), PROPHOTO, 1.8)) <= 2


def test_a_profile_and_a_turn_are_both_applied():
    tags = Image.Exif()
    tags[0x0112] = 6
    pixels = np.asarray(four_colours())
    data = encoded(pixels, "PNG", icc_profile=WIDE, exif=tags.tobytes())
    assert difference(decode(data), np.rot90(to_srgb(pixels, PROPHOTO, 1.8), -1)) <= 2


def test_colours_on_transparency_are_converted_too():
    pixels = np.dstack([noise(3, 8, 8) // 2, np.full((8, 8, 1), 255, np.uint8)])
    pixels[0, 0] = 0
    got = decode(encoded(Image.fromarray(pixels), "PNG", icc_profile=WIDE))
    expected = to_srgb(pixels[:, :, :3], PROPHOTO, 1.8)
    expected[0, 0] = 255
    assert difference(got, expected) <= 2


def test_the_colours_of_a_palette_are_converted():
    picture = four_colours().quantize(4)
    got = decode(encoded(picture, "PNG", icc_profile=WIDE))
    assert difference(got, to_srgb(np.asarray(picture.convert("RGB")), PROPHOTO, 1.8)) <= 2


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_applied(mode):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(values).convert(mode)
    got = decode(encoded(picture, "PNG", icc_profile=grey_profile(1.0)))
    linear = np.repeat(values[:, :, None] / 255.0, 3, axis=2)
    expected = srgb_of_xyz(linear * np.array([0.9642, 1.0, 0.8249]))
    assert difference(got, expected) <= 2


def test_grey_pixels_with_a_profile_for_colours_are_converted_as_colours():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    got = decode(encoded(Image.fromarray(values), "PNG", icc_profile=WIDE))
    assert difference(got, to_srgb(np.repeat(values[:, :, None], 3, 2), PROPHOTO, 1.8)) <= 2


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_inks_become_the_colours_that_their_profile_names(form):
    inks = np.repeat(
        np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]]), 8, 0
    )
    inks = np.repeat(inks, 8, axis=1).astype(np.uint8)
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    data = encoded(Image.fromarray(inks, "CMYK"), form, icc_profile=cmyk_profile(), **options)
    assert difference(decode(data), srgb_of_lab(ink_lab(inks / 255.0))) <= 2


def test_lab_becomes_srgb():
    five = [[0, 0, 0], [128, 0, 0], [255, 0, 0], [150, 30, 246], [100, 226, 40]]
    lab = np.array([five], dtype=np.uint8)
    picture = Image.frombytes("LAB", (5, 1), lab.tobytes())
    signed = lab.view(np.int8).astype(float)
    values = np.stack([lab[..., 0] / 2.55, signed[..., 1], signed[..., 2]], axis=-1)
    assert difference(decode(encoded(picture, "TIFF")), srgb_of_lab(values)) <= 2


def srgb_v2_and_v4():
    built = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [built, rgb_profile(PROPHOTO, 1.8)[:200], b"no profile at all", grey_profile(1.0)]


@pytest.mark.parametrize("profile", srgb_v2_and_v4())
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_srgb_damaged_and_foreign_profiles_change_nothing(profile, form):
    pixels = noise(4)
    got = decode(encoded(pixels, form, icc_profile=profile))
    assert np.array_equal(got, decode(encoded(pixels, form)))


def test_converted_thumbnails_and_queries_carry_no_profile():
    from cbir.images.thumbnails import thumbnail

    data = encoded(four_colours(), "PNG", icc_profile=WIDE)
    assert len(data) < 8192
    small = thumbnail(data, decode(data))
    assert "icc_profile" not in Image.open(io.BytesIO(small)).info
    assert np.abs(decode(small).astype(int) - decode(data)).mean() < 6
