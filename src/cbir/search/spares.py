"""Good copies of what an index keeps: originals of its pictures, and its model from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from cbir.descriptors.models import descriptor_of, files_of
from cbir.errors import CbirError
from cbir.images.decode import decode
from cbir.images.thumbnails import thumbnail
from cbir.index.base import Index, Spares
from cbir.search.originals import Originals
from cbir.types import ImageRecord, ModelFile


def spares_for(index: Index) -> Spares:
    """What a repair of `index` may use; nothing is opened before it is asked for."""

    opener = cache(lambda: Originals(index))

    def redrawn(record: ImageRecord) -> bytes | None:
        try:
            original = opener().open(record)
            if isinstance(original, bytes):
                return thumbnail(original, decode(original))
            return thumbnail(None, original)
        except CbirError:
            return None  # the record is described again instead

    def model_files() -> Mapping[str, ModelFile]:
        try:
            return files_of(descriptor_of(index.spec, {}))
        except CbirError:
            return {}  # the repair says which files are missing

    return Spares(redrawn, model_files)
