"""Decodes image files to sRGB pixels, with limits on file size and pixels."""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from io import BytesIO
from math import inf
from typing import IO, TYPE_CHECKING

import numpy as np

from cbir.errors import CbirError, ImageError
from cbir.images.camera_raw import RAW, find_preview
from cbir.images.colours import is_srgb
from cbir.images.costs import cost_of, has_large_tags, is_intricate
from cbir.images.decoding_process import Decoded, Task, decode_in_process
from cbir.images.depths import as_black_is_zero
from cbir.images.formats import JP2, JPEG, PNG, TIFF, name_of, reader_of, sniff
from cbir.images.jpeg_scans import has_every_scan
from cbir.images.large_webp import is_large_webp, still_webp
from cbir.images.libtiff import error_lines
from cbir.images.limits import DEFAULT, UNKNOWN, Limits, decoding_room
from cbir.images.named_profiles import ADOBE_RGB, named_profile
from cbir.images.rgb import TURNS, rgb_pixels
from cbir.machine import is_out_of_memory
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

_ORIENTATION = 0x0112

# Marks of a colour space, transparency or animation; formats without them have to be opened.
_UNUSUAL = {
    JPEG: (b"ICC_PROFILE\0", ADOBE_RGB),
    PNG: (b"iCCP", b"cICP", b"gAMA", b"tRNS", b"acTL"),
}
_PNG_ALPHA = 4  # the least colour type with an alpha channel

_END = b"\xff\xd9"  # of a JPEG
_TINY = 2**16  # pixels, and bytes

_warnings_lock = threading.Lock()


def decode(data: bytes) -> RgbImage:
    """The pixels of an image file, see `decode_file`."""
    return decode_file(data).pixels


def decode_file(data: bytes, limits: Limits = DEFAULT) -> Decoded:
    """Decode an image file to sRGB.

    Detects the type from the bytes, applies EXIF orientation, converts colours by the ICC profile
    or what takes its place (see `named_profile`), scales grey values of other depths (see
    `depths.grey_scale`), and uses the first frame of an animation and the largest preview of a
    camera RAW file. Transparency is composited onto white, or onto black if what is drawn differs
    from white by less than 16 grey levels (root mean square, weighted by opacity). A JPEG that
    lacks only its end marker is decoded, with a note, and so is a TIFF of which libtiff reports an
    error but no failure. A JPEG of more than `PIXEL_LIMIT` pixels is decoded at 1/2, 1/4 or 1/8 of
    its size; see also `limits.side`. A picture that may take long is decoded in a process of its
    own, which is ended after `limits.seconds`.

    Raises `ImageError` with a one-line reason: not an image, damaged, truncated, more than
    `BYTE_LIMIT` bytes, more than `limits.pixels` pixels (by default `PIXEL_LIMIT`; for a JPEG
    `JPEG_PIXEL_LIMIT`), or beyond another limit (`limits`, `costs.MOST_SCANS`). Raises
    `MemoryError` if the machine lacks the memory.
    """
    kind = sniff(data)
    if kind is None:
        unknown = "not an image: unknown format"
        raise ImageError(unknown if data else "the file is empty")
    try:
        preview = find_preview(data) if kind in (TIFF, RAW) else None
        check_size(len(data), RAW_BYTE_LIMIT if preview else BYTE_LIMIT)
        if preview is None:
            return _decode(kind, data, limits)
        form = sniff(preview.data) or RAW
        return _decode(form, preview.data, limits, preview.orientation)
    except (CbirError, MemoryError):
        raise
    except Exception as error:  # decoders may raise anything on malicious data
        raise _named(kind, error) from error


def decode_form(kind: str, data: bytes, limits: Limits, orientation: int) -> Decoded:
    """Decode a file of a known type that is no camera RAW; otherwise like `decode_file`.

    `orientation`: EXIF's, if the file has none itself.
    """
    try:
        return _decode(kind, data, limits, orientation)
    except (CbirError, MemoryError):
        raise
    except Exception as error:
        raise _named(kind, error) from error


def _named(kind: str, error: Exception) -> Exception:
    """What a decoder has raised, as `ImageError` or `MemoryError`."""
    return MemoryError() if is_out_of_memory(error) else ImageError(_reason(kind, error))


