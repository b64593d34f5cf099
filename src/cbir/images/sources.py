"""Opens image sources by name: a folder, zip, tar, `cifar10:train|test`, `digits:train|test`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cbir.errors import CbirError
from cbir.files import open_file, special_kind
from cbir.images import cifar10, digits
from cbir.images.excludes import ArchiveMembers, Excludes, excludes
from cbir.images.folders import FolderSource, is_index
from cbir.images.formats import sniff
from cbir.images.ids import decode_path
from cbir.images.items import ImageSource
from cbir.images.members import ARCHIVE_SUFFIXES, HEAD_SIZE, has_image_suffix
from cbir.images.tar_members import is_tar
from cbir.images.tars import TarSource
from cbir.images.zips import ZipSource
from cbir.wording import did_you_mean

_BUILTIN: dict[str, Callable[[str | None], ImageSource]] = {
    "cifar10": cifar10.open_split,
    "digits": digits.open_split,
}
_SPLITS = ("train", "test")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def open_source(
    text: str, label_from_folder: bool = False, rules: Excludes | None = None
) -> ImageSource:
    """Open the source named `text`: a built-in set, or the path of a folder, archive or image.

    Reads nothing yet, but raises `CbirError` immediately for a missing path or an unknown file
    type. A single image file is a source with one item of its folder, so it has the same id as when
    the whole folder is indexed. `label_from_folder` labels each item with its folder's name, or
    with the archive's name at the top level of an archive (CIFAR-10 and digits always have labels).
    `rules`: what to leave out of folders and archives, by default `images.excludes.excludes()`.
    Write `./cifar10:train` for a file or folder named like a built-in set.
    """
    name, _, split = text.partition(":")
    if name in _BUILTIN:
        if split not in _SPLITS:
            raise CbirError(f"unknown source '{text}'", _hint(text))
        return _BUILTIN[name](split)
    if not text:  # for example an unset shell variable; must not mean the current folder
        raise CbirError("the source name is empty", "give a folder, an archive or an image")
    path = Path(text)
    try:
        if "\0" in text:
            raise ValueError("it contains a NUL")
        if not path.exists():
            raise CbirError(f"{text}: no such file or folder", _hint(text))
        path = path.resolve()
    except (OSError, ValueError) as error:  # no permission, too long, a NUL
        raise CbirError(f"{text!r}: cannot be opened: {error}") from error
    _check_utf8(path)
    if path.is_dir():
        if is_index(str(path)):
            raise CbirError(f"{text} is an index, not a source of images", "give the image folder")
        return FolderSource(path, label_from_folder, rules=rules or excludes())
    source = _open_file(path, label_from_folder)
    if isinstance(source, FolderSource):  # a file that is named is wanted
        return source
    return ArchiveMembers(source, rules or excludes())


def source_for_uri(uri: str) -> ImageSource:
    """Open the source registered under `uri` to read originals; `CbirError` if it is gone."""
    return _BUILTIN[uri](None) if uri in _BUILTIN else open_source(uri)


def is_built_in(uri: str) -> bool:
    """Whether a source is a known data set, so that its URI names no file."""
    return uri in _BUILTIN


def file_path(uri: str, location: str) -> str | None:
    """The path of an item's file, None if there is none (archive member or pixels only)."""
    place = place_of(uri, location)
    is_folder = os.path.isdir(uri)  # noqa: PTH112 - Path raises if a drive fails
    return place.file if place and place.member is None and is_folder else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture is: a `file`, or the `member` of that archive. It need not exist any more."""

    file: str
    member: str | None = None


def place_of(uri: str, location: str) -> Place | None:
    """Where an item of the source registered under `uri` is; None for pixels of a built-in set.

    The location "." is the source itself.
    """
    if uri in _BUILTIN:
        return None
    if location == ".":
        return Place(uri)
    name = os.fsdecode(decode_path(location))
    source = Path(uri)
    # Path raises if a drive fails.
    is_archive = os.path.isfile(uri) or (  # noqa: PTH113
        not os.path.exists(uri)  # noqa: PTH110
        and source.name.lower().endswith(ARCHIVE_SUFFIXES)
    )
    return Place(uri, name) if is_archive else Place(str(source / name))


def is_away(uri: str) -> bool:
    """Whether nothing is at the place of a source, or only an empty folder.

    The source is gone, or its drive is not mounted.
    """
    if uri in _BUILTIN:
        return False
    path = Path(uri)
    try:
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))
    except OSError:  # a drive that fails, or no permission
        return True


def _open_file(path: Path, label_from_folder: bool) -> ImageSource:
    try:
        if kind := special_kind(path.stat().st_mode):
            raise CbirError(
                f"{path}: a {kind}, not a folder, archive or image",
                "write what it gives to a file, and give that",
            )
        with open_file(path) as file:
            head = file.read(HEAD_SIZE)
        if sniff(head):
            return FolderSource(path.parent, label_from_folder, only=path.name)
        if zipfile.is_zipfile(path):
            return ZipSource(path, label_from_folder)
        if is_tar(path):
            return TarSource(path, label_from_folder)
    except OSError as error:
        raise CbirError(f"{path}: cannot be read: {error.strerror or error}") from error
    except EOFError as error:  # a compressed file truncated in its first bytes
        raise CbirError(
            f"{path}: the archive is damaged or truncated", "download or create it again"
        ) from error
    return _refuse_file(path, head)


def _refuse_file(path: Path, head: bytes) -> ImageSource:
    if head.startswith(_ZSTD_MAGIC):
        raise CbirError(
            f"{path}: this Python cannot read zstd archives",
            "use Python 3.14 or newer, or unpack the archive and give the folder",
        )
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise CbirError(f"{path}: damaged, or not an archive despite its name", "download it again")
    if has_image_suffix(path.name):
        raise CbirError(f"{path}: not an image: unknown format")
    raise CbirError(
        f"{path}: not an image, folder or archive",
        "sources are folders, image files, .zip, .tar(.gz, .xz, .bz2), "
        "cifar10:train|test and digits:train|test",
    )


def _check_utf8(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise CbirError(
            f"{os.fsencode(path)!r}: the path of a source must be valid UTF-8", "rename it"
        ) from error


def _hint(text: str) -> str:
    known = [f"{name}:{split}" for name in _BUILTIN for split in _SPLITS]
    if text in _BUILTIN:
        return f"use {text}:train or {text}:test"
    return did_you_mean(text, known, "check the spelling, or give the full path")
