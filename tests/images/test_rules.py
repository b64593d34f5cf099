"""A change of the decoder costs describing only the pictures that it changes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from cbir.images.rules import RULES, reads_differently
from tests.images.support_images import HEIC, encoded, four_colours
from tests.images.support_named import avif, chrm, cicp, exif, gama, png, with_nclx
from tests.images.support_profiles import PROPHOTO, rgb_profile
from tests.images.support_tiff import CFA, Directory, grey, tiff

WIDE = rgb_profile(PROPHOTO, 1.8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = Image.fromarray(np.zeros((4, 4), np.uint16))
SAME = {
    "JPEG": encoded(four_colours()),
    "sRGB": encoded(four_colours(), icc_profile=SRGB),
    "PNG": encoded(four_colours(), "PNG"),
    "16-bit PNG": encoded(DEEP, "PNG"),
    "TIFF": encoded(four_colours(), "TIFF"),
    "GIF": encoded(four_colours(), "GIF"),
    "HEIC": HEIC,
    "AVIF": encoded(four_colours(), "AVIF"),
    "gAMA of sRGB": png(four_colours(), gama(0.45455)),
    "EXIF": encoded(four_colours(), exif=exif("R98", 1)),
}
NAMED = {
    "gAMA": png(four_colours(), gama(1.0)),
    "cHRM": png(four_colours(), gama(0.45455), chrm(0.3, 0.3, 0.7, 0.3, 0.2, 0.7, 0.1, 0.1)),
    "cICP": png(four_colours(), cicp(12, 13)),
    "cICP of sRGB and a profile": png(four_colours(), cicp(1, 13), icc_profile=WIDE),
    "Adobe RGB": encoded(four_colours(), exif=exif("R03")),
    "AVIF in P3": avif(four_colours(), 12, 13),
    "HEIC in P3": with_nclx(HEIC, 12, 13),
}
CHANGED = {
    "profile": encoded(four_colours(), icc_profile=WIDE),
    "profile of a PNG": encoded(four_colours(), "PNG", icc_profile=WIDE),
    "transparency": encoded(four_colours().convert("RGBA"), "PNG"),
    "deep TIFF": encoded(DEEP, "TIFF"),
    "signed TIFF": grey(bytes(16), 4, 4, bits=8, sample_format=2),
    "no end": encoded(four_colours())[:-2],
    "RAW": tiff(Directory({256: 9, 257: 9, 259: 1, 262: CFA}, b"1234")),
    "damage": encoded(four_colours(), "PNG")[:20],
}


@pytest.mark.parametrize("name", SAME)
def test_usual_pictures_are_read_as_ever(name):
    assert not reads_differently(io.BytesIO(SAME[name]), 0)


@pytest.mark.parametrize("name", CHANGED)
def test_pictures_that_a_rule_affects_are_read_anew(name):
    assert reads_differently(io.BytesIO(CHANGED[name]), 0)
    assert not reads_differently(io.BytesIO(CHANGED[name]), RULES)
    assert reads_differently(io.BytesIO(CHANGED[name]), 1) == (name in ("damage", "RAW"))


@pytest.mark.parametrize("name", NAMED)
def test_pictures_that_name_their_colours_are_read_anew(name):
    assert reads_differently(io.BytesIO(NAMED[name]), 1)
    assert not reads_differently(io.BytesIO(NAMED[name]), RULES)
