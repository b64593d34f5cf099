"""Indexing: sources into an index, without describing again what has not changed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from cbir.descriptors.contract import Descriptor, describe
from cbir.descriptors.models import descriptor_of, files_of, keep_model_of, load_descriptor
from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.images.regions import region_boxes
from cbir.images.sources import open_source
from cbir.index.base import Index
from cbir.index.open import create_index, index_exists, open_index
from cbir.ingest.metadata import read_metadata
from cbir.ingest.run import IndexingRun, OnProgress, Prune, PruneRefusedError
from cbir.types import AddReport

DEFAULT_DESCRIPTOR = "classic"


def index_images(
    sources: Sequence[str | Path | ImageSource],
    into: str | Path,
    *,
    descriptor: str | Descriptor | None = None,
    label_from_folder: bool = False,
    metadata: Path | None = None,
    regions: int | None = None,
    prune: Prune = False,
    moved: str | None = None,
    rebuild: bool = False,
    fast_load: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> AddReport:
    """Add every image of `sources` to the index at `into`, which is created if need be.

    Unchanged images are skipped; changed ones replace their records, and keep the label and
    metadata that they have unless this run says others; images that cannot be read are listed in
    the report and in the index. `regions` (1, 5 or 14) is how many parts of each picture get a
    vector; None: as many as the index has, 1 for a new one. Files that are gone are marked
    missing, or dropped with `prune`. A source that lost more than half of its indexed images is not
    pruned, since its drive may not be mounted: `PruneRefusedError` is raised when all else is done,
    unless `prune` is "force". `moved` is the registered name of the (one) source, which lay
    elsewhere when it was indexed: its records keep their ids. An interruption (Ctrl-C) keeps all
    that was committed and is noted in the report. Where there is no image at all, no index is made.
    `rebuild` and `fast_load` are for Elasticsearch, see `index.open.create_index`: the new index
    holds `sources` and nothing else, and takes the old one's place when the run gets to its end.
    """
    opened = _opened(sources, label_from_folder)
    url = os.fspath(into)
    exists = index_exists(url)
    if not exists and not any(_has_items(source) for source in opened):
        return AddReport(ignored=sum(source.ignored for source in opened))
    if regions is not None:
        region_boxes(regions)
    details = read_metadata(metadata) if metadata else None
    chosen = _descriptor(opened, url if exists else None, descriptor)
    # A descriptor that cannot run at all should say so once, not once an image.
    describe(chosen, [np.full((32, 32, 3), 127, dtype=np.uint8)])
    files = files_of(chosen)
    with closing(
        create_index(url, chosen.spec, files, rebuild=rebuild, fast_load=fast_load)
    ) as index:
        started = time.perf_counter()
        keep_model_of(index, files)
        if moved is not None:
            index.move_source(moved, _only(opened).uri)
        boxes = region_boxes(regions or _regions_of(index))
        run = IndexingRun(index, chosen, boxes, details, on_progress)
        run.add_sources(opened, prune)
        if not rebuild:
            index.refresh()
        elif not run.report.interrupted:
            _take_over(index)
        run.report.seconds = time.perf_counter() - started
    if details is not None:
        run.report.unused_metadata = details.unused()
    if run.lost and not run.report.interrupted:
        raise PruneRefusedError(run.lost, run.report)
    return run.report


def _descriptor(
    sources: Sequence[ImageSource], existing: str | None, requested: str | Descriptor | None
) -> Descriptor:
    """The requested descriptor, the existing index's, or the one that all sources name."""
    if isinstance(requested, str):
        return load_descriptor(requested)
    if requested is not None:
        return requested
    if existing is not None:
        with closing(open_index(existing)) as index:
            return descriptor_of(index.spec, index.model_files())
    named = {source.descriptor or DEFAULT_DESCRIPTOR for source in sources}
    return load_descriptor(named.pop() if len(named) == 1 else DEFAULT_DESCRIPTOR)


def _opened(
    sources: Sequence[str | Path | ImageSource], label_from_folder: bool
) -> list[ImageSource]:
    if isinstance(sources, (str, Path)):
        raise CbirError("sources is one path", f'give a list: ["{sources}"]')
    return [
        open_source(os.fspath(source), label_from_folder)
        if isinstance(source, (str, Path))
        else source
        for source in sources
    ]


def _only(sources: Sequence[ImageSource]) -> ImageSource:
    if len(sources) != 1:
        raise CbirError(f"{len(sources)} sources cannot be one that moved", "give that one alone")
    return sources[0]


def _take_over(index: Index) -> None:
    """Put a filled index in the place of the old one; an empty one would only lose it."""
    if not index.count():
        raise CbirError(
            "no image could be indexed anew, so the index stays as it is",
            "the reasons stand in cbir index SOURCE --into a new place",
        )
    index.refresh()


def _has_items(source: ImageSource) -> bool:
    return next(source.items(), None) is not None


def _regions_of(index: Index) -> int:
    """How many parts the records of `index` have; 1 where there is no record yet."""
    first = next(index.entries(), None)
    return len(first.vectors) if first else 1
