"""The sources of indexes that the person who runs cbir gave on this machine.

An index says where its pictures are, and may come from anyone. Files are only read where a person
said so: `CBIR_HOME/sources.json` has the name and URI of each such source, by index.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from cbir.errors import CbirError, write_hint
from cbir.files import write_whole
from cbir.home import cbir_home
from cbir.index.base import Index

_LOCK_SECONDS = 10.0

log = logging.getLogger(__name__)


def confirm(index: Index, sources: Mapping[str, str]) -> None:
    """Remember that the files of these sources (name -> URI) of `index` may be read.

    Raises `CbirError` if `CBIR_HOME` cannot be written.
    """
    from filelock import FileLock, Timeout

    if sources.items() <= _stored().get(index.identity, {}).items():
        return
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            stored = _stored()
            stored[index.identity] = {**stored.get(index.identity, {}), **sources}
            write_whole(path, json.dumps(stored, indent=1).encode())
    except (OSError, Timeout) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise CbirError(
            f"{path} cannot be written: {reason}",
            write_hint(error, "set CBIR_HOME to a folder that can be written")
            if isinstance(error, OSError)
            else "close the other program that holds its lock",
        ) from error


def confirmed(index: Index) -> dict[str, str]:
    """The sources of `index`, name -> URI, whose files may be read."""
    stored = _stored().get(index.identity, {})
    return {name: uri for name, uri in index.sources().items() if stored.get(name) == uri}


def confirm_or_warn(index: Index, sources: Mapping[str, str]) -> None:
    """Confirm sources; if that fails, log why their originals will not be opened."""
    try:
        confirm(index, sources)
    except CbirError as error:
        log.warning("originals will not be opened: %s", error)


def confirm_as(index: Index, others: Mapping[str, str]) -> None:
    """Confirm the sources of `index` that are among `others`, which another index has confirmed."""
    confirm_or_warn(index, dict(index.sources().items() & others.items()))


def _path() -> Path:
    return cbir_home() / "sources.json"


def _stored() -> dict[str, dict[str, str]]:
    """Identity of an index -> name -> URI."""
    try:
        stored: dict[str, dict[str, str]] = json.loads(_path().read_bytes())
        if all(isinstance(uri, str) for names in stored.values() for uri in names.values()):
            return stored
        raise ValueError("it is no table of sources")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise CbirError(
            f"{_path()} cannot be read: {error}",
            "delete it, and index the sources again, or confirm them: cbir sources INDEX --confirm",
        ) from error
