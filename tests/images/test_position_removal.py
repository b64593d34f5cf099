"""Positions are taken out of image files, and nothing else changes in the picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from cbir.errors import ImageError
from cbir.images.decode import decode
from cbir.images.exif import exif_fields
from cbir.images.formats import sniff
from cbir.images.position_removal import holds_position, without_position
from tests.images.support_hostile import many_chunks, many_segments, shared_tags_in_jpeg
from tests.images.support_images import encoded, four_colours
from tests.images.support_tiff import CFA, Directory, tiff

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta><rdf:Description exif:GPSLatitude="47,22.5N" exif:GPSLongitude="8,32E"/>'


def block(orientation: int = 6, endian: str = "<", **gps: object) -> Image.Exif:
    """EXIF as a telephone writes it."""
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112] = "Maker", orientation
    found = gps or {"2": (47, 22, IFDRational(305, 10)), "4": (8, 32, 0), "1": "N", "3": "E"}
    exif.get_ifd(0x8825).update({int(tag): value for tag, value in found.items()})
    return exif


def photo(form: str, **options: object) -> bytes:
    lossless = {"lossless": True} if form == "WEBP" else {}
    return encoded(four_colours(), form, icc_profile=PROFILE, **lossless, **options)


def png_text(keyword: str, text: bytes, packed: bool) -> bytes:
    info = PngInfo()
    if keyword.startswith("XML"):
        info.add_itxt(keyword, text.decode(), zip=packed)
    else:
        info.add_text(keyword, text.decode(), zip=packed)
    return photo("PNG", pnginfo=info)


def raw_profile(kind: str, data: bytes) -> bytes:
    """As ImageMagick writes it: a name, a length, and lines of hexadecimal digits."""
    lines = re.sub("(.{72})", r"\1\n", data.hex())
    return f"\n{kind}\n{len(data):8d}\n{lines}\n".encode()


LOSSLESS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: photo("JPEG", exif=block()),
    "JPEG, progressive": lambda: photo("JPEG", exif=block(), progressive=True),
    "JPEG, big-endian": lambda: photo("JPEG", exif=block(endian=">")),
    "JPEG, XMP": lambda: photo("JPEG", xmp=XMP),
    "JPEG, another picture behind": lambda: photo("JPEG") + photo("JPEG", exif=block()),
    "JPEG, a video behind": lambda: photo("JPEG") + b"ftyp\xa9xyz\0\x12\x15\xc7+47.3+008.5/",
    "JPEG, comment": lambda: photo("JPEG", comment=b"geo:lat=47.37"),
    "PNG": lambda: photo("PNG", exif=block()),
    "PNG, XMP": lambda: png_text("XML:com.adobe.xmp", XMP, packed=False),
    "PNG, packed XMP": lambda: png_text("XML:com.adobe.xmp", XMP, packed=True),
    "PNG, raw profile": lambda: png_text(
        "Raw profile type exif", raw_profile("exif", block().tobytes()), packed=False
    ),
    "PNG, packed raw profile": lambda: png_text(
        "Raw profile type xmp", raw_profile("xmp", XMP), packed=True
    ),
    "WebP": lambda: photo("WEBP", exif=block()),
    "WebP, XMP": lambda: photo("WEBP", xmp=XMP),
}


def stored(data: bytes) -> tuple[np.ndarray, int, bytes | None, str | None]:
    """Pixels as they are stored, orientation, profile and format, read by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB"))
        orientation = image.getexif().get(0x0112, 1)
        return pixels, orientation, image.info.get("icc_profile"), image.format


def assert_no_position(data: bytes) -> None:
    """No reader that we have finds one, nor is any text of it left."""
    with Image.open(io.BytesIO(data)) as image:
        assert not image.getexif().get_ifd(0x8825)
        assert "xmp" not in image.info
        assert set(image.info) <= {
            *("icc_profile", "exif", "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"),
            *("adobe", "adobe_transform", "progressive", "progression"),
            *("loop", "background", "timestamp", "duration", "bbox", "blend", "disposal"),
        }
    assert "latitude" not in exif_fields(data)
    assert b"GPS" not in data
    assert b"Maker" not in data


@pytest.mark.parametrize("name", LOSSLESS)
def test_the_picture_stays_bit_for_bit(name: str) -> None:
    data = LOSSLESS[name]()
    removed = without_position(data)
    assert removed != data
    assert_no_position(removed)
    pixels, orientation, profile, form = stored(removed)
    before = stored(data)
    assert np.array_equal(pixels, before[0])
    # Browsers do not read the orientation of a raw profile, which Pillow does.
    assert orientation == (1 if name == "PNG, raw profile" else before[1])
    assert (profile, form) == (PROFILE, before[3])
    assert without_position(removed) == removed


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_stays(form: str, orientation: int) -> None:
    data = photo(form, exif=block(orientation))
    removed = without_position(data)
    assert stored(removed)[1] == orientation
    assert np.array_equal(decode(removed), decode(data))


