"""Decodes image files to sRGB pixels, with limits on file size and pixels."""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import IO, TYPE_CHECKING

import numpy as np

from cbir.errors import ImageError
from cbir.images.camera_raw import RAW, RAW_MAGIC, find_preview
from cbir.images.colours import is_srgb, to_srgb
from cbir.images.depths import as_black_is_zero, eight_bit
from cbir.images.jpeg_scans import has_every_scan
from cbir.types import RgbImage

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

BYTE_LIMIT = 100_000_000
"""The maximum size of an image file, in bytes; see `RAW_BYTE_LIMIT`."""

RAW_BYTE_LIMIT = 500_000_000
"""The maximum for a camera RAW file, of which only a preview is decoded."""

PIXEL_LIMIT = 100_000_000
"""The maximum number of pixels of an image, checked before decoding; see `JPEG_PIXEL_LIMIT`."""

JPEG_PIXEL_LIMIT = 250_000_000
"""The maximum for a JPEG, which is decoded at reduced scale beyond `PIXEL_LIMIT`."""

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

_ORIENTATION = 0x0112
_TURNS = (
    *("", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"),
    *("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"),
)

# Marks of a profile, transparency or animation; formats without them have to be opened.
_UNUSUAL = {JPEG: (b"ICC_PROFILE\0",), PNG: (b"iCCP", b"tRNS", b"acTL")}
_PNG_ALPHA = 4  # the least colour type with an alpha channel

_END = b"\xff\xd9"  # of a JPEG
_FAINT = 16  # grey levels

_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Decoded:
    """RGB pixels, uint8 (height, width, 3), perhaps read-only; the width and height of the picture.

    `pixels` have another size if a JPEG was decoded at reduced scale. `notes`: one line each about
    what was unusual and is no failure.
    """

    pixels: RgbImage
    width: int
    height: int
    notes: tuple[str, ...] = ()


def sniff(data: bytes) -> str | None:
    """The media type by the first bytes (256 suffice), None if the format is unknown."""
    if data[:3] == b"\xff\xd8\xff":
        return JPEG
    return next((kind for magic, kind in _MAGIC if magic.match(data)), None)


def decode(data: bytes) -> RgbImage:
    """The pixels of an image file, see `decode_file`."""
    return decode_file(data).pixels


def decode_file(data: bytes, max_pixels: int | None = None, side: int | None = None) -> Decoded:
    """Decode an image file to sRGB.

    Detects the type from the bytes, applies EXIF orientation, converts colours by the embedded ICC
    profile, scales grey values of other depths (see `depths.eight_bit`), and uses the first frame
    of an animation and the largest preview of a camera RAW file. Transparency is composited onto
    white, or onto black if what is drawn differs from white by less than 16 grey levels (root mean
    square, weighted by opacity). A JPEG that lacks only its end marker is decoded, with a note. A
    JPEG of more than `PIXEL_LIMIT` pixels is decoded at 1/2, 1/4 or 1/8 of its size. So is any JPEG
    whose longest side remains at least `side`, if that is given.

    Raises `ImageError` with a one-line reason: not an image, damaged, truncated, more than
    `BYTE_LIMIT` bytes, or more than `max_pixels` pixels (by default `PIXEL_LIMIT`; for a JPEG
    `JPEG_PIXEL_LIMIT`).
    """
    kind = sniff(data)
    if kind is None:
        unknown = "not an image: unknown format"
        raise ImageError(unknown if data else "the file is empty")
    try:
        preview = find_preview(data) if kind in (TIFF, RAW) else None
        check_size(len(data), RAW_BYTE_LIMIT if preview else BYTE_LIMIT)
        if preview is None:
            return _decode(kind, data, max_pixels, side)
        form = sniff(preview.data) or RAW
        return _decode(form, preview.data, max_pixels, side, preview.orientation)
    except ImageError:
        raise
    except Exception as error:  # decoders may raise anything on malicious data
        raise ImageError(_reason(kind, error)) from error


def is_plain(data: bytes) -> bool:
    """Whether every viewer shows a (valid) file as `decode` does: one opaque frame in sRGB."""
    kind = sniff(data)
    if kind is None:
        return False
    if kind in _UNUSUAL and not any(mark in data for mark in _UNUSUAL[kind]):
        return kind == JPEG or data[25] < _PNG_ALPHA
    with quietly():
        image = open_header(kind, BytesIO(data))
        return not (
            getattr(image, "is_animated", False)
            or image.has_transparency_data
            or not is_srgb(image.info.get("icc_profile"), image.mode)
        )


def pixels_of_image(image: Image) -> RgbImage:
    """The RGB pixels of a `PIL.Image`, by the rules of `decode`; raises `ImageError`."""
    _check_pixels(*image.size, PIXEL_LIMIT)
    if 0 in image.size:
        raise ImageError("the image has no pixels")
    try:
        return _upright(image)
    except Exception as error:  # an image that was opened lazily is only now decoded
        raise ImageError(f"the image cannot be read: {error}") from error


def load_pixels(data: bytes | RgbImage) -> RgbImage:
    """RGB pixels from the result of a source item's `read`; decodes file bytes."""
    return decode(data) if isinstance(data, bytes) else data


def check_size(size: int, limit: int | None = None) -> None:
    """Raise `ImageError` if a file of `size` bytes exceeds `limit` (by default `BYTE_LIMIT`)."""
    limit = limit or BYTE_LIMIT
    if size > limit:
        raise ImageError(f"{size / 1e6:,.0f} MB exceeds the limit of {limit / 1e6:,.0f} MB")


def decoder_name() -> str:
    """The decoders that determine the pixels, as in "Pillow 13.0.0, libjpeg-turbo 3.1.0"."""
    import PIL
    from PIL import features

    turbo = features.version("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__}, {jpeg}"


def _decode(
    kind: str, data: bytes, max_pixels: int | None, side: int | None, orientation: int = 1
) -> Decoded:
    """Decode a file that is no camera RAW; `orientation`: EXIF's, if the file has none itself."""
    try:
        return _decode_whole(kind, data, max_pixels, side, orientation)
    except SyntaxError:  # Pillow's, for a pixel mode that it does not know
        black_is_zero = as_black_is_zero(data) if kind == TIFF else None
        if black_is_zero is None:
            raise
        inverted = _decode_whole(kind, black_is_zero, max_pixels, side, orientation)
        return replace(inverted, pixels=255 - inverted.pixels)
    except OSError as error:
        if kind != JPEG or "truncated" not in str(error) or not has_every_scan(data):
            raise
        body = data.rstrip(b"\xff")
        found = _decode_whole(kind, body + _END, max_pixels, side, orientation)
        # Missing data are replaced without a word. So bits are appended before the end marker: if
        # pixels are missing they become pixels, and different bits give different ones.
        for bits in (b"\x55", b"\xaa"):
            other = _decode_whole(kind, body + bits * 64 + _END, max_pixels, side, orientation)
            if not np.array_equal(found.pixels, other.pixels):
                raise
    note = "the end marker of the JPEG is missing; every pixel is there"
    return replace(found, notes=(note, *found.notes))


def _decode_whole(
    kind: str, data: bytes, max_pixels: int | None, side: int | None, orientation: int
) -> Decoded:
    plain = kind == JPEG and orientation == 1 and b"Exif\0" not in data
    with nullcontext() if plain else quietly():
        image: Image = open_header(kind, BytesIO(data))
    width, height = image.size
    scale = _reduced(kind, image, max_pixels, side)
    # XMP may contain an orientation, too.
    if plain and image.mode == "RGB" and "xmp" not in image.info:
        pixels = _array(to_srgb(image, image.info.get("icc_profile")))
    else:
        # Only these two parse metadata while loading pixels, and may warn.
        talkative = kind == TIFF or (kind == PNG and b"acTL" in data)
        with quietly() if talkative else nullcontext():
            image.load()
        pixels = _upright(image, orientation)
    if scale == 1:
        return Decoded(pixels, pixels.shape[1], pixels.shape[0])
    if (width < height) != (pixels.shape[1] < pixels.shape[0]):
        width, height = height, width
    return Decoded(
        pixels, width, height, (f"{width} x {height} pixels, decoded at 1/{scale} size",)
    )


def _upright(image: Image, orientation: int = 1) -> RgbImage:
    """The RGB pixels of a loaded image, colours and EXIF orientation applied."""
    with quietly():
        turn = _turn(image, orientation)
    image = _rgb(image, image.info.get("icc_profile"))
    if turn:
        from PIL.Image import Transpose

        image = image.transpose(Transpose[turn])
    return _array(image)


def open_header(kind: str, file: IO[bytes]) -> ImageFile:
    """Read an image's header without decoding; may warn, and raise anything on damaged data."""
    image = _reader(kind)(file)
    if kind == JP2:  # Pillow does not read the profile
        file.seek(0)
        head = file.read(2**16)
        start = head.find(b"colr\2", 0, head.find(b"jp2c"))
        if start > 0:
            end = start - 4 + int.from_bytes(head[start - 4 : start], "big")
            image.info["icc_profile"] = head[start + 7 : end]
    return image


def _reduced(kind: str, image: Image, max_pixels: int | None, side: int | None) -> int:
    """Check the number of pixels and make a JPEG decode at 1/scale; returns the scale."""
    width, height = image.size
    limit = max_pixels or (JPEG_PIXEL_LIMIT if kind == JPEG else PIXEL_LIMIT)
    _check_pixels(width, height, limit)
    if kind != JPEG:
        return 1
    scale = next((s for s in (1, 2, 4) if width * height <= PIXEL_LIMIT * s * s), 8)
    if side is not None:
        scale = max(scale, next((s for s in (8, 4, 2) if max(width, height) >= side * s), 1))
    if scale > 1:
        image.draft(None, (width // scale, height // scale))
    return scale


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise ImageError(
            f"{width} x {height} pixels exceeds the limit of {limit / 1e6:g} megapixels",
            f"make it smaller, or index it with --max-pixels {width * height}",
        )


@cache
def _reader(kind: str) -> Callable[[IO[bytes]], ImageFile]:
    _, module, name = _READERS[kind]
    if kind == TIFF:
        _silence_tiff()
    reader: Callable[[IO[bytes]], ImageFile] = getattr(import_module(module), name)
    return reader


def _silence_tiff() -> None:
    """Keep libtiff and Pillow from printing to standard error: their lines name no file.

    The reasons of `ImageError` do. Pillow has no setting for libtiff's lines, so this calls the
    libtiff that it has loaded; where that is not possible (Windows), they are still printed.
    """
    import ctypes
    import logging

    from PIL import _imaging

    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    # A logger without a handler prints, too.
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _array(image: Image) -> RgbImage:
    width, height = image.size
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(height, width, 3)


def _rgb(image: Image, profile: bytes | None) -> Image:
    image = eight_bit(image)
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        return _on_background(to_srgb(image.convert("LA" if grey else "RGBA"), profile))
    return to_srgb(image.convert("L") if image.mode == "1" else image, profile)


def _on_background(layer: Image) -> Image:
    """An RGBA layer on white, or on black if it would hardly be seen on white."""
    from PIL.Image import new

    alpha = layer.getchannel("A")
    colours = layer.convert("RGB")
    if alpha.getextrema()[0] == 255:
        return colours
    ground = new("RGB", layer.size, "black" if _is_faint(np.asarray(layer)) else "white")
    ground.paste(colours, mask=alpha)
    return ground


def _is_faint(layer: RgbImage) -> bool:
    """Whether what is drawn differs from white by less than `_FAINT`; the sample is large."""
    step = max(1, int((layer.shape[0] * layer.shape[1] / 1e6) ** 0.5))
    sample = layer[::step, ::step].reshape(-1, 4).astype(np.float32)
    opacity = sample[:, 3]
    squares = np.square(255 - sample[:, :3]).mean(axis=1)
    return bool((squares * opacity).sum() < _FAINT**2 * opacity.sum())  # nothing drawn: not faint


def _turn(image: Image, otherwise: int) -> str:
    """The transposition named in EXIF (or XMP), else that of `otherwise`; "" for none."""
    try:
        orientation = image.getexif().get(_ORIENTATION, otherwise)
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
def quietly() -> Iterator[None]:
    """Suppress Pillow's warnings about unusual metadata.

    Warning filters are global to the process, so a lock guards them. The block is short: it only
    parses headers and metadata, which holds the GIL anyway.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(PIL|pi_heif)\.")
        yield
