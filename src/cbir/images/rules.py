"""Which pictures a newer decoder reads differently, so that an index describes only those again."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from cbir.images.camera_raw import RAW, find_preview
from cbir.images.colours import is_srgb
from cbir.images.decode import open_header, quietly
from cbir.images.depths import is_deep
from cbir.images.formats import JPEG, TIFF, sniff
from cbir.images.named_profiles import ADOBE_RGB, is_named

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

RULES = 2
"""Counts changes of `decode` that change pixels.

0: before they were counted. 1: ICC profiles, 12-bit, signed, 32-bit and inverted greys, black
behind white drawings, previews of camera RAW files, JPEGs without an end marker. 2: colour spaces
that are named without an ICC profile (chunks of PNG, nclx, EXIF).
"""


def reads_differently(file: IO[bytes], rules: int) -> bool:
    """Whether the pixels of an image file may have changed since version `rules` of the decoder.

    `file` is open and seekable (`BytesIO(data)` for bytes); only headers are read, and all of a
    TIFF file. May be wrong in one direction only: True for a picture that did not change.
    """
    if rules >= RULES:
        return False
    kind = sniff(file.read(256))
    if kind is None:
        return rules < 1
    try:
        if kind == RAW or (kind == TIFF and _is_raw(file)):
            return rules < 1 or _previews_may_be_adobe_rgb(file)
        file.seek(0)
        with quietly():
            image = open_header(kind, file)
            return is_named(image.info.get("icc_profile")) or (
                rules < 1 and _changed_in_1(kind, image, file)
            )
    except Exception:  # noqa: BLE001 - decoding it again will say what is wrong
        return True


def _changed_in_1(kind: str, image: ImageFile, file: IO[bytes]) -> bool:
    return (
        image.has_transparency_data
        or (is_deep(image) and kind == TIFF)
        or not is_srgb(image.info.get("icc_profile"), image.mode)
        or (kind == JPEG and not _has_end(file))
    )


def _is_raw(file: IO[bytes]) -> bool:
    file.seek(0)
    return find_preview(file.read()) is not None


def _previews_may_be_adobe_rgb(file: IO[bytes]) -> bool:
    file.seek(0)
    return ADOBE_RGB in file.read()


def _has_end(file: IO[bytes]) -> bool:
    file.seek(-2, 2)
    return file.read() == b"\xff\xd9"
