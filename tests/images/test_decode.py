"""Bytes to pixels: every kind of file that people have, and every kind of damage."""

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from cbir.errors import ImageError
from cbir.images import decode as module
from cbir.images.decode import decode, decode_file, decoder_name, load_pixels
from cbir.images.formats import sniff
from cbir.images.limits import Limits
from tests.images.support_images import HEIC, HEIC_TURNED, encoded, four_colours, noise
from tests.images.support_profiles import PROPHOTO, rgb_profile
from tests.images.support_tiff import CFA, Directory, tiff

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "JPEG2000": "image/jp2",
    "PPM": "image/x-portable-anymap",
}
LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}

# What EXIF says the stored picture needs, in NumPy's words (EXIF 2.32, table 6).
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def png_of_size(width, height):
    """A well-formed PNG that says it is this large and holds no pixels worth the name."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_give_back_the_very_pixels(form):
    pixels = noise(1, 20, 30)
    got = decode(encoded(pixels, form, **LOSSLESS[form]))
    assert got.dtype == np.uint8
    assert np.array_equal(got, pixels)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_come_close(form):
    picture = four_colours()
    got = decode(encoded(picture, form))
    assert got.shape == (32, 48, 3)
    assert np.abs(got.astype(int) - np.asarray(picture).astype(int)).mean() < 5


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_the_type_is_taken_from_the_first_bytes(form):
    assert sniff(encoded(four_colours(), form)[:64]) == MEDIA_TYPES[form]


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff", b"BMW is a car, and this is a text", b"P9 10 10", b"<html></html>"),
        *(b"II am", b"P1 fix the roof.\nP2 paint.\n", b"P1 3 4 chairs", b"P2 #12 is done"),
        *(b"P5 10", b"P3 2 2 of them 255", b"P6\n"),
    ],
)
def test_what_is_no_image_has_no_type(data):
    assert sniff(data) is None


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (b"P1\n# by hand\n2 1\n01", [255, 0]),
        (b"P2 2 1 255\n7 9", [7, 9]),
        (b"P5\n# written by a program with much to say about itself, and its version: 2.10.36\n"
         b"# and more\n2 1\n255\n\x07\x09", [7, 9]),
        (b"P4\n2 1\n\x40", [255, 0]),
    ],
)  # fmt: skip
def test_every_pnm_with_a_header_is_an_image(data, pixels):
    assert sniff(data[:256]) == "image/x-portable-anymap"
    assert decode(data)[0, :, 0].tolist() == pixels


def test_heic_is_decoded_and_turned_as_its_container_says():
    assert sniff(HEIC) == "image/heic"
    pixels = decode(HEIC)
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels[8, 4].astype(int) - (230, 20, 20)).max() < 30
    assert np.abs(pixels[8, 20].astype(int) - (20, 20, 230)).max() < 30
    assert np.array_equal(decode(HEIC_TURNED), np.rot90(pixels, -1))


def test_heif_and_avif_files_of_the_general_brand_are_told_apart_by_what_they_are_compatible_with():
    avif = encoded(four_colours(), "AVIF")
    general = avif[:8] + b"mif1" + avif[12:]
    assert b"avif" in avif[16:64]
    assert sniff(general) == "image/avif"
    assert np.array_equal(decode(general), decode(avif))
    assert sniff(HEIC[:8] + b"mif1" + HEIC[12:]) == "image/heic"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(form, orientation):
    options = {**LOSSLESS.get(form, {}), "quality": 95} if form != "TIFF" else {}
    plain = decode(encoded(four_colours(), form, **options))
    turned = decode(encoded(four_colours(), form, exif=exif(orientation), **options))
    expected = TURNS[orientation](plain)
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected.astype(int)).max() <= 2


def test_an_orientation_that_only_xmp_names_is_applied():
    note = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(four_colours(), "JPEG")
    segment = b"http://ns.adobe.com/xap/1.0/\0" + note
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    assert np.array_equal(decode(data), np.rot90(decode(encoded(four_colours())), -1))


def test_an_unknown_orientation_changes_nothing():
    data = encoded(four_colours(), "JPEG", exif=exif(99))
    assert np.array_equal(decode(data), decode(encoded(four_colours())))


def test_damaged_exif_costs_neither_the_picture_nor_a_warning():
    damaged = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x05\x00\xff\xff\xff\xff\xff\xff\xff"
    data = encoded(four_colours(), "JPEG", exif=damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(data), decode(encoded(four_colours())))


def test_transparency_is_laid_on_white():
    layer = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    layer.putpixel((1, 1), (10, 20, 30, 255))
    layer.putpixel((2, 2), (0, 0, 0, 128))
    pixels = decode(encoded(layer, "PNG"))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[1, 1]) == (10, 20, 30)
    assert np.abs(pixels[2, 2].astype(int) - 127).max() <= 1


def test_grey_with_transparency_is_laid_on_white():
    pixels = decode(encoded(Image.new("LA", (2, 2), (0, 0)), "PNG"))
    assert (pixels == 255).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_is_laid_on_white(form):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([200, 0, 0, 0, 150, 0] + [0] * (254 * 3))
    picture.putpixel((0, 0), 1)
    pixels = decode(encoded(picture, form, transparency=0))
    assert tuple(pixels[0, 0]) == (0, 150, 0)
    assert tuple(pixels[3, 3]) == (255, 255, 255)


def test_a_palette_with_many_transparent_colours_is_laid_on_white():
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((1, 0), 1)
    pixels = decode(encoded(picture, "PNG", transparency=bytes([0, 255])))
    assert pixels.tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_a_plain_palette_gives_its_colours():
    picture = four_colours().quantize(4)
    assert np.array_equal(decode(encoded(picture, "PNG")), np.asarray(picture.convert("RGB")))


def test_a_transparent_colour_of_an_rgb_png_is_white():
    picture = Image.new("RGB", (2, 1), (9, 9, 9))
    picture.putpixel((1, 0), (50, 60, 70))
    pixels = decode(encoded(picture, "PNG", transparency=(9, 9, 9)))
    assert pixels.tolist() == [[[255, 255, 255], [50, 60, 70]]]


def drawn(shape, colour):
    """A shape of one colour on transparency."""
    layer = np.zeros((48, 48, 4), np.uint8)
    y, x = np.mgrid[:48, :48]
    inside = {"disc": (x - 24) ** 2 + (y - 24) ** 2 < 200, "bars": x % 8 < 3, "none": x < 0}[shape]
    layer[inside] = (*colour, 255)
    return Image.fromarray(layer), inside


@pytest.mark.parametrize("colour", [(255, 255, 255), (250, 252, 255), (255, 255, 245)])
@pytest.mark.parametrize("shape", ["disc", "bars"])
def test_drawings_in_white_are_laid_on_black(shape, colour):
    picture, inside = drawn(shape, colour)
    pixels = decode(encoded(picture, "PNG"))
    assert (pixels[inside] == colour).all()
    assert (pixels[~inside] == 0).all()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 0), (200, 200, 200), (255, 220, 220)])
def test_what_can_be_seen_on_white_is_laid_on_white(colour):
    picture, inside = drawn("disc", colour)
    pixels = decode(encoded(picture, "PNG"))
    assert (pixels[inside] == colour).all()
    assert (pixels[~inside] == 255).all()


def test_a_page_without_anything_drawn_is_white():
    assert (decode(encoded(drawn("none", (0, 0, 0))[0], "PNG")) == 255).all()


def test_a_white_window_with_a_little_text_and_round_corners_stays_on_white():
    window = np.full((100, 100, 4), 255, np.uint8)
    window[:3, :3] = 0
    window[40:42, 20:80, :3] = 0
    assert (decode(encoded(Image.fromarray(window), "PNG"))[:3, :3] == 255).all()


def test_cmyk_becomes_the_colours_it_prints():
    picture = four_colours().convert("CMYK")
    pixels = decode(encoded(picture, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - np.asarray(four_colours()).astype(int)).mean() < 5


def test_one_bit_pictures_are_black_and_white():
    picture = Image.new("1", (8, 2), 0)
    picture.putpixel((3, 1), 1)
    pixels = decode(encoded(picture, "PNG"))
    assert pixels[1, 3].tolist() == [255, 255, 255]
    assert pixels.sum() == 3 * 255


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_cut(form):
    values = np.array([[0, 128, 257, 32768, 65280, 65535]], dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(values), form))
    assert pixels[0, :, 0].tolist() == np.rint(values[0] / 257).astype(int).tolist()
    assert (pixels == pixels[:, :, :1]).all()


def test_16_bit_grey_of_the_other_byte_order_is_the_same():
    values = np.array([[0, 300, 65535]], dtype=">u2")
    picture = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert decode(encoded(picture, "TIFF"))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 17.0, 255.0]], np.float32), [0, 17, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, np.nan, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[7.5, 7.5, 7.5]], np.float32), [8, 8, 8]),
        (np.array([[-3.0, -3.0, -3.0]], np.float32), [0, 0, 0]),
    ],
)
def test_32_bit_values_are_scaled_from_their_natural_range(values, expected):
    assert decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(form):
    first, second = four_colours(), Image.new("RGB", (48, 32), "white")
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[second], **options)
    assert np.abs(decode(data).astype(int) - np.asarray(first).astype(int)).max() <= 1


def test_a_single_pixel_is_an_image():
    assert decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"This is a text, whatever its name says.", "not an image: unknown format"),
        (bytes(5000), "not an image"),
        (encoded(noise(2), "JPEG")[:700], "image is truncated"),
        (encoded(noise(2), "PNG")[:700], "image is truncated"),
        (encoded(noise(2), "GIF")[:900], "image is truncated"),
        (encoded(noise(2), "BMP")[:700], "image is truncated"),
        (encoded(noise(2), "JPEG")[:30], "image is truncated"),
        (encoded(noise(2), "WEBP")[:300], "WebP"),
        (encoded(noise(2), "AVIF")[:500], "AVIF"),
        (HEIC[:300], "HEIC"),
        (HEIC[:-50], "image is truncated"),
        (encoded(noise(2), "PNG")[:8], "image is truncated"),
    ],
)
def test_bad_bytes_are_refused_with_a_reason_that_people_understand(data, reason):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif(6)}, {"quality": 95}])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read_with_a_note(options, missing):
    whole = encoded(noise(8, 70, 50), "JPEG", **options)
    found = decode_file(whole[:-missing])
    assert np.array_equal(found.pixels, decode(whole))
    assert found.notes == ("the end marker of the JPEG is missing; every pixel is there",)
    assert decode_file(whole).notes == ()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("missing", [4, 5, 30, 400])
def test_a_jpeg_that_lacks_pixels_is_truncated(options, missing):
    with pytest.raises(ImageError, match="image is truncated"):
        decode(encoded(noise(8, 70, 50), "JPEG", **options)[:-missing])


def test_a_progressive_jpeg_without_its_last_scans_is_truncated():
    whole = encoded(noise(8, 70, 50), "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        with pytest.raises(ImageError, match="image is truncated"):
            decode(whole[: whole.rindex(b"\xff\xc4", 0, scan)])
        with pytest.raises(ImageError, match="image is truncated"):
            decode(whole[:scan])


def test_a_huge_jpeg_is_decoded_at_reduced_scale(monkeypatch):
    picture = four_colours(480, 320)
    data = encoded(picture, "JPEG", quality=95)
    monkeypatch.setattr(module, "PIXEL_LIMIT", 480 * 320 // 3)
    found = decode_file(data)
    assert (found.width, found.height) == (480, 320)
    assert found.pixels.shape == (160, 240, 3)
    halved = np.asarray(picture.reduce(2)).astype(int)
    assert np.abs(found.pixels.astype(int) - halved).mean() < 3
    assert found.notes == ("480 x 320 pixels, decoded at 1/2 size",)
    turned = decode_file(encoded(picture, "JPEG", quality=95, exif=exif(6)))
    assert (turned.width, turned.height) == (320, 480)
    assert turned.pixels.shape == (240, 160, 3)


@pytest.mark.parametrize(
    ("side", "scale"), [(2000, 1), (301, 1), (300, 2), (151, 2), (150, 4), (75, 8), (1, 8)]
)
def test_a_jpeg_is_decoded_no_larger_than_needed(side, scale):
    picture = four_colours(400, 600)
    found = decode_file(encoded(picture, "JPEG", quality=95), Limits(side=side))
    assert (found.width, found.height) == (400, 600)
    assert found.pixels.shape == (600 // scale, 400 // scale, 3)
    reduced = np.asarray(picture.reduce(scale)).astype(int)
    assert np.abs(found.pixels.astype(int) - reduced).mean() < 3
    assert decode_file(encoded(picture, "PNG"), Limits(side=side)).pixels.shape == (600, 400, 3)


def test_the_limit_lets_phones_through_and_can_be_changed():
    assert module.JPEG_PIXEL_LIMIT > 16_384 * 12_288
    header = encoded(four_colours(), "JPEG")
    at = header.index(b"\xff\xc0") + 5
    data = header[:at] + struct.pack(">HH", 16_384, 16_384) + header[at + 4 :]
    with pytest.raises(ImageError, match="16384 x 16384 pixels exceeds the limit of 250 mega"):
        decode(data)
    with pytest.raises(ImageError, match="10000 x 9999 pixels exceeds the limit of 50 megapixels"):
        decode_file(png_of_size(10_000, 9_999), Limits(50_000_000))
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode_file(png_of_size(11_000, 10_000), Limits(120_000_000))


def test_a_huge_picture_is_refused_before_its_pixels_are_decoded():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            decode(png_of_size(30_000, 30_000))
    assert caught.value.message == "30000 x 30000 pixels exceeds the limit of 100 megapixels"


def test_a_picture_just_within_the_limit_is_tried_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(png_of_size(10_000, 9_999))


def test_a_huge_file_is_refused(monkeypatch):
    monkeypatch.setattr(module, "BYTE_LIMIT", 1000)
    data = encoded(noise(3))
    assert len(data) > 1000
    with pytest.raises(ImageError, match="exceeds the limit of"):
        decode(data)


def test_pillows_own_settings_are_left_alone():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    decode(HEIC)
    decode(encoded(four_colours(), "JPEG", exif=exif(6)))
    with pytest.raises(ImageError):
        decode(png_of_size(30_000, 30_000))
    after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    assert after == before
    assert "HEIF" not in Image.OPEN


def test_other_peoples_warnings_are_shown_while_images_are_decoded():
    data = encoded(four_colours(), "TIFF", exif=exif(6))
    stop = threading.Event()

    def work():
        while not stop.is_set():
            decode(data)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(200):
            with pytest.raises(UserWarning):
                warnings.warn("mine", stacklevel=1)
    finally:
        stop.set()
        worker.join()


def test_decoding_in_many_threads_gives_what_one_gives():
    pictures = [encoded(noise(n), "JPEG", exif=exif(1 + n % 8)) for n in range(16)]
    pictures += [encoded(noise(n), form) for n in range(8) for form in ("PNG", "TIFF", "WEBP")]
    wide = rgb_profile(PROPHOTO, 1.8)
    pictures += [encoded(noise(n), "PNG", icc_profile=wide) for n in range(8)]
    alone = [decode(data) for data in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, pictures * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


SENSOR = Directory({256: 48, 257: 32, 258: 16, 259: 1, 262: CFA}, bytes(64))
RAW = tiff(Directory({254: 1, 259: 6}, encoded(four_colours()), [SENSOR], jpeg=True))
SAMPLES = [encoded(noise(4, 9, 7), form) for form in MEDIA_TYPES] + [
    HEIC,
    RAW,
    encoded(four_colours(), "PNG", icc_profile=rgb_profile(PROPHOTO, 1.8)),
    encoded(four_colours(), "JPEG", exif=exif(6)),
    encoded(four_colours(), "GIF", save_all=True, append_images=[Image.new("RGB", (48, 32))]),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sample=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4))),
    kept=st.floats(0, 1),
)
def test_whatever_is_done_to_a_file_it_is_decoded_or_refused_in_one_line(sample, edits, kept):
    data = bytearray(sample)
    for place, replacement in edits:
        at = place % len(data)
        data[at : at + len(replacement)] = replacement
    data = bytes(data[: round(len(data) * (0.5 + kept / 2))])
    try:
        pixels = decode(data)
    except ImageError as error:
        assert error.message
        assert "\n" not in error.message
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


def test_pixels_are_their_own_pixels_and_bytes_are_decoded():
    pixels = noise(5)
    assert load_pixels(pixels) is pixels
    assert np.array_equal(load_pixels(encoded(pixels, "PNG")), pixels)


def test_the_decoder_says_its_name_and_version():
    assert decoder_name().startswith(f"Pillow {Image.__version__}, libjpeg")


def test_plain_jpegs_are_what_pillow_makes_of_them():
    data = encoded(noise(6, 33, 47), "JPEG", quality=75)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_nothing_is_printed_about_damaged_tiffs(capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff prints from C, to the file descriptor; its lines would name no file."""
    file = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "TIFF", compression="tiff_deflate")
    data = bytearray(file.getvalue())
    data[60:64] = b"\xff\xff\xff\xff"
    samples = bytearray(file.getvalue())
    tag = samples.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel
    samples[tag + 8 : tag + 10] = struct.pack("<H", 5120)
    for damaged in (data, samples):
        with pytest.raises(ImageError):
            decode(bytes(damaged))
    assert capfd.readouterr() == ("", "")
