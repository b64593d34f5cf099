"""Files that name their colours without an ICC profile."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from tests.images.support_images import encoded

SRGB_CHUNK = (b"sRGB", b"\0")


def gama(number: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(number * 100_000))


def chrm(*points: float) -> tuple[bytes, bytes]:
    """White, red, green and blue, x and y of each."""
    return b"cHRM", struct.pack(">8I", *(round(point * 100_000) for point in points))


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes((primaries, transfer, matrix, full))


def png(picture: object, *chunks: tuple[bytes, bytes], **options: object) -> bytes:
    """A PNG with chunks after its header (PNG, third edition, section 5.3)."""
    data = encoded(picture, "PNG", **options)  # type: ignore[arg-type]
    extra = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data[:33] + extra + data[33:]


def avif(picture: object, primaries: int, transfer: int, **options: object) -> bytes:
    """An AVIF file with other code points in its box `colr` of the kind `nclx`."""
    data = encoded(picture, "AVIF", quality=100, subsampling="4:4:4", **options)  # type: ignore[arg-type]
    return with_nclx(data, primaries, transfer)


def with_nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """The same AVIF or HEIC file with other code points."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def exif(index: str, space: int = 0xFFFF) -> bytes:
    """EXIF with a colour space and an interoperability index."""
    tags = Image.Exif()
    tags[0x8769] = {0xA001: space, 0xA005: {1: index, 2: b"0100"}}
    return tags.tobytes()
