"""Opens indexed pictures: from the index if it keeps the whole file, else from their source."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress

from cbir.errors import CbirError, ImageError, RecordGoneError
from cbir.images.items import ImageSource, content_hash
from cbir.images.sources import source_for_uri
from cbir.index.base import Index
from cbir.types import ImageRecord, RgbImage


def original(index: Index, record_id: str) -> bytes | RgbImage:
    """The indexed picture itself: a file's bytes, or RGB pixels if there is no file.

    Raises `RecordGoneError` for an unknown id, `ImageError` if the original is gone.
    """
    return Originals(index).open(index.records([record_id])[0])


class Originals:
    """Opens the originals of records; resolves each source once. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._uris: Mapping[str, str] = index.sources()
        self._lock = threading.Lock()
        self._sources: dict[str, ImageSource] = {}

    def open(self, record: ImageRecord) -> bytes | RgbImage:
        """From the index if it keeps the whole file, else from the source; see `original`."""
        kept = None
        with suppress(RecordGoneError):  # a writer removed the record; its file may still be there
            kept = self._index.thumbnail(record.id)
        if kept is not None and content_hash(kept) == record.content_hash:
            return kept  # small files are their own thumbnails
        try:
            return self._source(record.source).open(record.location)
        except CbirError as error:
            raise ImageError(f"the original of {record.id} is gone: {error.message}") from error

    def _source(self, name: str) -> ImageSource:
        with self._lock:
            if name not in self._uris:
                raise ImageError(f"its source '{name}' is not registered", "index its folder again")
            if name not in self._sources:
                self._sources[name] = source_for_uri(self._uris[name])
            return self._sources[name]
