"""Opens the pictures that records were made of."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from cbir.errors import CbirError, ImageError
from cbir.images.items import ImageSource, content_hash
from cbir.images.sources import source_for_uri
from cbir.index.base import Index
from cbir.types import ImageRecord, RgbImage


class Originals:
    """Opens the pictures that records were made of; each source is found once. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._uris: Mapping[str, str] = index.sources()
        self._lock = threading.Lock()
        self._sources: dict[str, ImageSource] = {}

    def open(self, record: ImageRecord) -> bytes | RgbImage:
        """From the index if it is kept there, else from its source; `ImageError` when it is gone.

        A file's bytes, or RGB pixels where there is no file.
        """
        kept = self._index.thumbnail(record.id)
        if kept is not None and content_hash(kept) == record.content_hash:
            return kept  # small files are their own thumbnails
        try:
            return self._source(record.source).open(record.location)
        except CbirError as error:
            raise ImageError(f"the original of {record.id} is gone: {error.message}") from error

    def _source(self, name: str) -> ImageSource:
        with self._lock:
            if name not in self._sources:
                self._sources[name] = source_for_uri(self._uris[name])
            return self._sources[name]
