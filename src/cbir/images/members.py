"""The members of an archive: their keys; and the labels that keys name."""

from __future__ import annotations

from pathlib import Path

from cbir.images.candidates import is_hidden
from cbir.images.ids import decode_path, encode_path

ARCHIVE_SUFFIXES = (
    *(".zip", ".tar", ".tgz", ".txz", ".tbz", ".tbz2", ".tzst"),
    *(".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst"),
)


def archive_name(path: Path) -> str:
    """The name of an archive's source: its file name without the extension, encoded."""
    fits = [suffix for suffix in ARCHIVE_SUFFIXES if path.name.lower().endswith(suffix)]
    longest = max((len(suffix) for suffix in fits), default=0)
    return encode_path(path.name[: len(path.name) - longest] or path.name)


def member_key(name: str) -> str | None:
    """The key of the member called `name`, None if it or a folder above it is hidden.

    Names are only names here: `..` and a leading `/` lead nowhere, as nothing is extracted.
    """
    parts = name.split("/")
    while len(parts) > 1 and parts[0] == ".":
        parts = parts[1:]
    return None if any(is_hidden(part) for part in parts) else encode_path("/".join(parts))


def label_of(key: str, source: str) -> str | None:
    """The name of the folder that `key` lies in; at the top, that of its source, called `source`.

    So that unpacking an archive changes no label, and an id names the label of its image.
    """
    folder = f"{source}/{key}".rpartition("/")[0].rpartition("/")[2]
    return decode_path(folder).decode("utf-8", "replace") or None
