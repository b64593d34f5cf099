"""Camera RAW files show their largest preview, or say that there is none."""

import struct
from time import process_time

import numpy as np
import pytest
from PIL import Image

from cbir.errors import ImageError
from cbir.images import decode as decoding
from cbir.images.decode import decode
from cbir.images.formats import sniff
from cbir.images.members import has_image_suffix
from cbir.images.sources import open_source
from tests.images.support_images import encoded, four_colours
from tests.images.support_tiff import CFA, Directory, tiff

LARGE = encoded(four_colours(600, 400), "JPEG", quality=95)
SMALL = four_colours(160, 120).tobytes()
SENSOR = Directory(
    {254: 0, 256: 1200, 257: 800, 258: 16, 259: 1, 262: CFA, 277: 1, 278: 800}, b"\7" * 64
)


def thumbnail(**more):
    tags = {254: 1, 256: 160, 257: 120, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3, 278: 120}
    return Directory(tags | more.pop("tags", {}), SMALL, **more)


def jpeg_strip(jpeg, width=600, height=400):
    tags = {254: 1, 256: width, 257: height, 258: (8, 8, 8), 259: 7, 262: 6, 277: 3, 278: height}
    return Directory(tags, jpeg)


def named_jpeg(jpeg):
    return Directory({254: 1, 259: 6}, jpeg, jpeg=True)


RAWS = {
    "DNG": tiff(thumbnail(tags={50706: 0x01040000}, below=[SENSOR, jpeg_strip(LARGE)])),
    "NEF": tiff(thumbnail(below=[named_jpeg(LARGE), SENSOR]), order=">"),
    "ARW": tiff(Directory({259: 6}, LARGE, [SENSOR], jpeg=True), thumbnail()),
    "CR2": tiff(Directory({256: 600, 257: 400, 259: 6}, LARGE), SENSOR, magic=b"II*\0"),
    "ORF": tiff(thumbnail(), SENSOR, magic=b"IIRO") + LARGE,
    "RW2": tiff(Directory({46: 0}), magic=b"IIU\0") + LARGE,
    "RAF": b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + struct.pack(">II", 92, len(LARGE)) + LARGE,
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40) + LARGE + bytes(100),
}


@pytest.mark.parametrize("name", RAWS)
def test_the_large_preview_is_what_a_raw_file_shows(name):
    assert np.array_equal(decode(RAWS[name]), decode(LARGE))
    assert has_image_suffix(f"shot.{name}")
    assert sniff(RAWS[name][:256]) is not None


def test_a_preview_without_compression_is_found_in_its_directory():
    tags = {254: 1, 256: 600, 257: 400, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3, 278: 400}
    pixels = np.asarray(four_colours(600, 400))
    raw = tiff(thumbnail(below=[SENSOR, Directory(tags, pixels.tobytes())]))
    assert np.array_equal(decode(raw), pixels)


@pytest.mark.parametrize("preview", [named_jpeg(LARGE), jpeg_strip(LARGE)])
def test_the_orientation_of_the_main_directory_applies(preview):
    raw = tiff(thumbnail(tags={274: 6}, below=[preview, SENSOR]))
    assert np.array_equal(decode(raw), np.rot90(decode(LARGE), -1))


def test_an_orientation_of_the_preview_itself_is_applied_once():
    exif = Image.Exif()
    exif[0x0112] = 8
    own = encoded(four_colours(600, 400), "JPEG", quality=95, exif=exif.tobytes())
    raw = tiff(thumbnail(tags={274: 8}, below=[named_jpeg(own), SENSOR]))
    assert np.array_equal(decode(raw), np.rot90(decode(LARGE)))


def test_an_uncompressed_picture_with_an_orientation_of_its_own_is_turned_once():
    tags = {256: 600, 257: 400, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3, 278: 400, 274: 6}
    pixels = np.asarray(four_colours(600, 400))
    raw = tiff(Directory(tags, pixels.tobytes(), below=[SENSOR]))
    assert np.array_equal(decode(raw), np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (tiff(thumbnail(below=[SENSOR])), "the largest is 160 x 120"),
        (tiff(SENSOR), "none"),
        (RAWS["RAF"][:200], "camera RAW"),
        (RAWS["DNG"][:100], "camera RAW|TIFF|truncated"),
    ],
)
def test_a_raw_file_without_a_useful_preview_says_so(raw, reason):
    with pytest.raises(ImageError, match=reason):
        decode(raw)


def test_lossless_jpegs_of_the_sensor_are_no_previews():
    lossless = LARGE.replace(b"\xff\xc0", b"\xff\xc3", 1)
    with pytest.raises(ImageError, match="no preview of useful size"):
        decode(tiff(thumbnail(below=[Directory({259: 7, 262: CFA}, lossless), SENSOR])))


def test_a_small_sensor_has_a_small_preview():
    tags = {254: 0, 256: 160, 257: 120, 258: 16, 259: 1, 262: CFA}
    raw = tiff(thumbnail(below=[Directory(tags, b"\7" * 64)]))
    assert decode(raw).shape == (120, 160, 3)


def test_an_ordinary_tiff_whose_first_page_is_reduced_shows_the_larger_one():
    tags = {256: 320, 257: 240, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3, 278: 240}
    pixels = np.asarray(four_colours(320, 240))
    assert np.array_equal(decode(tiff(thumbnail(), Directory(tags, pixels.tobytes()))), pixels)


def test_other_tiffs_show_their_first_page():
    first = Directory({256: 2, 257: 1, 258: 8, 259: 1, 262: 1, 278: 1}, b"\x10\x20")
    second = Directory({256: 4, 257: 1, 258: 8, 259: 1, 262: 1, 278: 1}, b"\x30\x40\x50\x60")
    assert decode(tiff(first, second))[0, :, 0].tolist() == [0x10, 0x20]


def test_raw_files_may_be_larger_than_others(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BYTE_LIMIT", len(LARGE))
    assert len(RAWS["DNG"]) > len(LARGE)
    for name in ("shot.dng", "shot.tif"):
        (tmp_path / name).write_bytes(RAWS["DNG"])
    source = open_source(str(tmp_path))
    assert np.array_equal(decode(source.open("shot.dng")), decode(LARGE))
    with pytest.raises(ImageError, match="exceeds the limit"):
        source.open("shot.tif")
    with pytest.raises(ImageError, match="exceeds the limit"):
        decode(encoded(np.zeros((400, 600, 3), np.uint8), "TIFF"))


def test_directories_in_a_circle_end():
    raw = bytearray(tiff(thumbnail(below=[SENSOR])))
    raw[-4:] = raw[4:8]
    with pytest.raises(ImageError, match="camera RAW"):
        decode(bytes(raw))


def test_a_file_made_to_keep_a_reader_busy_is_soon_refused():
    # The segments after each start of a JPEG are those after all later starts, too.
    raw = b"IIU\0\0\0\0\0" + b"\xff\xe0\x00\x04\xff\xd8" * 50_000
    start = process_time()
    with pytest.raises(ImageError):
        decode(raw)
    assert process_time() - start < 5
