"""Which files of a folder or archive are taken for images, and which are passed over."""

from __future__ import annotations

from collections.abc import Callable

from cbir.images.decode import sniff

HEAD_SIZE = 64
"""Bytes of a file that `sniff` needs to see."""

_IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif"),
    *(".heic", ".heif", ".hif", ".bmp", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".jpf"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)


def has_image_suffix(name: str) -> bool:
    """Whether the extension of `name` is one of an image format that can be decoded."""
    return name.lower().endswith(_IMAGE_SUFFIXES)


def is_candidate(name: str, read_head: Callable[[], bytes]) -> bool:
    """Whether a file is to be read as an image: its extension says so, else its first bytes do.

    `read_head` returns the first `HEAD_SIZE` bytes; it is called only when the name is no help.
    """
    return has_image_suffix(name) or sniff(read_head()) is not None


def is_hidden(part: str) -> bool:
    """Whether one component of a path is a hidden file or folder (`.git`, `._photo.jpg`)."""
    return part.startswith(".") and part not in (".", "..")
