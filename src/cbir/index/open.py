"""Opens an index by URL: a folder (embedded) or `elasticsearch://HOST/NAME`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Protocol

from cbir.errors import CbirError, IndexStateError
from cbir.index.base import Index
from cbir.index.elasticsearch import opening as elasticsearch
from cbir.index.elasticsearch.address import PLAIN, PORT, SCHEMES
from cbir.index.embedded import opening as embedded
from cbir.types import DescriptorSpec, ModelFile

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Engine(Protocol):
    """The interface of each engine's `opening` module."""

    def open_index(self, url: str, *, write: bool) -> Index: ...

    def create_index(
        self,
        url: str,
        spec: DescriptorSpec,
        model_files: Mapping[str, ModelFile],
        *,
        rebuild: bool,
        fast_load: bool,
    ) -> Index: ...

    def index_exists(self, url: str) -> bool: ...

    def mend(self, url: str) -> list[str]: ...

    def check_place(self, url: str) -> None: ...

    def same_place(self, one: str, other: str) -> bool: ...


def open_index(url: str | os.PathLike[str], *, write: bool = False) -> Index:
    """Open the index at `url` for reading, or as its only writer.

    Raises `IndexStateError` if it is missing, locked, damaged, read-only or of a newer format.
    """
    url = os.fspath(url)
    return _engine(url).open_index(url, write=write)


def create_index(
    url: str,
    spec: DescriptorSpec,
    model_files: Mapping[str, ModelFile] | None = None,
    *,
    rebuild: bool = False,
    fast_load: bool = False,
) -> Index:
    """Open the index at `url` for writing; create it, with the descriptor's files, if missing.

    Elasticsearch only: `rebuild` fills a new index that replaces the old one once complete
    (`refresh`); `fast_load` keeps no replicas until then, even on several nodes. Raises
    `IndexStateError` if the index has another spec, or if `url` is a file or an unrelated folder.
    """
    index = _engine(url).create_index(
        url, spec, model_files or {}, rebuild=rebuild, fast_load=fast_load
    )
    if index.spec.fingerprint == spec.fingerprint:
        return index
    index.close()
    built, hint = index.spec, "Choose a new place"
    if built.name != spec.name:  # else another version of the same descriptor; no option selects it
        hint = f"Index with --descriptor {built.name}, or choose a new place"
    raise IndexStateError(
        f"{index.url} was built with {built.short} ({built.dim}-d); "
        f"you gave {spec.short} ({spec.dim}-d)",
        hint,
    )


def mend(url: str) -> list[str]:
    """Mend what keeps the index at `url` from opening, one line for each thing; see `verify`."""
    return _engine(url).mend(url)


def index_exists(url: str) -> bool:
    """Whether an index was ever completed at `url`, even if it is now damaged."""
    return _engine(url).index_exists(url)


def check_place(url: str) -> None:
    """Raise `CbirError` if an index that does not exist cannot be created at `url`."""
    _engine(url).check_place(url)


def same_place(one: str, other: str) -> bool:
    """Whether two URLs name the same index, however they are written."""
    engine = _engine(one)
    return engine is _engine(other) and engine.same_place(one, other)


def _engine(url: str) -> Engine:
    """The engine for `url`; raises `CbirError` for an unknown scheme."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return embedded
    if scheme[1].lower() in SCHEMES:
        return elasticsearch
    raise CbirError(
        f"unknown index URL scheme {scheme[1]}://",
        f"give a folder, such as photos.cbir, or {PLAIN}://HOST:{PORT}/NAME",
    )
