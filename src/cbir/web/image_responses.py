"""Image bytes as safe HTTP responses: the type comes from the bytes and from a fixed list."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import quote, unquote

from flask import Request, Response

from cbir.images.thumbnails import media_type
from cbir.types import ImageRecord, RgbImage

_SHOWN = frozenset(
    {"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp"}
)
"""Types that every browser displays; others are downloads. None of them can hold a script."""

_FOREVER = 365 * 24 * 3600


def picture_response(request: Request, data: bytes, name: str, versioned: bool) -> Response:
    """`data` as a response that a browser displays, or downloads if it cannot display it.

    `name` is the file name of a download. `versioned`: the URL carries the content hash, so that
    browsers may cache the response for good; otherwise they revalidate it by its ETag.
    """
    kind = media_type(data)
    response = Response(data, mimetype=kind)
    disposition = "inline" if kind in _SHOWN else "attachment"
    response.headers["Content-Disposition"] = f"{disposition}; filename*=UTF-8''{quote(name)}"
    # No script in it runs, even if a browser treats it as a page.
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.cache_control.private = True
    if versioned:
        response.cache_control.max_age = _FOREVER
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)  # in place: 304 if the client has it
    return response


def png(pixels: RgbImage) -> bytes:
    """RGB pixels (height, width, 3) as a PNG file."""
    from PIL import Image

    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def file_name(location: str) -> str:
    """The readable file name at the end of a percent-encoded location."""
    return unquote(location.rsplit("/", 1)[-1])


def version_of(record: ImageRecord) -> str:
    """The part of the content hash that URLs carry, so that they change with the content."""
    return record.content_hash[:16]
