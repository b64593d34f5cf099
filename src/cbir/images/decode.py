"""Decodes image files to RGB pixels, with limits on file size and pixels."""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import ImageError
from cbir.types import RgbImage

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

BYTE_LIMIT = 100_000_000
"""The maximum size of an image file, in bytes."""

PIXEL_LIMIT = 100_000_000
"""The maximum number of pixels of an image, checked before decoding."""

JPEG = "image/jpeg"
PNG = "image/png"
TIFF = "image/tiff"

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
    "image/jp2": ("JPEG 2000", "PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "image/x-portable-anymap": ("PNM", "PIL.PpmImagePlugin", "PpmImageFile"),
}

_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PNG),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "image/avif"),
    (re.compile(rb"....ftyp(mif1|msf1)....(....){0,8}?(avif|avis)", re.DOTALL), "image/avif"),
    (re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "image/heic"),
    # The header size distinguishes a bitmap from text that begins with "BM".
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "image/bmp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TIFF),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "image/jp2"),
    (re.compile(rb"P[1-6]\s"), "image/x-portable-anymap"),
)

_ORIENTATION = 0x0112
_TURNS = (
    *("", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"),
    *("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"),
)

_warnings_lock = threading.Lock()


def sniff(data: bytes) -> str | None:
    """The media type by the first bytes (64 suffice), None if the format is unknown."""
    if data[:3] == b"\xff\xd8\xff":
        return JPEG
    return next((kind for magic, kind in _MAGIC if magic.match(data)), None)


def decode(data: bytes) -> RgbImage:
    """Decode an image file to RGB, uint8 (height, width, 3); the array may be read-only.

    Detects the type from the bytes, applies EXIF orientation, composites transparency onto white,
    and uses the first frame of an animation. Scales to 8 bits: 16-bit values from their full range,
    floats from 0..1 or 0..255, and any other range from its minimum and maximum. Raises
    `ImageError` with a one-line reason: not an image, damaged, truncated, or more than
    `BYTE_LIMIT` bytes or `PIXEL_LIMIT` pixels.
    """
    kind = sniff(data)
    if kind is None:
        unknown = "not an image: unknown format"
        raise ImageError(unknown if data else "the file is empty")
    check_size(len(data))
    try:
        if kind == JPEG and b"Exif\0" not in data:
            image = _open(kind, data)
            if (
                image.mode == "RGB" and "xmp" not in image.info
            ):  # XMP may contain an orientation too
                return _array(image)
        return _decode_any(kind, data)
    except ImageError:
        raise
    except Exception as error:  # decoders may raise anything on malicious data
        raise ImageError(_reason(kind, error)) from error


def load_pixels(data: bytes | RgbImage) -> RgbImage:
    """RGB pixels from the result of a source item's `read`; decodes file bytes."""
    return decode(data) if isinstance(data, bytes) else data


def check_size(size: int) -> None:
    """Raise `ImageError` if a file of `size` bytes is too large to decode."""
    if size > BYTE_LIMIT:
        raise ImageError(f"{size / 1e6:,.0f} MB exceeds the limit of {BYTE_LIMIT / 1e6:,.0f} MB")


def decoder_name() -> str:
    """The decoders that determine the pixels, as in "Pillow 13.0.0, libjpeg-turbo 3.1.0"."""
    import PIL
    from PIL import features

    turbo = features.version("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__}, {jpeg}"


def _decode_any(kind: str, data: bytes) -> RgbImage:
    with _quietly():
        image: Image = _open(kind, data)
    # Only these two parse metadata while loading pixels, and may warn.
    talkative = kind == TIFF or (kind == PNG and b"acTL" in data)
    with _quietly() if talkative else nullcontext():
        image.load()
    with _quietly():
        turn = _turn(image)
    image = _rgb(image)
    if turn:
        from PIL.Image import Transpose

        image = image.transpose(Transpose[turn])
    return _array(image)


def _open(kind: str, data: bytes) -> ImageFile:
    """Read an image's header and check the number of pixels without decoding."""
    image = _reader(kind)(BytesIO(data))
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        limit = f"{PIXEL_LIMIT / 1e6:g} megapixels"
        raise ImageError(f"{width} x {height} pixels exceeds the limit of {limit}")
    return image


@cache
def _reader(kind: str) -> Callable[[BytesIO], ImageFile]:
    _, module, name = _READERS[kind]
    reader: Callable[[BytesIO], ImageFile] = getattr(import_module(module), name)
    return reader


def _array(image: Image) -> RgbImage:
    width, height = image.size
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(height, width, 3)


def _rgb(image: Image) -> Image:
    from PIL.Image import fromarray, new

    if image.mode.startswith("I;16"):
        return fromarray(_from_16_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        return fromarray(_from_any_range(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = new("RGB", layer.size, "white")
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounding to nearest."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _from_any_range(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit integers, floats in 0..1 or 0..255, or any other range to 0..255."""
    is_float = values.dtype.kind == "f"
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    natural = [1.0, 255.0] if is_float else [65535.0]
    top = next((top for top in natural if low >= 0 and high <= top), None)
    if top is None:
        finite, top = finite - low, (high - low) or 1.0
    return np.rint(finite * 255 / top).astype(np.uint8)


def _turn(image: Image) -> str:
    """The transposition named in EXIF (or XMP), "" for none."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - the pixels may be intact despite damaged EXIF
        return ""
    known = isinstance(orientation, int) and 1 <= orientation <= len(_TURNS)
    return _TURNS[orientation - 1] if known else ""


def _reason(kind: str, error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # Pillow raises these for truncated files, some of them as SyntaxError.
    ended = isinstance(error.__cause__ or error, (EOFError, IndexError, struct.error))
    if ended or re.search("truncat|end of file", text, re.IGNORECASE):
        return "image is truncated"
    return f"damaged or unsupported {_READERS[kind][0]} image: {text}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress Pillow's warnings about unusual metadata.

    Warning filters are global to the process, so a lock guards them. The block is short: it only
    parses headers and metadata, which holds the GIL anyway.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(PIL|pi_heif)\.")
        yield
