"""The decoder against independent readers, format by format.

`python -m pytest tests/images/test_formats.py -s` prints the table of docs/indexing.md. OpenCV
reads what it can, HEIC with its FFmpeg; NumPy computes the colours and grey values of the others
from the numbers in the file. ImageMagick is asked too where it is installed; it applies profiles
with relative colorimetric intent.
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from cbir.images.decode import decode
from tests.images.support_images import HEIC_PHOTO, encoded, four_colours
from tests.images.support_named import avif, chrm, cicp, gama, heic_with_profile, png
from tests.images.support_named import exif as named_in_exif
from tests.images.support_profiles import (
    ADOBE,
    P3,
    PROPHOTO,
    SRGB,
    cmyk_profile,
    grey_profile,
    ink_lab,
    rgb_profile,
    srgb_of_lab,
    srgb_of_xyz,
    to_srgb,
    with_srgb_curve,
)
from tests.images.support_readers import Pixels, by_imagemagick, difference, ffmpeg, opencv
from tests.images.support_tiff import CFA, Directory, grey, tiff

MOST = 2
"""Grey levels of 255 between two readings."""

Magick = Literal["same", "differs", "refused"]


def photo(height: int = 64, width: int = 96) -> Pixels:
    """Gradients and soft noise: neither flat nor as rough as no photo is."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 / width, y * 255 / height, (x + y) * 255 / (height + width)]
    rough = np.random.default_rng(7).normal(0, 6, (height, width, 3))
    return np.clip(np.stack(planes, axis=-1) + rough, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Sample:
    """A file and its pixels by an independent reading.

    `magick`: what ImageMagick 6 makes of the file. It converts the YCbCr of AVIF and HEIC, and
    TIFF's Lab (for D65), in its own way, knows neither cHRM nor cICP nor R03, and refuses some
    files.
    """

    data: bytes
    expected: Pixels
    by: str
    magick: Magick = "same"


def read_by_opencv(data: bytes, magick: Magick = "same") -> Sample:
    return Sample(data, opencv(data), "OpenCV", magick)


def read_by_ffmpeg(data: bytes, suffix: str, magick: Magick = "same") -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        return Sample(data, ffmpeg(data, Path(folder), suffix), "FFmpeg", magick)


def computed(data: bytes, expected: Pixels, magick: Magick = "same") -> Sample:
    whole = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, axis=2)
    return Sample(data, whole, "NumPy", magick)


def jp2_with_profile(pixels: Pixels, profile: bytes) -> bytes:
    """Replaces the box `colr` of the header `jp2h`, its last one (ISO 15444-1, annex I)."""
    data = encoded(pixels, "JPEG2000")
    header, colour, rest = (data.index(name) - 4 for name in (b"jp2h", b"colr", b"jp2c"))
    box = struct.pack(">I", 11 + len(profile)) + b"colr\2\0\0" + profile
    before = data[header + 4 : colour]
    size = struct.pack(">I", 4 + len(before) + len(box))
    return data[:header] + size + before + box + data[rest:]