def is_plain(data: bytes) -> bool:
    """Whether every viewer shows a file as `decode` does: one opaque frame in sRGB, undamaged."""
    kind = sniff(data)
    if kind is None:
        return False
    if kind in _UNUSUAL and not any(mark in data for mark in _UNUSUAL[kind]):
        return kind == JPEG or data[25] < _PNG_ALPHA
    try:
        with quietly():
            image = open_header(kind, BytesIO(data))
            return not (
                getattr(image, "is_animated", False)
                or image.has_transparency_data
                or not is_srgb(image.info.get("icc_profile"), image.mode)
            )
    except Exception as error:  # a GIF may be damaged after its first frame
        if is_out_of_memory(error):
            raise
        return False


def pixels_of_image(image: Image) -> RgbImage:
    """The RGB pixels of a `PIL.Image`, by the rules of `decode`; raises `ImageError`."""
    _check_pixels(*image.size, PIXEL_LIMIT)
    if 0 in image.size:
        raise ImageError("the image has no pixels")
    try:
        with _hearing_libtiff():  # an image that was opened lazily is only now decoded
            with quietly():
                profile = named_profile(image)
            if profile:
                image = image.copy()
                image.info["icc_profile"] = profile
            return _upright(image)
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"the image cannot be read: {_with_notes(error, str(error))}") from error


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


def _decode(kind: str, data: bytes, limits: Limits, orientation: int = 1) -> Decoded:
    if kind not in (TIFF, RAW):
        return _mended(kind, data, limits, orientation)
    with _hearing_libtiff() as lines:
        found = _mended(kind, data, limits, orientation)
    if not lines:
        return found
    # libtiff fills in what it cannot read of a fax.
    note = f"some pixels may be wrong (libtiff: {lines[0]})"
    return replace(found, notes=(*found.notes, note))


@contextmanager
def _hearing_libtiff() -> Iterator[list[str]]:
    """libtiff's error lines. An exception takes the first one along, as a note (PEP 678)."""
    with error_lines() as lines:
        try:
            yield lines
        except Exception as error:
            if lines:
                error.add_note(f"libtiff: {lines[0]}")
            raise


def _mended(kind: str, data: bytes, limits: Limits, orientation: int) -> Decoded:
    try:
        return _decode_whole(kind, data, limits, orientation)
    except SyntaxError:  # Pillow's, for a pixel mode that it does not know
        black_is_zero = as_black_is_zero(data) if kind == TIFF else None
        if black_is_zero is None:
            raise
        inverted = _decode_whole(kind, black_is_zero, limits, orientation)
        return replace(inverted, pixels=255 - inverted.pixels)
    except OSError as error:
        if kind != JPEG or "truncated" not in str(error) or not has_every_scan(data):
            raise
        body = data.rstrip(b"\xff")
        found = _decode_whole(kind, body + _END, limits, orientation)
        # Missing data are replaced without a word. So bits are appended before the end marker: if
        # pixels are missing they become pixels, and different bits give different ones.
        for bits in (b"\x55", b"\xaa"):
            other = _decode_whole(kind, body + bits * 64 + _END, limits, orientation)
            if not np.array_equal(found.pixels, other.pixels):
                raise
    note = "the end marker of the JPEG is missing; every pixel is there"
    return replace(found, notes=(note, *found.notes))


def _decode_whole(kind: str, data: bytes, limits: Limits, orientation: int) -> Decoded:
    task = Task(kind, limits.pixels, limits.side, orientation)
    if limits.seconds != inf and is_intricate(kind, data):
        with decoding_room(UNKNOWN, limits):
            return decode_in_process(task, data, limits)
    plain = kind == JPEG and orientation == 1 and b"Exif\0" not in data
    with nullcontext() if plain else quietly():
        image = open_header(kind, BytesIO(data))
    width, height = image.size
    scale = _reduced(kind, image, limits)
    # Whatever a tiny file holds, it takes little.
    if scale == 1 and width * height <= _TINY and len(data) <= _TINY:
        pixels = _loaded(kind, image, plain, data, orientation)
        return Decoded(pixels, pixels.shape[1], pixels.shape[0])
    cost = cost_of(kind, image, data, width * height)
    with decoding_room(cost.memory, limits):
        if cost.seconds > limits.in_process:
            return decode_in_process(task, data, limits)
        try:
            pixels = _loaded(kind, image, plain, data, orientation)
        except Exception:
            _require(cost.memory)  # some decoders do not say why they fail
            raise
    if scale == 1:
        return Decoded(pixels, pixels.shape[1], pixels.shape[0])
    if (width < height) != (pixels.shape[1] < pixels.shape[0]):
        width, height = height, width
    return Decoded(
        pixels, width, height, (f"{width} x {height} pixels, decoded at 1/{scale} size",)
    )


