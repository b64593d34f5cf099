"""Thumbnails: the small image stored with every record."""

from __future__ import annotations

import base64
from io import BytesIO

from cbir.images.decode import is_plain
from cbir.images.formats import sniff
from cbir.types import RgbImage

MAX_OWN_BYTES = 8192
"""A file up to this size, in a format that browsers display, is its own thumbnail."""

MAX_SIDE = 256
JPEG_QUALITY = 85

_WEB_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_LOSSLESS_SIDE = 64


def thumbnail(data: bytes | None, image: RgbImage) -> bytes:
    """Encode a thumbnail of at most 256 x 256 pixels.

    `data` is the file's bytes, None if there is no file; `image` holds its pixels. Returns a small
    file unchanged if it is in a web format, has at most 256 x 256 pixels, and shows the pixels of
    `image` in every viewer (one opaque frame in sRGB); a (lossless) PNG for up to 64 x 64 pixels
    without a file; and a JPEG of quality 85 (sRGB) for everything else.
    """
    if data is not None and _is_own_thumbnail(data, image):
        return data
    from PIL import Image

    picture = Image.fromarray(image)
    target = BytesIO()
    if data is None and max(picture.size) <= _LOSSLESS_SIDE:
        picture.save(target, "PNG", compress_level=1)
        return target.getvalue()
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    picture.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def _is_own_thumbnail(data: bytes, image: RgbImage) -> bool:
    small = len(data) <= MAX_OWN_BYTES and max(image.shape) <= MAX_SIDE
    return small and sniff(data) in _WEB_TYPES and is_plain(data)


def media_type(thumbnail: bytes) -> str:
    """The media type of an encoded image, `application/octet-stream` if unknown."""
    return sniff(thumbnail) or "application/octet-stream"


def data_uri(data: bytes) -> str:
    """A thumbnail as a `data:` URI."""
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode()}"
