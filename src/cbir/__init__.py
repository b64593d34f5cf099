"""cbir finds images by image.

    import cbir

    cbir.index_images(["photos"], into="photos.cbir")
    with cbir.Searcher.open("photos.cbir") as searcher:
        for hit in searcher.search("query.jpg", k=10):
            print(hit.rank, hit.id, hit.score)

Names load when they are first used; importing the package loads none of the heavy libraries.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbir.descriptors.contract import Descriptor
    from cbir.descriptors.models import load_descriptor
    from cbir.errors import CbirError
    from cbir.evaluation import evaluate
    from cbir.images.sources import open_source
    from cbir.index.open import open_index
    from cbir.ingest.compose import compose_indexes
    from cbir.ingest.copy import copy_index
    from cbir.ingest.indexing import index_images
    from cbir.ingest.record_removal import remove_images
    from cbir.ingest.watching import watch_images
    from cbir.search.query import IndexedId, Query, SearchOptions
    from cbir.search.searcher import Searcher
    from cbir.types import AddReport, DescriptorSpec, Hit, ImageRecord

    __version__: str

# ONNX Runtime, huggingface_hub and Ray send telemetry unless this is set when they load. Every
# import of cbir runs these lines first. They override the user's environment: cbir never sends
# telemetry.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

_HOMES = {
    "AddReport": "cbir.types",
    "CbirError": "cbir.errors",
    "Descriptor": "cbir.descriptors.contract",
    "DescriptorSpec": "cbir.types",
    "Hit": "cbir.types",
    "ImageRecord": "cbir.types",
    "IndexedId": "cbir.search.query",
    "Query": "cbir.search.query",
    "SearchOptions": "cbir.search.query",
    "Searcher": "cbir.search.searcher",
    "compose_indexes": "cbir.ingest.compose",
    "copy_index": "cbir.ingest.copy",
    "evaluate": "cbir.evaluation",
    "index_images": "cbir.ingest.indexing",
    "load_descriptor": "cbir.descriptors.models",
    "open_index": "cbir.index.open",
    "open_source": "cbir.images.sources",
    "remove_images": "cbir.ingest.record_removal",
    "watch_images": "cbir.ingest.watching",
}

__all__ = [
    "AddReport",
    "CbirError",
    "Descriptor",
    "DescriptorSpec",
    "Hit",
    "ImageRecord",
    "IndexedId",
    "Query",
    "SearchOptions",
    "Searcher",
    "compose_indexes",
    "copy_index",
    "evaluate",
    "index_images",
    "load_descriptor",
    "open_index",
    "open_source",
    "remove_images",
    "watch_images",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cbir")
    if name not in _HOMES:
        raise AttributeError(f"module 'cbir' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
