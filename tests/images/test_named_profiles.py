"""Colours named without an ICC profile: against the published numbers in NumPy, and Chromium."""

import io

import numpy as np
import pytest
from PIL import Image

from cbir.images.decode import decode, is_plain, pixels_of_image
from cbir.images.thumbnails import thumbnail
from tests.images.support_images import HEIC, encoded, four_colours, noise
from tests.images.support_named import (
    SRGB_CHUNK,
    avif,
    chrm,
    cicp,
    exif,
    gama,
    png,
    with_nclx,
)
from tests.images.support_profiles import (
    ADOBE,
    P3,
    PROPHOTO,
    SRGB,
    rgb_profile,
    to_srgb,
    with_srgb_curve,
)

WHITE = (0.3127, 0.3290)
SRGB_POINTS = chrm(*WHITE, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_POINTS = chrm(*WHITE, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
PROPHOTO_POINTS = chrm(0.3457, 0.3585, 0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105)

# Columns: XYZ (D50) of red, green and blue, as in ICC profiles of this space.
BT2020 = np.array(
    [[0.67348, 0.16567, 0.12505], [0.27903, 0.67534, 0.04563], [-0.00193, 0.02998, 0.79684]]
)
WIDE = rgb_profile(PROPHOTO, 1.8)
PIXELS = noise(1, 40, 50)
GREYS = np.arange(256, dtype=np.uint8).reshape(1, 256)


def difference(got, expected):
    return int(np.abs(got.astype(int) - expected.astype(int)).max())


NAMED = {
    "gAMA, linear": ([gama(1.0)], to_srgb(PIXELS, SRGB, 1.0)),
    "gAMA and sRGB's cHRM": ([gama(1.0), SRGB_POINTS], to_srgb(PIXELS, SRGB, 1.0)),
    "gAMA and cHRM": ([gama(0.45455), P3_POINTS], to_srgb(PIXELS, P3, 2.2)),
    "gAMA and cHRM, white D50": (
        [gama(0.55556), PROPHOTO_POINTS], to_srgb(PIXELS, PROPHOTO, 1.8)
    ),
    "cICP, Display P3": ([cicp(12, 13)], with_srgb_curve(PIXELS, P3)),
    "cICP, BT.2020 as BT.1886": ([cicp(9, 14)], to_srgb(PIXELS, BT2020, 2.4)),
    "cICP, linear": ([cicp(9, 8)], to_srgb(PIXELS, BT2020, 1.0)),
    "cICP before sRGB and gAMA": (
        [cicp(12, 13), SRGB_CHUNK, gama(1.0)], with_srgb_curve(PIXELS, P3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_chunks_of_a_png_name_its_colours(name):
    chunks, expected = NAMED[name]
    assert difference(expected, PIXELS) > 20
    assert difference(decode(png(PIXELS, *chunks)), expected) <= 2


def test_cicp_comes_before_a_profile_and_a_profile_before_all_others():
    by_profile = to_srgb(PIXELS, PROPHOTO, 1.8)
    got = decode(png(PIXELS, gama(1.0), P3_POINTS, icc_profile=WIDE))
    assert difference(got, by_profile) <= 2
    got = decode(png(PIXELS, cicp(12, 13), icc_profile=WIDE))
    assert difference(got, with_srgb_curve(PIXELS, P3)) <= 2
    assert np.array_equal(decode(png(PIXELS, cicp(1, 13), icc_profile=WIDE)), PIXELS)


SAME = {
    "gAMA of sRGB": [gama(0.45455)],
    "gAMA and cHRM of sRGB": [gama(0.45455), SRGB_POINTS],
    "sRGB before gAMA and cHRM": [SRGB_CHUNK, gama(1.0), P3_POINTS],
    "cHRM alone": [P3_POINTS],
    "cICP of sRGB": [cicp(1, 13), gama(1.0)],
    "cICP of narrow range": [cicp(12, 13, full=0)],
    "cICP of YCbCr": [cicp(12, 13, matrix=1)],
    "cICP, unspecified": [cicp(2, 2)],
    "cICP, unknown": [cicp(200, 13)],
    "gAMA of 0": [gama(0)],
    "gAMA of nearly 0": [gama(0.00001)],
    "gAMA of 40,000": [gama(40_000)],
    "points on a line": [gama(1.0), chrm(*WHITE, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3)],
    "points of 0": [gama(1.0), chrm(*[0] * 8)],
    "points far away": [gama(1.0), chrm(40_000, 0.00001, 0.6, 0.3, 0.3, 0.6, 0.1, 0.1)],
}


@pytest.mark.parametrize("name", SAME)
def test_chunks_that_name_srgb_or_nothing_possible_change_nothing(name):
    assert np.array_equal(decode(png(PIXELS, *SAME[name])), PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_kinds_of_pixels_are_converted_too(mode):
    picture = four_colours().quantize(4) if mode == "P" else four_colours().convert(mode)
    expected = to_srgb(np.asarray(picture.convert("RGB")), SRGB, 1.0)
    assert difference(decode(png(picture, gama(1.0))), expected) <= 2


# What Chromium 156 paints on a usual screen (`drawImage`, then `getImageData`), level by level.
LEVELS = (10, 32, 64, 100, 128, 148, 160, 175, 192, 220, 255)
CHROMIUM = {
    (1, 1): (1, 20, 54, 91, 121, 142, 155, 171, 189, 218, 255),
    (1, 4): (3, 26, 62, 100, 129, 149, 161, 176, 193, 221, 255),
    (1, 8): (56, 99, 137, 168, 188, 200, 208, 216, 225, 239, 255),
    (9, 16): (0, 5, 30, 76, 132, 187, 213, 235, 255, 255, 255),
    (9, 18): (1, 14, 43, 75, 99, 120, 135, 158, 189, 224, 255),
}


@pytest.mark.parametrize("codes", CHROMIUM)
def test_greys_are_those_that_chromium_shows(codes):
    got = decode(png(np.repeat(GREYS[:, :, None], 3, axis=2), cicp(*codes)))[0, LEVELS, :]
    assert difference(got, np.array(CHROMIUM[codes])[:, None]) <= 1


def test_the_primaries_of_an_avif_count_and_the_curve_of_video_is_that_of_srgb():
    picture = np.repeat(np.repeat(noise(5, 4, 4), 8, 0), 8, 1)
    plain = decode(avif(picture, 1, 13))
    assert difference(plain, picture) <= 4
    assert difference(decode(avif(picture, 12, 13)), with_srgb_curve(plain, P3)) <= 2
    assert difference(decode(avif(picture, 12, 2)), with_srgb_curve(plain, P3)) <= 2
    assert difference(decode(avif(picture, 2, 8)), to_srgb(plain, SRGB, 1.0)) <= 2
    for same in ((1, 1), (2, 2), (1, 6)):
        assert np.array_equal(decode(avif(picture, *same)), plain)
    with_profile = avif(picture, 12, 13, icc_profile=WIDE)
    assert difference(decode(with_profile), to_srgb(plain, PROPHOTO, 1.8)) <= 2


def test_the_primaries_of_a_heic_count():
    plain = decode(HEIC)
    assert difference(decode(with_nclx(HEIC, 12, 8)), to_srgb(plain, P3, 1.0)) <= 2
    assert np.array_equal(decode(with_nclx(HEIC, 1, 1)), plain)


def test_exif_names_adobe_rgb():
    options = {"quality": 95, "subsampling": 0}
    plain = decode(encoded(PIXELS, **options))
    got = decode(encoded(PIXELS, exif=exif("R03"), **options))
    assert difference(plain, to_srgb(plain, ADOBE, 2.2)) > 20
    assert difference(got, to_srgb(plain, ADOBE, 563 / 256)) <= 2
    same = decode(encoded(PIXELS, icc_profile=rgb_profile(ADOBE, 563 / 256), **options))
    assert difference(got, same) <= 1
    wide = decode(encoded(PIXELS, exif=exif("R03"), icc_profile=WIDE, **options))
    assert difference(wide, to_srgb(plain, PROPHOTO, 1.8)) <= 2
    for other in (exif("R98", 1), exif("THM"), exif("R03")[:40] + b"R03\0"):
        assert np.array_equal(decode(encoded(PIXELS, exif=other, **options)), plain)


def test_pictures_of_pillow_are_read_as_their_files_are():
    for data in (png(PIXELS, gama(1.0), P3_POINTS), encoded(PIXELS, exif=exif("R03"))):
        image = Image.open(io.BytesIO(data))
        assert np.array_equal(pixels_of_image(image), decode(data))
        assert "icc_profile" not in image.info


@pytest.mark.parametrize("chunk", [gama(1.0), cicp(12, 13)])
def test_thumbnails_are_converted(chunk):
    data = png(four_colours(), chunk)
    assert len(data) < 8192 and not is_plain(data)
    small = thumbnail(data, decode(data))
    assert small != data and np.abs(decode(small).astype(int) - decode(data)).mean() < 6
    same = png(four_colours(), gama(0.45455), SRGB_POINTS)
    assert thumbnail(same, decode(same)) == same
    assert not is_plain(encoded(four_colours(), exif=exif("R03")))
