"""Takes the position out of image files: the latitude and longitude of EXIF (2.32) and XMP.

A position is found by the bytes that begin it, wherever they are: also in a second picture or a
video behind a JPEG, in a preview, and in formats whose structure is not read here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

from cbir.errors import ImageError
from cbir.images.decode import decode_file
from cbir.images.exif import POSITION, exif_fields, orientation_of
from cbir.images.formats import JPEG, PNG, sniff
from cbir.images.limits import DEFAULT, Limits, keep

_WEBP = "image/webp"
_QUALITY = 95
_LONGEST_SIDE = 65_500  # of a JPEG
_MOST_PARTS = 20_000  # segments or chunks of a file
_MOST_POINTERS = 64

_TEXTS = (
    re.compile(rb"G[Pp][Ss](?:Dest)?L(?:at|on)"),  # XMP; drones write "GpsLongtitude"
    re.compile(rb"geo:lat"),
    re.compile(rb"\xa9xyz....[+-]\d", re.DOTALL),  # ISO 6709, in videos of moving pictures
)
# A tag 0x8825 of one offset (LONG, IFD; in BigTIFF also LONG8, IFD8).
_POINTERS = {
    "<": re.compile(rb"\x25\x88[\x04\x0d\x10\x12]\0\x01\0\0\0"),
    ">": re.compile(rb"\x88\x25\0[\x04\x0d\x10\x12]\0\0\0(?:\x01|\0\0\0\0\x01)"),
}
_HEADS = {"<": b"II*\0", ">": b"MM\0*"}
_BIG = (b"+\0", b"\0+")
_LARGEST_BLOCK = 2**16
_GPS_TAGS, _PLACES = range(32), {2, 4, 20, 22}  # latitudes and longitudes
_CR3_POSITION = re.compile(rb"CMT4(?=II\*\0)")

# What is kept of a file: parts that the look of the picture depends on.
_SEGMENTS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_PNG_CHUNKS = frozenset(
    b"tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD pHYs acTL fcTL fdAT".split()
)
_WEBP_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_WEBP_EXIF, _WEBP_XMP = 8, 4  # flags
_NEXT_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
_MOST_TEXT = 8_000_000  # bytes of all compressed texts of a PNG


def without_position(data: bytes, limits: Limits = DEFAULT) -> bytes:
    """An image file as it is if it holds no position, else the same picture without one.

    A JPEG, PNG or WebP keeps its pixels bit for bit, its colours and its orientation, and loses all
    other metadata. Any other file, or one of unusual structure, becomes a JPEG of its pixels (see
    `decode_file`). Raises `ImageError` if they cannot be decoded within `limits` or make no JPEG.
    """
    kind = sniff(data)
    if not holds_position(data):
        return data
    strip = {JPEG: _strip_jpeg, PNG: _strip_png, _WEBP: _strip_webp}.get(kind or "")
    stripped = strip(data, orientation_of(data)) if strip else None
    if stripped is not None and not holds_position(stripped):
        return stripped
    from PIL import Image

    pixels = decode_file(data, limits).pixels
    keep(pixels)
    if max(pixels.shape) > _LONGEST_SIDE:
        raise ImageError("the picture is too large for a JPEG without its position")
    target = BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()


def holds_position(data: bytes) -> bool:
    """Whether an image file says where it was taken, in EXIF, XMP or a video behind it."""
    texts = [data, *(_png_texts(data) if sniff(data) == PNG else ())]
    return any(map(_mentions_position, texts)) or POSITION[0] in exif_fields(data)


def _mentions_position(data: bytes) -> bool:
    if any(text.search(data) for text in _TEXTS):
        return True
    canons = _CR3_POSITION.search(data, 0, _LARGEST_BLOCK)
    if canons and not _is_empty(data, "<", canons.end(), canons.end() + 4):
        return True
    for order, pointer in _POINTERS.items():
        for number, found in enumerate(pointer.finditer(data)):
            at = found.start()
            base = max(0, data.rfind(_HEADS[order], max(0, at - _LARGEST_BLOCK), at))
            if number >= _MOST_POINTERS or not _is_empty(data, order, base, at + 8):
                return True
    return False


def _is_empty(data: bytes, order: str, base: int, pointer: int) -> bool:
    """Whether this is certainly a directory of GPS tags without a position: cameras write them."""
    if data[base + 2 : base + 4] in _BIG:
        return False
    try:
        start = base + struct.unpack_from(f"{order}I", data, pointer)[0]
        (count,) = struct.unpack_from(f"{order}H", data, start)
        if count not in _GPS_TAGS:
            return False
        tags = {struct.unpack_from(f"{order}H", data, start + 2 + 12 * n)[0] for n in range(count)}
    except struct.error:
        return False
    return bool(tags) and tags.issubset(_GPS_TAGS) and tags.isdisjoint(_PLACES)


def _strip_jpeg(data: bytes, orientation: int) -> bytes | None:
    """None if the structure is unusual, as for the other formats."""
    kept, at = [data[:2]], 2
    if orientation != 1:
        block = b"Exif\0\0" + _exif(orientation)
        kept.append(b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block)
    for _ in range(_MOST_PARTS):
        if data[at : at + 2] == b"\xff\xd9":  # other pictures and videos may follow
            return b"".join([*kept, data[at : at + 2]])
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xDA:
            found = _NEXT_MARKER.search(data, end)
            if found is None:
                return None
            end = found.start()
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or data.startswith(_SEGMENTS.get(marker, ()), at + 4):
            kept.append(data[at:end])
        at = end
    return None


def _strip_png(data: bytes, orientation: int) -> bytes | None:
    kept = [data[:8]]
    for name, start, end in _png_chunks(data):
        if name in _PNG_CHUNKS or not name[0] & 0x20:  # critical
            kept.append(data[start:end])
        if name == b"IHDR" and orientation != 1:
            block = _exif(orientation)
            crc = zlib.crc32(b"eXIf" + block)
            kept.append(struct.pack(">I4s", len(block), b"eXIf") + block + struct.pack(">I", crc))
        if name == b"IEND":
            return b"".join(kept)
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The names, starts and ends of whole chunks."""
    at = 8
    for _ in range(_MOST_PARTS):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def _png_texts(data: bytes) -> Iterator[bytes]:
    """Texts that are compressed, hexadecimal ("Raw profile type exif" of ImageMagick) or both."""
    room = _MOST_TEXT
    for name, start, end in _png_chunks(data):
        if name not in (b"tEXt", b"zTXt", b"iTXt") or room <= 0:
            continue
        keyword, _, text = data[start + 8 : end - 4].partition(b"\0")
        if name == b"zTXt" or (name == b"iTXt" and text[:1] == b"\x01"):
            packed = text[1:] if name == b"zTXt" else text[2:].split(b"\0", 2)[-1]
            try:
                text = zlib.decompressobj().decompress(packed, room)
            except zlib.error:
                continue
            room -= len(text)
            yield text
        if keyword.startswith(b"Raw profile type"):
            digits = re.sub(rb"[^0-9A-Fa-f]", b"", text.split(b"\n", 3)[-1])
            yield bytes.fromhex(digits[: len(digits) // 2 * 2].decode())


def _strip_webp(data: bytes, orientation: int) -> bytes | None:
    kept, at = [b"WEBP"], 12
    for _ in range(_MOST_PARTS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        name, end = data[at : at + 4], at + 8 + size + size % 2
        if end > len(data):
            break
        chunk = data[at:end]
        if name == b"VP8X":
            flags = chunk[8] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if orientation != 1 else 0)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if name in _WEBP_CHUNKS:
            kept.append(chunk)
        at = end
    if at < len(data):
        return None
    if orientation != 1:
        block = _exif(orientation)
        kept.append(b"EXIF" + struct.pack("<I", len(block)) + block)
    body = b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _exif(orientation: int) -> bytes:
    """A block of EXIF that holds an orientation and nothing else."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