def _loaded(kind: str, image: Image, plain: bool, data: bytes, orientation: int) -> RgbImage:
    if is_large_webp(image, data):
        image = still_webp(image, data)
    # XMP may contain an orientation, too.
    if plain and image.mode == "RGB" and "xmp" not in image.info:
        return rgb_pixels(image, "")
    # Only these two parse metadata while loading pixels, and may warn.
    talkative = kind == TIFF or (kind == PNG and b"acTL" in data)
    with quietly() if talkative else nullcontext():
        image.load()
    return _upright(image, orientation)


def _require(size: int) -> None:
    """Raise `MemoryError` if as many bytes cannot be allocated."""
    np.empty(size, np.uint8)


def _upright(image: Image, orientation: int = 1) -> RgbImage:
    """The RGB pixels of a loaded image, colours and EXIF orientation applied."""
    with quietly():
        turn = _turn(image, orientation)
    return rgb_pixels(image, turn)


def open_header(kind: str, file: IO[bytes]) -> ImageFile:
    """Read an image's header without decoding; may warn, and raise anything on damaged data.

    `info["icc_profile"]` is the profile of the pixels, also if the file names it in another way.
    """
    image = reader_of(kind)(file)
    if kind == JP2:  # Pillow does not read the profile
        file.seek(0)
        head = file.read(2**16)
        start = head.find(b"colr\2", 0, head.find(b"jp2c"))
        if start > 0:
            end = start - 4 + int.from_bytes(head[start - 4 : start], "big")
            image.info["icc_profile"] = head[start + 7 : end]
    profile = named_profile(image, file)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _reduced(kind: str, image: Image, limits: Limits) -> int:
    """Check the number of pixels and make a JPEG decode at 1/scale; returns the scale."""
    width, height = image.size
    most = limits.pixels or (JPEG_PIXEL_LIMIT if kind == JPEG else PIXEL_LIMIT)
    _check_pixels(width, height, most)
    if kind != JPEG:
        return 1
    scale = next((s for s in (1, 2, 4) if width * height <= PIXEL_LIMIT * s * s), 8)
    if limits.side is not None:
        longest = max(width, height)
        scale = max(scale, next((s for s in (8, 4, 2) if longest >= limits.side * s), 1))
    if scale > 1:
        image.draft(None, (width // scale, height // scale))
    return scale


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise ImageError(
            f"{width} x {height} pixels exceeds the limit of {limit / 1e6:g} megapixels",
            f"make it smaller; cbir index reads it with --max-pixels {width * height}",
        )


def _turn(image: Image, otherwise: int) -> str:
    """The transposition named in EXIF (or XMP), else that of `otherwise`; "" for none."""
    try:
        if has_large_tags(image):
            return ""
        orientation = image.getexif().get(_ORIENTATION, otherwise)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the pixels may be intact despite damaged EXIF
        return ""
    known = isinstance(orientation, int) and 1 <= orientation <= len(TURNS)
    return TURNS[orientation - 1] if known else ""


def _reason(kind: str, error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # Pillow raises these for truncated files, some of them as SyntaxError.
    ended = isinstance(error.__cause__ or error, (EOFError, IndexError, struct.error))
    if ended or re.search("truncat|end of file", text, re.IGNORECASE):
        return "image is truncated"
    return f"damaged or unsupported {name_of(kind)} image: {_with_notes(error, text)}"


def _with_notes(error: Exception, text: str) -> str:
    """`text`, and in brackets what libtiff says about it."""
    notes = ", ".join(getattr(error, "__notes__", ()))
    return f"{text} ({notes})" if notes else text


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress Pillow's warnings about unusual metadata.

    Warning filters are global to the process, so a lock guards them. The block is short: it only
    parses headers and metadata, which holds the GIL anyway.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(PIL|pi_heif)\.")
        yield
