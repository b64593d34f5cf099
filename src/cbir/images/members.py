"""Folder and archive members: which ones are images, their keys and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from cbir.errors import ImageError
from cbir.images.camera_raw import RAW_SUFFIXES
from cbir.images.formats import sniff
from cbir.images.ids import decode_path, encode_path

HEAD_SIZE = 256
"""The number of bytes that `sniff` needs."""

MOST_NAME_BYTES, MOST_FOLDERS = 4096, 256
"""The longest path in an archive, and the most folders in it."""

_SHOWN_NAME = 200

ARCHIVE_SUFFIXES = (
    *(".zip", ".tar", ".tgz", ".txz", ".tbz", ".tbz2", ".tzst"),
    *(".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst"),
)
_IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif"),
    *(".heic", ".heif", ".hif", ".bmp", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".jpf"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
    *RAW_SUFFIXES,
)


def has_image_suffix(name: str) -> bool:
    """Whether `name` has the extension of an image format that can be decoded."""
    return name.lower().endswith(_IMAGE_SUFFIXES)


def is_candidate(name: str, read_head: Callable[[], bytes]) -> bool:
    """Whether to read a file as an image: by its extension, else by its first bytes.

    `read_head` returns the first `HEAD_SIZE` bytes; called only if the name is inconclusive.
    """
    return has_image_suffix(name) or sniff(read_head()) is not None


def extension(name: str) -> str:
    """The extension of a file that is no image, to count it by: ".pdf", "" if it has none."""
    return Path(name).suffix.lower()


def is_hidden(part: str) -> bool:
    """Whether a path component is a hidden file or folder (`.git`, `._photo.jpg`)."""
    return part.startswith(".") and part not in (".", "..")


@lru_cache(maxsize=8)  # asked for once a member
def archive_name(path: Path) -> str:
    """The source name of an archive: its file name without the extension, encoded.

    The whole file name if the rest is no name: a browser cannot fetch an id that begins with `../`.
    """
    fits = [suffix for suffix in ARCHIVE_SUFFIXES if path.name.lower().endswith(suffix)]
    longest = max((len(suffix) for suffix in fits), default=0)
    name = path.name[: len(path.name) - longest]
    return encode_path(path.name if name in ("", ".", "..") else name)


def member_key(parts: Iterable[str]) -> str:
    """The key of the archive member that is unpacked to the path `parts`."""
    return "/".join(map(encode_path, parts))


def is_too_long(name: str) -> bool:
    """Whether the path of an archive member is longer than any that is read."""
    size = len(name.encode("utf-8", "surrogateescape"))
    return size > MOST_NAME_BYTES or name.count("/") > MOST_FOLDERS


def cut_key(key: str, place: int) -> str:
    """A key for the member at `place` of an archive, whose own is too long."""
    return f"{key[:_SHOWN_NAME].replace('/', '_').lstrip('.')}~{place}"


def refuse_long_name() -> bytes:
    """The `read` of a member whose name is too long."""
    raise ImageError(
        f"its path in the archive has more than {MOST_NAME_BYTES:,} bytes or {MOST_FOLDERS} folders"
    )


def is_hidden_key(key: str) -> bool:
    """Whether the file at `key` or a folder above it is hidden."""
    return any(is_hidden(part) for part in key.split("/"))


def label_of(key: str, source: str) -> str | None:
    """The name of the folder that contains `key`; the `source` name at the top level.

    So unpacking an archive changes no labels, and each id contains its label.
    """
    folder = f"{source}/{key}".rpartition("/")[0].rpartition("/")[2]
    return decode_path(folder).decode("utf-8", "replace") or None