def samples() -> dict[str, Sample]:
    pixels = photo()
    levels = np.tile(np.linspace(0, 255, 96).round().astype(np.int64), (64, 1))
    grey8 = levels.astype(np.uint8)
    deep = (levels * 257).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    wide, adobe = rgb_profile(PROPHOTO, 1.8), rgb_profile(ADOBE, 2.2)
    jpeg = encoded(pixels, "JPEG", quality=90)
    inks = np.dstack([pixels, grey8])
    layer = np.dstack([pixels, grey8])
    share = grey8[:, :, None] / 255
    on_white = np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)
    linear = np.repeat(levels[:, :, None] / 255.0, 3, axis=2) * np.array([0.9642, 1.0, 0.8249])
    sensor = Directory({256: 1200, 257: 800, 258: 16, 259: 1, 262: CFA}, bytes(64))
    large = encoded(photo(400, 600), "JPEG", quality=90)
    icc = {"icc_profile": wide}
    twelve = levels * 16
    halves = np.stack(
        [twelve[:, ::2] >> 4, (twelve[:, ::2] & 15) << 4 | twelve[:, 1::2] >> 8, twelve[:, 1::2]],
        axis=-1,
    ).astype(np.uint8)
    lab = np.dstack([grey8, np.full_like(grey8, 20), np.full_like(grey8, 236)])
    return {
        "JPEG": read_by_opencv(jpeg),
        "JPEG, progressive": read_by_opencv(encoded(pixels, "JPEG", progressive=True)),
        "JPEG, EXIF orientation": read_by_opencv(encoded(pixels, "JPEG", exif=exif.tobytes())),
        "JPEG, grey": read_by_opencv(encoded(grey8, "JPEG")),
        "JPEG without its end marker": Sample(jpeg[:-2], opencv(jpeg), "OpenCV", magick="refused"),
        "JPEG, EXIF (Adobe RGB)": computed(
            encoded(pixels, "JPEG", quality=90, exif=named_in_exif("R03")),
            to_srgb(opencv(jpeg), ADOBE, 563 / 256), "differs",
        ),
        "JPEG, CMYK with ICC profile": computed(
            encoded(
                Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0,
                icc_profile=cmyk_profile(),
            ),
            srgb_of_lab(ink_lab(np.asarray(Image.open(io.BytesIO(encoded(
                Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0,
            )))) / 255.0)),
        ),
        "PNG": read_by_opencv(encoded(pixels, "PNG")),
        "PNG, palette": read_by_opencv(encoded(four_colours().quantize(4), "PNG")),
        "PNG, 16-bit grey": computed(encoded(deep, "PNG"), grey8),
        "PNG, transparency": computed(encoded(Image.fromarray(layer), "PNG"), on_white),
        "PNG, ICC profile (ProPhoto)": computed(
            encoded(pixels, "PNG", **icc), to_srgb(pixels, PROPHOTO, 1.8)
        ),
        "PNG, ICC profile (Adobe RGB)": computed(
            encoded(pixels, "PNG", icc_profile=adobe), to_srgb(pixels, ADOBE, 2.2)
        ),
        "PNG, grey ICC profile (linear)": computed(
            encoded(grey8, "PNG", icc_profile=grey_profile(1.0)), srgb_of_xyz(linear)
        ),
        "PNG, gAMA (linear)": computed(png(pixels, gama(1)), to_srgb(pixels, SRGB, 1.0)),
        "PNG, gAMA and cHRM (Display P3)": computed(
            png(pixels, gama(1 / 2.2), chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
            to_srgb(pixels, P3, 2.2), "differs",
        ),
        "PNG, cICP (Display P3)": computed(
            png(pixels, cicp(12, 13)), with_srgb_curve(pixels, P3), "differs"
        ),
        "GIF": read_by_opencv(encoded(four_colours(), "GIF")),
        "WebP": read_by_opencv(encoded(pixels, "WEBP", quality=90)),
        "WebP, ICC profile": computed(
            encoded(pixels, "WEBP", lossless=True, **icc), to_srgb(pixels, PROPHOTO, 1.8)
        ),
        "AVIF": read_by_opencv(encoded(pixels, "AVIF", quality=90, subsampling="4:4:4"), "differs"),
        "AVIF, nclx (Display P3)": computed(
            avif(pixels, 12, 13), with_srgb_curve(opencv(avif(pixels, 1, 13)), P3), "differs"
        ),
        "HEIC": read_by_ffmpeg(HEIC_PHOTO, ".heic", "differs"),
        "HEIC, ICC profile (Display P3)": computed(  # of our own reading of the same pixels
            heic_with_profile(HEIC_PHOTO, rgb_profile(P3, 2.2)),
            to_srgb(decode(HEIC_PHOTO), P3, 2.2), "differs",
        ),
        "BMP": read_by_opencv(encoded(pixels, "BMP")),
        "PNM": read_by_opencv(encoded(pixels, "PPM")),
        "JPEG 2000": read_by_opencv(encoded(pixels, "JPEG2000")),
        "JPEG 2000, ICC profile": computed(
            jp2_with_profile(pixels, wide), to_srgb(pixels, PROPHOTO, 1.8)
        ),
        "TIFF": read_by_opencv(encoded(pixels, "TIFF")),
        "TIFF, LZW": read_by_opencv(encoded(pixels, "TIFF", compression="tiff_lzw")),
        "TIFF, ICC profile": computed(
            encoded(pixels, "TIFF", **icc), to_srgb(pixels, PROPHOTO, 1.8)
        ),
        "TIFF, 12-bit grey": computed(
            grey(halves.tobytes(), 96, 64, bits=12), np.rint(twelve / 4095 * 255).astype(np.uint8)
        ),
        "TIFF, 16-bit grey": computed(encoded(deep, "TIFF"), grey8),
        "TIFF, 16-bit WhiteIsZero": computed(
            grey(deep.tobytes(), 96, 64, bits=16, white_is_zero=True), 255 - grey8
        ),
        "TIFF, 16-bit signed": computed(
            grey((levels * 257 - 32768).astype("<i2").tobytes(), 96, 64, bits=16, sample_format=2),
            grey8,
        ),
        "TIFF, 32-bit unsigned": computed(
            grey((levels * 16843009).astype("<u4").tobytes(), 96, 64, bits=32), grey8
        ),
        "TIFF, float": computed(
            grey((levels / 255).astype("<f4").tobytes(), 96, 64, bits=32, sample_format=3), grey8
        ),
        "TIFF, Lab": computed(
            encoded(Image.frombytes("LAB", (96, 64), lab.tobytes()), "TIFF"),
            srgb_of_lab(np.dstack([grey8 / 2.55, np.full((64, 96), 20), np.full((64, 96), -20)])),
            "differs",
        ),
        "Camera RAW (TIFF with a preview)": Sample(
            tiff(Directory({254: 1, 259: 6}, large, [sensor], jpeg=True)), opencv(large), "OpenCV",
            magick="refused",
        ),
    }  # fmt: skip


SAMPLES = samples()


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, list[str]]]:
    rows: dict[str, list[str]] = {name: [] for name in SAMPLES}
    yield rows
    print("\n\n| file | difference to OpenCV or NumPy | to ImageMagick |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row)} |")


@pytest.mark.parametrize("name", SAMPLES)
def test_independent_readers_agree(name: str, table: dict[str, list[str]], tmp_path: Path) -> None:
    sample = SAMPLES[name]
    pixels = decode(sample.data)
    found = difference(pixels, sample.expected)
    table[name].append(f"{found} ({sample.by})")
    assert found <= MOST
    refused = sample.magick == "refused"
    other = None if refused else by_imagemagick(sample.data, tmp_path, pixels.shape)
    if other is None:
        table[name].append("")
        return
    found = difference(pixels, other)
    table[name].append(str(found))
    assert found <= MOST or sample.magick == "differs"
