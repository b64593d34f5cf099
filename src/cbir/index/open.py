"""One string chooses the engine: a folder, or `SCHEME://...`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cbir.errors import CbirError, IndexStateError
from cbir.index.base import Index
from cbir.index.elasticsearch.address import PLAIN, PORT, SCHEMES, Address, parse
from cbir.index.embedded import layout, making
from cbir.index.embedded.index import EmbeddedIndex
from cbir.types import DescriptorSpec

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_index(url: str | os.PathLike[str], *, write: bool = False) -> Index:
    """The index at `url`, for reading or as its only writer.

    Raises `IndexStateError` where there is none, and where it is locked, damaged, of a newer
    format or not to be written to.
    """
    url = os.fspath(url)
    address = _address(url)
    if address is not None:
        from cbir.index.elasticsearch.making import open_elastic

        return open_elastic(address, write=write)
    folder = _folder(url)
    with _readable(url):
        if not (folder / layout.RECORDS).is_file():
            raise IndexStateError(*_absence(url, folder))
    return EmbeddedIndex(url, folder, write=write)


def create_index(
    url: str,
    spec: DescriptorSpec,
    model_files: Mapping[str, bytes] | None = None,
    *,
    rebuild: bool = False,
    fast_load: bool = False,
) -> Index:
    """The index at `url`, open for writing; made, with the descriptor's files, if need be.

    For an Elasticsearch index: `rebuild` fills a new one that takes the place of the old one when
    it is complete (`refresh`); `fast_load` keeps no copies until then, even on several nodes.
    Raises `IndexStateError` if the index there was built with another spec, and if a file or a
    folder of other things is in the way.
    """
    address = _address(url)
    index: Index
    if address is not None:
        from cbir.index.elasticsearch.making import create_elastic

        index = create_elastic(address, spec, rebuild=rebuild, fast_load=fast_load)
        return _of_spec(index, spec)
    if rebuild or fast_load:
        raise CbirError(
            f"{url}: only an Elasticsearch index is built anew in place, or loaded fast",
            "index into a new place",
        )
    folder = _folder(url)
    if not index_exists(url):
        with _readable(url):
            if folder.exists() and not (folder.is_dir() and layout.holds_only_own_files(folder)):
                raise IndexStateError(*_obstacle(url, folder))
        making.create(url, folder, spec, model_files or {})
    index = EmbeddedIndex(url, folder, write=True)
    return _of_spec(index, spec)


def _of_spec(index: Index, spec: DescriptorSpec) -> Index:
    """`index`, unless it was built with another spec."""
    if index.spec.fingerprint != spec.fingerprint:
        index.close()
        raise IndexStateError(*_mismatch(index.url, index.spec, spec))
    return index


def index_exists(url: str) -> bool:
    """Whether an index was completed at `url`, whatever state it is in now."""
    address = _address(url)
    if address is not None:
        from cbir.index.elasticsearch.making import elastic_exists

        return elastic_exists(address)
    folder = _folder(url)
    with _readable(url):
        return (folder / layout.RECORDS).is_file() and not making.is_unfinished(url, folder)


def _mismatch(url: str, built: DescriptorSpec, given: DescriptorSpec) -> tuple[str, str]:
    what = (
        f"{url} was built with {built.short} ({built.dim}-d); "
        f"you gave {given.short} ({given.dim}-d)"
    )
    if built.name == given.name:  # another version of the same descriptor
        return what, "Index into a new place"
    return what, f"Use --descriptor {built.name}, or index into a new place"


def _absence(url: str, folder: Path) -> tuple[str, str]:
    cure = f"cbir index FOLDER --into {url}"
    if not folder.exists():
        return f"no index at {url}", cure
    if not folder.is_dir():
        return f"no index at {url}: it is a file", "give the folder of an index"
    if layout.holds_only_own_files(folder) and any(folder.iterdir()):
        return making.unfinished(url)
    if any(folder.iterdir()):  # its images, most likely, so that the index cannot go there
        cure = f"cbir index {url} --into {folder.resolve().name or 'photos'}.cbir"
    return f"no index at {url}: it is a folder without one", cure


def _obstacle(url: str, folder: Path) -> tuple[str, str]:
    if folder.is_dir():
        inside = Path(url) / "photos.cbir"
        return f"{url} is a folder of other things", f"give a new name, such as {inside}"
    return f"{url} is a file", f"give a new name, such as {Path(url).with_suffix('.cbir')}"


@contextmanager
def _readable(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IndexStateError(
            f"{url} cannot be read: {error.strerror}", "check the name, and whose it is"
        ) from error


def _address(url: str) -> Address | None:
    """Where an Elasticsearch index lies; None for a folder.

    Raises `CbirError` if `url` asks for an engine that there is not.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return None
    if scheme[1].lower() not in SCHEMES:
        raise CbirError(
            f"there is no engine for {scheme[1]}://",
            f"give a folder, such as photos.cbir, or {PLAIN}://HOST:{PORT}/NAME",
        )
    return parse(url)


def _folder(url: str) -> Path:
    """Where an embedded index lies."""
    if not url:
        raise CbirError("the name of the index is empty", "give a folder, such as photos.cbir")
    return Path(url)
