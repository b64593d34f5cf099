"""The sources of indexes that the person who runs cbir gave on this machine.

An index says where its pictures are, and may come from anyone. Files are only read where a person
said so: `CBIR_HOME/sources.json` has the name and URI of each such source, by index. Sources for
which the person said no are in `refused_sources.json`, so that nobody is asked twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from cbir.errors import CbirError, write_hint
from cbir.files import write_whole
from cbir.home import cbir_home
from cbir.index.base import Index

_CONFIRMED, _REFUSED = "sources.json", "refused_sources.json"
_LOCK_SECONDS = 10.0

log = logging.getLogger(__name__)


def confirm(index: Index, sources: Mapping[str, str]) -> None:
    """Remember that the files of these sources (name -> URI) of `index` may be read.

    Raises `CbirError` if `CBIR_HOME` cannot be written.
    """
    _add(index, sources, _CONFIRMED)


def refuse(index: Index, sources: Mapping[str, str]) -> None:
    """Remember that a person does not want these sources confirmed; if that fails, log why."""
    try:
        _add(index, sources, _REFUSED)
    except CbirError as error:
        log.warning("the answer is not remembered: %s", error)


def refused(index: Index) -> dict[str, str]:
    """The sources, name -> URI, about which nobody is asked again; they can still be confirmed.

    If that cannot be read, log why: then the person is asked once more.
    """
    try:
        return _stored(_REFUSED).get(index.identity, {})
    except CbirError as error:
        log.warning("earlier answers are not known: %s", error)
        return {}


def _add(index: Index, sources: Mapping[str, str], name: str) -> None:
    from filelock import FileLock, Timeout

    if sources.items() <= _stored(name).get(index.identity, {}).items():
        return
    path = cbir_home() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
            stored = _stored(name)
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
    stored = _stored(_CONFIRMED).get(index.identity, {})
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


def _stored(name: str) -> dict[str, dict[str, str]]:
    """Identity of an index -> name -> URI, as a file of `CBIR_HOME` has it."""
    path = cbir_home() / name
    try:
        stored: dict[str, dict[str, str]] = json.loads(path.read_bytes())
        if all(isinstance(uri, str) for names in stored.values() for uri in names.values()):
            return stored
        raise ValueError("it is no table of sources")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise CbirError(
            f"{path} cannot be read: {error}",
            "delete it, and index the sources again, or confirm them: cbir sources INDEX --confirm",
        ) from error
