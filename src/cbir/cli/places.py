"""Prints where pictures are, in a form that can be pasted, and opens them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cbir.errors import CbirError
from cbir.images.sources import Place
from cbir.types import ImageRecord
from cbir.wording import one_line, shell_word

_VIEWER_SECONDS = 2.0
"""A viewer that has not ended by then is showing the picture."""


def shown_place(place: Place) -> str:
    """The path as one word of a shell; `archive.zip: inner/path` for a member."""
    file = shell_word(from_here(place.file))
    return file if place.member is None else f"{file}: {one_line(place.member)}"


def from_here(path: str) -> str:
    """`path`, relative to the working directory if it is below it; never taken for an option."""
    try:
        inner = Path(path).relative_to(Path.cwd())
    except (ValueError, FileNotFoundError):  # not below it, or the working directory is gone
        return path
    return f"./{inner}" if str(inner).startswith("-") else str(inner)


def is_gone(place: Place | None, missing: bool) -> bool:
    """Whether the picture is no longer there; `missing`: what the last indexing run found."""
    if place is None:
        return missing
    there = os.path.exists(place.file)  # noqa: PTH110 - Path raises if a drive fails
    return not there or (missing and place.member is not None)


def file_state(place: Place | None, record: ImageRecord) -> str:
    """What a list says of a picture's file: "gone", "changed" (its size is another), or nothing."""
    if is_gone(place, record.missing):
        return "gone"
    if place is None or place.member is not None or record.file_size is None:
        return ""
    try:
        return "" if Path(place.file).stat().st_size == record.file_size else "changed"
    except OSError:
        return "gone"


def open_in_viewer(path: str) -> None:
    """Open a file with the system's viewer; raises `CbirError` if there is none or it fails."""
    if sys.platform == "win32":
        os.startfile(path)
        return
    name = "open" if sys.platform == "darwin" else "xdg-open"
    program = shutil.which(name)
    if program is None:
        raise CbirError(f"{name} is not installed", f"open the picture yourself: {path}")
    viewer = subprocess.Popen(
        [program, path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal does not close it
    )
    try:
        code = viewer.wait(_VIEWER_SECONDS)
    except subprocess.TimeoutExpired:
        return
    if code:
        raise CbirError(
            f"{name} cannot open {path} (exit status {code})",
            "choose a default program for such files in your desktop's settings",
        )
