"""Adds the images of sources to an index."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from cbir.descriptors.contract import Descriptor, describe
from cbir.descriptors.models import descriptor_of, files_of, keep_model_of, load_descriptor
from cbir.descriptors.packaged import EXTRA, packaged_installed
from cbir.descriptors.pulled import pulled_default
from cbir.errors import CbirError, how_to_install
from cbir.images.excludes import ArchiveMembers, Excludes, excludes
from cbir.images.folders import FolderSource
from cbir.images.items import ImageSource
from cbir.images.limits import SECONDS, Limits
from cbir.images.members import has_image_suffix
from cbir.images.regions import region_boxes
from cbir.images.sources import open_source
from cbir.index.base import Index
from cbir.index.confirmed import confirm_or_warn
from cbir.index.open import check_place, create_index, index_exists, open_index
from cbir.ingest.metadata import read_metadata_files
from cbir.ingest.places import follow_source, names_after, placed, set_apart, without_nested
from cbir.ingest.run import PruneRefusedError, add_sources
from cbir.ingest.run_state import OnProgress, RunState
from cbir.ingest.source_scan import Prune, skipped_indexes
from cbir.types import AddReport

PHOTO_NETWORK = "efficientnet-lite2-int8"
PHOTO_DESCRIPTOR = f"{PHOTO_NETWORK}+classic:0.25"
"""The weight was chosen on training photos by `cbir train compose`."""
CORE_DESCRIPTOR = "classic"
"""For pictures of no known data set: with the extra `photos`, and without it."""

log = logging.getLogger(__name__)


def index_images(
    sources: Sequence[str | Path | ImageSource],
    into: str | Path,
    *,
    descriptor: str | Descriptor | None = None,
    label_from_folder: bool = False,
    exclude: Sequence[str] = (),
    default_excludes: bool = True,
    metadata: Path | Sequence[Path] | None = None,
    exif: bool = True,
    regions: int | None = None,
    prune: Prune = False,
    rehash: bool = False,
    again: bool = False,
    max_pixels: int | None = None,
    max_seconds: float = SECONDS,
    rebuild: bool = False,
    fast_load: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> AddReport:
    """Add every image of `sources` to the index at `into`, which is created if it does not exist.

    Unchanged images are skipped. Changed images replace their records, which keep the fields that
    metadata files gave, and their labels, unless this run provides others. The report and the index
    list the images that cannot be read. If there is no image at all, no index is created.

    `exclude`: patterns in gitignore syntax, relative to each source that is given by name. They
    take precedence over `.cbirignore` files, and these over `images.excludes.DEFAULT_PATTERNS`,
    which `default_excludes` switches. The records of excluded images are removed.

    `metadata`: one file or several, whose fields add up; of equal fields the last file's counts.
    `exif`: the date taken, camera, lens and position of new and changed images become metadata,
    too, unless a file gives these fields; False also removes those that were read before.

    `regions` (1, 5 or 14): how many parts of each image get a vector; by default as many as in the
    index, or 1. `prune`: remove the records of missing files instead of marking them. A source that
    lost more than half of its indexed images is not pruned, since its drive may not be mounted:
    unless `prune` is "force", `PruneRefusedError` is raised after everything else is done.
    `rehash`: read every image again, also those whose file seems unchanged. `again`: also add
    images that were removed with `remove_images`, which are kept out otherwise.
    `max_pixels`, `max_seconds`: images of more pixels, or that take longer to decode, are not read;
    see `images.decode.decode_file`.

    Records follow moved files, see `run.add_sources`. A source that is found elsewhere keeps its
    name (`places.follow_source`), and a folder inside another one is part of its source
    (`places.placed`); the report lists both.

    `rebuild` and `fast_load` are for Elasticsearch, see `index.open.create_index`; the new index
    holds `sources` only and replaces the old one at the end of the run.

    After an interruption (Ctrl-C) the report says so, and the same call resumes.
    """
    limits = Limits(max_pixels, max_seconds)
    rules = excludes(exclude, default_excludes)
    opened, nested = without_nested(_opened(sources, label_from_folder, rules))
    url = os.fspath(into)
    exists = index_exists(url)
    if not exists:
        check_place(url)
    if not exists and not any(_has_items(source) for source in opened):
        report = AddReport()
        for source in opened:
            report.count_ignored(source.ignored)
            report.skipped_indexes += skipped_indexes(source)
        _tell_excludes(report, opened, rules)
        return report
    if regions is not None:
        region_boxes(regions)
    details = read_metadata_files(metadata)
    chosen = _descriptor(opened, url if exists else None, descriptor)
    # A descriptor that cannot run at all should fail once, not once per image. One picture alone
    # would load the session for queries.
    describe(chosen, [np.full((32, 32, 3), 127, dtype=np.uint8)] * 2)
    model = files_of(chosen)
    with closing(
        create_index(url, chosen.spec, model, rebuild=rebuild, fast_load=fast_load)
    ) as index:
        started = time.perf_counter()
        keep_model_of(index, model)
        boxes = region_boxes(regions or _regions_of(index))
        report = AddReport(nested=nested)
        given = opened
        opened = [_placed(index, source, report) for source in given]
        _confirm(index, given, opened)
        set_apart(index, opened)
        run = RunState(
            index,
            chosen,
            boxes,
            details,
            on_progress,
            limits=limits,
            exif=exif,
            rehash=rehash,
            again=again,
            report=report,
        )
        add_sources(run, opened, prune)
        _tell_excludes(run.report, opened, rules)
        if not rebuild:
            index.refresh()
        elif not run.report.interrupted:
            _take_over(index)
        run.report.seconds = time.perf_counter() - started
    run.report.unused_metadata = [name for given in details for name in given.unused()]
    if run.lost and not run.report.interrupted:
        raise PruneRefusedError(run.lost, run.report)
    return run.report


def descriptor_of_index(url: str) -> Descriptor:
    """The descriptor that built the index at `url`, from the files that it keeps."""
    with closing(open_index(url)) as index:
        return descriptor_of(index.spec, index.model_files())


def _descriptor(
    sources: Sequence[ImageSource], existing: str | None, requested: str | Descriptor | None
) -> Descriptor:
    """The requested descriptor, the existing index's, or the one that all sources name.

    If they name none or several, it is the one for photos.
    """
    if isinstance(requested, str):
        return load_descriptor(requested)
    if requested is not None:
        return requested
    if existing is not None:
        return descriptor_of_index(existing)
    named = {source.descriptor for source in sources}
    known = named.pop() if len(named) == 1 else None
    return load_descriptor(known) if known else _for_photos()


def _for_photos() -> Descriptor:
    if pulled := pulled_default():
        log.warning("using %s, the model pulled last from the hub", pulled.spec.short)
        return pulled
    if packaged_installed(PHOTO_NETWORK):
        return load_descriptor(PHOTO_DESCRIPTOR)
    better = how_to_install(EXTRA)
    log.warning("using %s; for much better results: %s", CORE_DESCRIPTOR, better)
    return load_descriptor(CORE_DESCRIPTOR)


def _opened(
    sources: Sequence[str | Path | ImageSource], label_from_folder: bool, rules: Excludes
) -> list[ImageSource]:
    if isinstance(sources, (str, Path)):
        raise CbirError("sources is a single path", f'give a list: ["{sources}"]')
    return [
        open_source(os.fspath(source), label_from_folder, rules)
        if isinstance(source, (str, Path))
        else source
        for source in sources
    ]


def _placed(index: Index, source: ImageSource, report: AddReport) -> ImageSource:
    """The source where the index has it, see `places`; the report says what changed."""
    part, nested = placed(index, source)
    report.nested.update(nested)
    if not nested and (name := follow_source(index, source)):
        report.relocated[name] = source.uri
    return part


def _confirm(index: Index, given: Sequence[ImageSource], placed: Sequence[ImageSource]) -> None:
    """Remember that a person named these sources, so that their originals may be opened.

    A part of a larger source does not confirm that source, which nobody named.
    """
    named = {s.uri for s, part in zip(given, placed, strict=True) if s.uri == part.uri}
    names = names_after(index, placed).items()
    confirm_or_warn(index, {name: uri for name, uri in names if uri in named})


def _tell_excludes(report: AddReport, sources: Sequence[ImageSource], rules: Excludes) -> None:
    """Count by name what was left out, unless it is a file that is no picture by its name."""
    passed_over, excluded = Counter[str](), Counter[str]()
    for source in sources:
        if isinstance(source, FolderSource | ArchiveMembers):
            for path, reason in source.left_out.paths.items():
                name = path[path.rstrip("/").rfind("/") + 1 :]
                if name.endswith("/") or has_image_suffix(name):
                    (passed_over if reason == "default" else excluded)[name] += 1
    report.passed_over = dict(sorted(passed_over.items()))
    report.excluded = dict(sorted(excluded.items()))
    report.unused_excludes = rules.given.unused()


def _take_over(index: Index) -> None:
    """Replace the old index with the rebuilt one, unless that is empty."""
    if not index.count():
        raise CbirError(
            "no image could be indexed, so the old index is kept",
            "index into a new place to see the reasons",
        )
    index.refresh()


def _has_items(source: ImageSource) -> bool:
    return next(source.items(), None) is not None


def _regions_of(index: Index) -> int:
    """The number of parts of the records of `index`; 1 if there is no record."""
    first = next(index.entries(), None)
    return len(first.vectors) if first else 1
