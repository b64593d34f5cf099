"""Downloads a large file over HTTP, with progress, resume and an MD5 check."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from filelock import FileLock

from cbir.errors import CbirError, write_hint
from cbir.files import put_in_place
from cbir.types import OnDone

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30.0
_BY_HAND = "download it manually and set CBIR_DATA to its folder"


def fetch(url: str, target: Path, md5: str, progress: OnDone) -> Path:
    """Download `url` to `target` unless it exists; returns `target`.

    Writes to `target` + ".part" and resumes with a Range request: the next call does, and so does
    this one if the connection breaks after some progress. Renames the file only if its MD5 (hex)
    matches. A second process waits for the first. Raises `CbirError` if the network is down, for
    an HTTP error, a full disk or a wrong MD5.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            if not target.exists():
                _fetch_part(url, part, progress)
                _check(part, md5, url)
                put_in_place(part, target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else error.strerror or str(error)
        hint = "free some space" if full else "choose another place with CBIR_HOME"
        hint = write_hint(error, hint)
        raise CbirError(f"cannot write {part}: {what}", hint) from error
    return target


def _fetch_part(url: str, part: Path, progress: OnDone) -> None:
    complete = False
    while not complete:
        before = _size(part)
        try:
            complete = _attempt(url, part, progress)
        except _BrokenError as error:
            if _size(part) <= before:
                raise CbirError(
                    f"cannot download {url}: {error}", f"check the network, or {_BY_HAND}"
                ) from error


class _BrokenError(Exception):
    """A failure of the network, not of the disk."""


def _attempt(url: str, part: Path, progress: OnDone) -> bool:
    """Append the missing bytes and return whether the file is complete."""
    start = _size(part)
    try:
        response = _ask(url, start)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                return _already_whole(error, part)
            raise _BrokenError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(getattr(error, "reason", None) or error) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # a server without Range support sends everything again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        return _append(response, part, start, total, progress)


def _ask(url: str, start: int) -> Any:
    headers = {"User-Agent": "cbir"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)


def _append(response: Any, part: Path, start: int, total: int | None, progress: OnDone) -> bool:
    done = start
    with part.open("ab" if start else "wb") as file:
        progress(done, total)
        while chunk := _receive(response):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if total is not None and done < total:
        raise _BrokenError(f"the connection broke after {done:,} of {total:,} bytes")
    return True


def _receive(response: Any) -> bytes:
    try:
        chunk: bytes = response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error
    return chunk


def _already_whole(error: urllib.error.HTTPError, part: Path) -> bool:
    """After a request past the end: whether the partial file is complete; deletes it if not."""
    size = re.search(r"/(\d+)$", error.headers.get("Content-Range", ""))
    if size and int(size[1]) == _size(part):
        return True
    part.unlink()
    return False


def _check(part: Path, md5: str, url: str) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise CbirError(
            f"{url} returned a wrong file (MD5 {found}, expected {md5})",
            f"try again, or {_BY_HAND}",
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
