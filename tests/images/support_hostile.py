"""Small files that are made to keep a decoder busy."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from tests.images.support_images import encoded
from tests.images.support_tiff import Directory, tiff


def many_scans(count: int, side: int = 64) -> bytes:
    """A grey progressive JPEG whose last scan is repeated; a decoder goes through all pixels."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


def many_segments(count: int = 30_000) -> bytes:
    """A JPEG with empty application segments."""
    data = encoded(Image.new("RGB", (8, 8)), "JPEG")
    return data[:2] + b"\xff\xe5\0\x02" * count + data[2:]


def many_chunks(count: int = 30_000) -> bytes:
    """A PNG with short texts."""
    data = encoded(Image.new("RGB", (8, 8)), "PNG")
    text = b"tEXta\0b"
    chunk = struct.pack(">I", 3) + text + struct.pack(">I", zlib.crc32(text))
    return data[:33] + chunk * count + data[33:]


def many_blocks(count: int = 30_000) -> bytes:
    """A GIF with comments before its frame."""
    data = encoded(Image.new("P", (8, 8)), "GIF")
    start = data.index(b"\x2c\0\0\0\0")
    return data[:start] + b"\x21\xfe\x01c\0" * count + data[start:]


def many_strips(count: int = 120_000) -> bytes:
    """A TIFF one pixel wide, with a strip a row."""
    tags = {256: 1, 257: count, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    return tiff(Directory({**tags, 273: [8] * count, 279: [1] * count}))


def _shared_tags(count: int) -> bytes:
    """A block of EXIF whose tags all name the same bytes as their values."""
    start, size = 8 + 2 + 12 * count + 4, 2 * count
    entries = b"".join(struct.pack("<HHII", 40_000 + tag, 7, size, start) for tag in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4 + size)


def shared_tags_in_tiff(count: int = 6000) -> bytes:
    """A TIFF whose tags all name the same bytes as their values."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    first = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    block = _shared_tags(count)
    head = block[:8] + struct.pack("<H", count + len(tags)) + first
    # The values now begin earlier than they did, among the tags.
    return head + block[10:]


def shared_tags_in_jpeg(count: int = 6000) -> bytes:
    """A JPEG with such EXIF in several segments, which Pillow joins."""
    data, block = encoded(Image.new("RGB", (8, 8)), "JPEG"), _shared_tags(count)
    parts = [b"Exif\0\0" + block[at : at + 60_000] for at in range(0, len(block), 60_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in parts)
    return data[:2] + segments + data[2:]


def shared_tags(form: str, count: int = 6000) -> bytes:
    """A picture with such EXIF in one part."""
    return encoded(Image.new("RGB", (300, 300)), form, exif=_shared_tags(count))


def many_directories() -> bytes:
    """A TIFF whose 64 directories have 65,000 tags of 64 values each."""
    count = at = 65_000  # the last bytes of an entry are the number of entries of the next one
    start = at + 64 * 4
    entries = b"".join(struct.pack(">HHII", 330 + n, 4, 64, at) for n in range(count))
    head = (b"MM\0*" + struct.pack(">I", start)).ljust(at, b"\0")
    places = struct.pack(">64I", *range(start + 12, start + 12 * 65, 12))
    return head + places + struct.pack(">H", count) + entries + bytes(12 * 64 + 4)


def many_layers() -> bytes:
    """A JPEG 2000 that says that each of its 256 tiles has 65,535 layers."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG2000", tile_size=(4, 4))
    data = file.getvalue()
    layers = data.index(b"\xff\x52") + 6
    return data[:layers] + b"\xff\xff" + data[layers + 2 :]


def long_comment(length: int = 100_000) -> bytes:
    """A PNM file with a comment."""
    return b"P5\n2 2 255\n".replace(b"\n", b"\n#" + b"x" * length + b"\n", 1) + bytes(4)


def flagged_webp(width: int, height: int) -> bytes:
    """A lossless WebP without transparency whose header promises some."""
    return _riff(_extended(0x10, width, height) + _lossless(width, height))


def one_frame_webp(width: int, height: int) -> bytes:
    """An animated WebP of one frame."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    frame = bytes(6) + size + b"\x64\0\0\0" + _lossless(width, height)
    parts = (b"ANIM", bytes(6)), (b"ANMF", frame)
    return _riff(_extended(0x02, width, height) + b"".join(_chunk(*part) for part in parts))


def _lossless(width: int, height: int) -> bytes:
    """The chunk of an opaque picture."""
    image = Image.new("RGB", (width, height), (200, 100, 50))
    return encoded(image, "WEBP", lossless=True, method=0, quality=0)[12:]


def _extended(flags: int, width: int, height: int) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _riff(chunks: bytes) -> bytes:
    return _chunk(b"RIFF", b"WEBP" + chunks)
