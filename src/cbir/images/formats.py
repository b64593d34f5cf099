"""The image formats: their media types, first bytes and readers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import IO, TYPE_CHECKING

from cbir.images.camera_raw import RAW, RAW_MAGIC

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

JPEG = "image/jpeg"
PNG = "image/png"
TIFF = "image/tiff"
JP2 = "image/jp2"
PNM = "image/x-portable-anymap"

# One class of Pillow (or a Pillow plugin) per type. Calling it directly is faster than Image.open,
# bypasses other plugins, and lets us set the pixel limit.
_READERS = {
    JPEG: ("JPEG", "PIL.JpegImagePlugin", "JpegImageFile"),
    PNG: ("PNG", "PIL.PngImagePlugin", "PngImageFile"),
    "image/gif": ("GIF", "PIL.GifImagePlugin", "GifImageFile"),
    "image/webp": ("WebP", "PIL.WebPImagePlugin", "WebPImageFile"),
    "image/avif": ("AVIF", "PIL.AvifImagePlugin", "AvifImageFile"),
    "image/heic": ("HEIC", "pi_heif", "HeifImageFile"),
    "image/bmp": ("BMP", "PIL.BmpImagePlugin", "BmpImageFile"),
    TIFF: ("TIFF", "PIL.TiffImagePlugin", "TiffImageFile"),
    JP2: ("JPEG 2000", "PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    PNM: ("PNM", "PIL.PpmImagePlugin", "PpmImageFile"),
    RAW: ("camera RAW", "PIL.TiffImagePlugin", "TiffImageFile"),
}

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])"  # between the numbers of a PNM header

_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (RAW_MAGIC, RAW),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PNG),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "image/avif"),
    (re.compile(rb"....ftyp(mif1|msf1)....(....){0,8}?(avif|avis)", re.DOTALL), "image/avif"),
    (re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "image/heic"),
    # The header size distinguishes a bitmap from text that begins with "BM".
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "image/bmp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TIFF),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), JP2),
    # Numbers must follow, else texts that begin with "P1 " would be images.
    (re.compile(rb"P1%b+\d+%b+\d+%b+[01]" % ((_GAP,) * 3)), PNM),
    (re.compile(rb"P4%b+\d+%b+\d+\s" % ((_GAP,) * 2)), PNM),
    (re.compile(rb"P[2356]%b+\d+%b+\d+%b+\d+\s" % ((_GAP,) * 3)), PNM),
)


def sniff(data: bytes) -> str | None:
    """The media type by the first bytes (256 suffice), None if the format is unknown."""
    if data[:3] == b"\xff\xd8\xff":
        return JPEG
    return next((kind for magic, kind in _MAGIC if magic.match(data)), None)


def name_of(kind: str) -> str:
    """The usual name of a media type, as in "JPEG 2000"."""
    return _READERS[kind][0]


@cache
def reader_of(kind: str) -> Callable[[IO[bytes]], ImageFile]:
    """The class that reads the header of a file of a media type, and later its pixels."""
    _, module, name = _READERS[kind]
    if kind in (TIFF, RAW):
        _silence_tiff()
    reader: Callable[[IO[bytes]], ImageFile] = getattr(import_module(module), name)
    return reader


def _silence_tiff() -> None:
    """Keep Pillow from printing to standard error: a logger without a handler prints.

    libtiff's own lines become part of `ImageError`, see `libtiff.error_lines`.
    """
    import logging

    logging.getLogger("PIL").addHandler(logging.NullHandler())