def test_the_orientation_of_xmp_stays() -> None:
    turned = XMP.replace(b"exif:GPSLat", b'tiff:Orientation="8" exif:GPSLat', 1)
    data = photo("JPEG", xmp=turned)
    assert np.array_equal(decode(without_position(data)), decode(data))
    assert decode(data).shape == (48, 32, 3)


def test_an_animation_moves_on() -> None:
    for form in ("WEBP", "PNG"):
        frames = [four_colours().rotate(turn) for turn in (90, 180)]
        data = photo(form, exif=block(1), save_all=True, append_images=frames)
        removed = without_position(data)
        with Image.open(io.BytesIO(removed)) as image:
            assert image.n_frames == 3, form
        assert_no_position(removed)


def xmp_in_tiff() -> bytes:
    tags = ImageFileDirectory_v2()
    tags[700] = XMP
    return photo("TIFF", tiffinfo=tags)


def dng() -> bytes:
    large = encoded(four_colours(600, 400), "JPEG", quality=95)
    preview = {254: 1, 256: 600, 257: 400, 258: (8, 8, 8), 259: 7, 262: 6, 277: 3, 278: 400}
    sensor = Directory({254: 0, 256: 900, 257: 600, 258: 16, 259: 1, 262: CFA, 277: 1, 278: 600})
    tags = {50706: 0x01040000, 0x8825: (4_000_000_000,)}
    return tiff(Directory({**preview, **tags}, large, [sensor]))


DECODED: dict[str, Callable[[], bytes]] = {
    "TIFF": lambda: photo("TIFF", exif=block().tobytes()),
    "TIFF, XMP": xmp_in_tiff,
    "BigTIFF": lambda: photo("TIFF", exif=block().tobytes(), big_tiff=True),
    "AVIF": lambda: photo("AVIF", exif=block()),
    "AVIF, XMP": lambda: photo("AVIF", xmp=XMP),
    "GIF": lambda: encoded(four_colours(), "GIF", comment=XMP),
    "camera RAW": dng,
    "JPEG without an end": lambda: photo("JPEG", exif=block())[:-2],
}


@pytest.mark.parametrize("name", DECODED)
def test_other_files_become_an_upright_jpeg(name: str) -> None:
    data = DECODED[name]()
    removed = without_position(data)
    assert sniff(removed) == "image/jpeg"
    assert_no_position(removed)
    shown, before = decode(removed), decode(data)
    assert shown.shape == before.shape
    assert np.abs(shown.astype(int) - before).mean() < 5


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP"])
def test_files_without_a_position_stay_byte_for_byte(form: str) -> None:
    plain = encoded(four_colours(), form)
    assert without_position(plain) is plain
    if form in ("GIF", "BMP"):
        return
    # Cameras without a receiver write the version and the datum of positions that they lack.
    for endian in "<>":
        exif = block(endian=endian, **{"0": b"\2\3\0\0", "18": "WGS-84"})
        told = photo(form, exif=exif.tobytes())
        assert b"Maker" in told
        assert without_position(told) is told


@pytest.mark.parametrize("packed", [True, False])
def test_texts_of_a_png_without_a_position_stay(packed: bool) -> None:
    for keyword in ("Raw profile type exif", "Comment"):
        told = png_text(keyword, raw_profile("exif", block(**{"0": b"\2\3\0\0"}).tobytes()), packed)
        assert without_position(told) is told


def test_a_picture_that_cannot_be_shown_without_its_position_is_refused() -> None:
    for data in (photo("TIFF", exif=block().tobytes())[:-200], photo("JPEG", exif=block())[:900]):
        assert holds_position(data)
        with pytest.raises(ImageError):
            without_position(data)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["JPEG", "PNG", "WebP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, 300),
)
def test_damage_gives_a_file_without_a_position_or_image_error(
    name: str, damage: list[tuple[int, bytes]], cut: int
) -> None:
    changed = bytearray((LOSSLESS | DECODED)[name]())
    for at, some in damage:
        changed[at : at + len(some)] = some
    try:
        removed = without_position(bytes(changed[: len(changed) - cut]))
    except ImageError:
        return
    assert "latitude" not in exif_fields(removed)


def test_files_of_many_parts_take_little_time() -> None:
    pointers = b"\x25\x88\x04\0\x01\0\0\0" * 1_000_000
    texts = png_text("Comment", b"0" * 1_000_000, packed=True)
    chunk = texts[texts.index(b"zTXt") - 4 : texts.index(b"IDAT") - 4]
    files = [
        many_segments() + XMP,
        many_chunks() + XMP,
        shared_tags_in_jpeg() + XMP,
        photo("JPEG")[:-2] + pointers,
        texts.replace(chunk, chunk * 5000),
    ]
    started = process_time()
    for data in files:
        try:
            without_position(data)
        except ImageError:
            continue
    assert process_time() - started < 5
