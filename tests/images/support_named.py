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


def heic_with_profile(data: bytes, profile: bytes) -> bytes:
    """An HEIC file of one item and below 64 kB, with an ICC profile (ISO 23008-12, `colr`)."""
    colour = struct.pack(">I8s", 12 + len(profile), b"colrprof") + profile
    start = data.index(b"ipma") - 4  # the properties of the item; their box `ipco` ends here
    end = start + int.from_bytes(data[start : start + 4])
    count = bytes([data[start + 18] + 1])
    uses = data[start + 4 : start + 18] + count + data[start + 19 : end] + count
    whole = bytearray(data[:start] + colour + struct.pack(">I", 4 + len(uses)) + uses + data[end:])
    pixels = struct.pack(">I", data.index(b"mdat") + 4)
    for at, more in (
        (data.index(b"meta") - 4, len(colour) + 1),
        (data.index(b"iprp") - 4, len(colour) + 1),
        (data.index(b"ipco") - 4, len(colour)),
        (data.index(pixels), len(colour) + 1),
    ):
        whole[at : at + 4] = (int.from_bytes(data[at : at + 4]) + more).to_bytes(4)
    return bytes(whole)


def exif(index: str, space: int = 0xFFFF) -> bytes:
    """EXIF with a colour space and an interoperability index."""
    tags = Image.Exif()
    tags[0x8769] = {0xA001: space, 0xA005: {1: index, 2: b"0100"}}
    return tags.tobytes()
