"""Which pictures a newer decoder reads differently, so that an index describes only those again."""

from __future__ import annotations

from typing import IO

from cbir.images.camera_raw import RAW, find_preview
from cbir.images.colours import is_srgb
from cbir.images.decode import JPEG, TIFF, open_header, quietly, sniff
from cbir.images.depths import is_deep

RULES = 1
"""Counts changes of `decode` that change pixels.

0: before they were counted. 1: ICC profiles, 12-bit, signed, 32-bit and inverted greys, black
behind white drawings, previews of camera RAW files, JPEGs without an end marker.
"""


def reads_differently(file: IO[bytes], rules: int) -> bool:
    """Whether the pixels of an image file may have changed since version `rules` of the decoder.

    `file` is open and seekable (`BytesIO(data)` for bytes); only headers are read, and all of a
    TIFF file. May be wrong in one direction only: True for a picture that did not change.
    """
    if rules >= RULES:
        return False
    kind = sniff(file.read(256))
    if kind is None or kind == RAW:
        return True
    try:
        if kind == TIFF and _is_raw(file):
            return True
        file.seek(0)
        with quietly():
            image = open_header(kind, file)
            return (
                image.has_transparency_data
                or (is_deep(image) and kind == TIFF)
                or not is_srgb(image.info.get("icc_profile"), image.mode)
                or (kind == JPEG and not _has_end(file))
            )
    except Exception:  # noqa: BLE001 - decoding it again will say what is wrong
        return True


def _is_raw(file: IO[bytes]) -> bool:
    file.seek(0)
    return find_preview(file.read()) is not None


def _has_end(file: IO[bytes]) -> bool:
    file.seek(-2, 2)
    return file.read() == b"\xff\xd9"
