"""Opens indexed pictures: from the index if it keeps the whole file, else from their source."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

from cbir.errors import CbirError, ImageError, RecordGoneError
from cbir.images.folders import FolderSource
from cbir.images.items import ImageSource, content_hash
from cbir.images.sources import is_built_in, source_for_uri
from cbir.index.base import Index
from cbir.index.confirmed import confirmed
from cbir.types import ImageRecord, RgbImage
from cbir.wording import counted, listed, one_line, shell_word

OriginalState = Literal["gone", "changed", "unconfirmed"]

log = logging.getLogger(__name__)
_told: set[str] = set()
"""Indexes whose unconfirmed sources were told of."""


class OriginalError(ImageError):
    """An original that is gone, is not the indexed picture any more, or must not be opened."""

    def __init__(self, message: str, hint: str, state: OriginalState) -> None:
        super().__init__(message, hint)
        self.state = state


class LinkRefusedError(OriginalError):
    """An original behind a link out of its source that may not be the file that was indexed."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, "changed")


def original(index: Index, record_id: str) -> bytes | RgbImage:
    """The indexed picture itself: a file's bytes, or RGB pixels if there is no file.

    Raises `RecordGoneError` for an unknown id, and `OriginalError` as `Originals.open` does.
    """
    return Originals(index).open(index.records([record_id])[0])


def unconfirmed(index: Index) -> dict[str, str]:
    """The sources of `index`, name -> URI, that nobody gave or confirmed on this machine."""
    known = confirmed(index)
    uris = index.sources().items()
    return {name: uri for name, uri in uris if name not in known and not is_built_in(uri)}


def tell_unconfirmed(index: Index) -> None:
    """Log a warning, once in a process, if originals of `index` are not opened."""
    if index.identity in _told or not (names := sorted(map(one_line, unconfirmed(index)))):
        return
    _told.add(index.identity)
    log.warning(
        "%s: originals of %s (%s) are not opened, because the index may come from elsewhere; "
        "if they are yours: cbir sources %s --confirm",
        *(
            index.url,
            counted(len(names), "source"),
            listed(names),
            shell_word(index.url),
        ),
    )


class Originals:
    """Opens the originals of records; resolves each source once. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._uris: Mapping[str, str] = index.sources()
        self._lock = threading.Lock()
        self._sources: dict[str, ImageSource] = {}

    def open(self, record: ImageRecord) -> bytes | RgbImage:
        """From the index if it keeps the whole file, else from the source; see `original`.

        An index may say that its pictures are anywhere, so a source is only read if a person gave
        or confirmed it on this machine, a file only counts if it has the indexed content, and a
        link out of a folder is only followed to the file that was indexed (see `_check_links`).
        """
        kept = None
        with suppress(RecordGoneError):  # a writer removed the record; its file may still be there
            kept = self._index.thumbnail(record.id)
        if kept is not None and content_hash(kept) == record.content_hash:
            return kept  # small files are their own thumbnails
        return self.read(record)

    def read(self, record: ImageRecord) -> bytes | RgbImage:
        """From the source; raises `OriginalError` as `open` does."""
        try:
            source = self.source(record.source)
            _check_links(source, record, self._index.url)
            data = source.open(record.location)
        except OriginalError:
            raise
        except CbirError as error:
            raise OriginalError(
                f"the original of {record.id} is gone: {error.message}", error.hint, "gone"
            ) from error
        if content_hash(data) != record.content_hash:
            raise OriginalError(
                f"the original of {record.id} has changed since it was indexed",
                "index its source again",
                "changed",
            )
        return data

    def source(self, name: str) -> ImageSource:
        """The source of this name; raises `CbirError` if it is gone, `OriginalError` as `open`."""
        with self._lock:
            if name not in self._sources:
                self._sources[name] = self._opened(name)
            return self._sources[name]

    def _opened(self, name: str) -> ImageSource:
        uri = self._uris.get(name)
        if uri is None:
            raise ImageError(f"its source '{name}' is not registered", "index its folder again")
        if not is_built_in(uri) and confirmed(self._index).get(name) != uri:
            raise OriginalError(
                f"originals in {name} ({uri}) are not opened: the index may come from elsewhere",
                f"if they are yours: cbir sources {shell_word(self._index.url)} --confirm",
                "unconfirmed",
            )
        return source_for_uri(uri)


def _check_links(source: ImageSource, record: ImageRecord, index: str) -> None:
    """Follow a link out of a folder only to the file that was indexed there: it may be new.

    Who made the index may know the content of a file elsewhere, but hardly its inode and times. A
    record without an inode, as in indexes of format 1, is refused where the file system has one.
    """
    if not isinstance(source, FolderSource):
        return
    item = source.linked_from_outside(record.location)
    if item is None:
        return
    same = (item.file_size, item.mtime_ns) == (record.file_size, record.mtime_ns)
    if not same or item.stamp not in (None, record.stamp):
        why = "to a file that was not indexed there"
        if same and record.stamp is None:
            why = "and the index does not know the inode of the file that was indexed there"
        raise LinkRefusedError(
            f"the original of {record.id} is behind a link out of {source.uri}, {why}",
            f"cbir index {shell_word(source.uri)} --into {shell_word(index)}",
        )
