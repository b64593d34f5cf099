"""Composes indexes of the same images: their vectors side by side, without describing again."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from itertools import zip_longest

from cbir.descriptors.composed import ComposedDescriptor
from cbir.descriptors.contract import Descriptor
from cbir.descriptors.fusion import fuse
from cbir.descriptors.models import descriptor_of, files_of, keep_model_of
from cbir.errors import CbirError, IndexStateError
from cbir.index.base import Entry, Index, SourceRun, Stamp, Tombstone
from cbir.index.confirmed import confirm_as, confirmed
from cbir.index.open import create_index, open_index, same_place
from cbir.ingest.copy import Copying, Merging
from cbir.types import DescriptorSpec, Failure, OnDone, RgbImage, Vectors
from cbir.wording import counted

LACKING = "not in every index"
CHANGED = "not the same picture in every index"
OTHER_PARTS = "described with other regions in one index"


@dataclass(frozen=True, slots=True)
class ComposeReport:
    """What a composition did.

    `records`: in the new index at the end; `added`: written by this run; `unchanged`: there before.
    `left_out`: reason -> number of images, and `left_out_examples`: reason -> an id. `conflicts`:
    labels, metadata and locations for which the indexes have different values, and an example.
    """

    descriptor: str
    records: int
    added: int
    unchanged: int
    left_out: Mapping[str, int]
    left_out_examples: Mapping[str, str]
    conflicts: int
    conflict_example: str
    seconds: float


def compose_indexes(
    sources: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    weights: Sequence[float] | None = None,
    *,
    on_done: OnDone = lambda _d, _t: None,
) -> ComposeReport:
    """Join the indexes at `sources` into one at `target`, which is created if it does not exist.

    Its cosine is the sum of theirs, each times its weight (default: equal ones), as if the images
    had been indexed with the composed descriptor. An image is left out unless every index has it,
    with the same content and the same regions. Labels, metadata and the location of a source come
    from the first index that has them. Records that the target already has are not written again,
    so an interrupted run resumes.

    Raises `CbirError` if the weights are wrong, if an index is named twice or is the target, if no
    image is in every index, and if the target holds other records or another spec.
    """
    started = time.perf_counter()
    urls, into = [os.fspath(source) for source in sources], os.fspath(target)
    shares = _shares(urls, into, weights)
    with ExitStack() as opened:
        indexes = [opened.enter_context(closing(open_index(url))) for url in urls]
        descriptors = [_descriptor(index) for index in indexes]
        composed = ComposedDescriptor(descriptors, shares)
        joined = _Joined(indexes, descriptors, composed)
        files = files_of(composed)
        with closing(create_index(into, composed.spec, files)) as new:
            copying = Copying(joined, new, "overwrite")
            keep_model_of(new, files)
            copying.write(on_done)
            for index in indexes:
                confirm_as(new, confirmed(index))
            new.refresh()
            count = new.count()
        if not count:
            raise joined.nothing_in_common()
    merged = (joined.merging, copying.merging)
    return ComposeReport(
        descriptor=composed.spec.name,
        records=count,
        added=copying.written,
        unchanged=len(copying.ids) - len(copying.wanted),
        left_out=dict(joined.left_out),
        left_out_examples=joined.examples,
        conflicts=sum(merging.conflicts for merging in merged),
        conflict_example=next((merging.example for merging in merged if merging.example), ""),
        seconds=time.perf_counter() - started,
    )


def _shares(urls: Sequence[str], into: str, weights: Sequence[float] | None) -> Sequence[float]:
    if len(urls) < 2:
        raise CbirError(f"{counted(len(urls), 'index')} to compose", "name two or more")
    if any(same_place(into, url) for url in urls):
        raise CbirError(f"{into} is one of the indexes to compose", "choose a new place")
    if weights is not None and len(weights) != len(urls):
        raise CbirError(
            f"{counted(len(weights), 'weight')} for {counted(len(urls), 'index')}",
            "give one weight per index, in their order",
        )
    return weights or [1 / len(urls)] * len(urls)


@dataclass(frozen=True)
class _NotInstalled:
    """Stands for a descriptor of which only the spec is known."""

    spec: DescriptorSpec

    def describe(self, images: Sequence[RgbImage]) -> Vectors:  # noqa: ARG002
        raise CbirError(f"{self.spec.short} is not installed, so it cannot describe images")


def _descriptor(index: Index) -> Descriptor:
    kept = index.model_files()
    try:
        return descriptor_of(index.spec, kept)
    except CbirError:
        # Without its parts, a composed descriptor cannot be composed further.
        if kept or "+" in index.spec.name:
            raise
        return _NotInstalled(index.spec)


class _Joined:
    """Several indexes as one: the images that all of them have, with composed vectors.

    `left_out` counts the other images by reason; `examples` has an id for each reason.
    """

    def __init__(
        self,
        indexes: Sequence[Index],
        descriptors: Sequence[Descriptor],
        composed: ComposedDescriptor,
    ) -> None:
        self.url = " and ".join(index.url for index in indexes)
        self._indexes, self._descriptors, self._composed = indexes, descriptors, composed
        self.merging = Merging()
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._by_source = self._common()
        if not self._by_source:
            raise self.nothing_in_common()

    def nothing_in_common(self) -> CbirError:
        """The error if no image is left."""
        reasons = [f": '{example}' is {reason}" for reason, example in self.examples.items()]
        return CbirError(
            f"{self.url} have no image in common{''.join(reasons[:1])}",
            "index the same sources with each descriptor, and with the same --regions",
        )

    def ids(self) -> Iterator[str]:
        """The ids of the common images, in byte order."""
        return iter(sorted(self._stamps, key=str.encode))

    def sources(self) -> dict[str, str]:
        """Their sources, with the locations of the first index."""
        uris = [index.sources() for index in self._indexes]
        return {
            name: reduce(partial(self.merging.uri, name), [of[name] for of in uris])
            for name in self._by_source
        }

    def stamps(self, source: str) -> dict[str, Stamp]:
        """The stamps of the common images of `source`, with merged labels and metadata."""
        return self._by_source[source]

    def failures(self) -> list[Failure]:
        """The failures of all indexes, each image once."""
        found = [failure for index in self._indexes for failure in index.failures()]
        return list({(f.source, f.location): f for f in reversed(found)}.values())

    def runs(self) -> dict[str, SourceRun]:
        """The last runs of the common sources in the first index."""
        runs = self._indexes[0].runs()
        return {name: runs[name] for name in self._by_source if name in runs}

    def tombstones(self) -> dict[str, Tombstone]:
        """The tombstones of all indexes, of the common sources."""
        found = [t for index in self._indexes for t in index.tombstones().values()]
        return {t.id: t for t in reversed(found) if t.source in self._by_source}

    def entries(self, after: str = "") -> Iterator[Entry]:
        """The entries of the common images with an id above `after`, in byte order."""
        streams = (
            (entry for entry in index.entries(after) if entry.record.id in self._stamps)
            for index in self._indexes
        )
        for group in zip_longest(*streams):
            if len({entry and (entry.record.id, entry.record.content_hash) for entry in group}) > 1:
                raise IndexStateError(
                    f"one of {self.url} has changed in the meantime", "run the same command again"
                )
            if len({tuple(map(tuple, entry.boxes)) for entry in group}) > 1:
                self._leave_out(OTHER_PARTS, group[0].record.id)
            else:
                yield self._joined(group)

    @cached_property
    def _stamps(self) -> dict[str, Stamp]:
        return {i: stamp for stamps in self._by_source.values() for i, stamp in stamps.items()}

    def _joined(self, group: Sequence[Entry]) -> Entry:
        record = group[0].record
        stamp = self._stamps[record.id]
        blocks = [
            block
            for descriptor, entry in zip(self._descriptors, group, strict=True)
            for block in _blocks(descriptor, entry.vectors)
        ]
        return Entry(
            replace(
                record,
                label=stamp.label,
                metadata=stamp.metadata,
                given=stamp.given,
                decoder=min(entry.record.decoder for entry in group),
            ),
            fuse(blocks, self._composed.weights),
            group[0].boxes,
            next((entry.thumbnail for entry in group if entry.thumbnail), b""),
        )

    def _common(self) -> dict[str, dict[str, Stamp]]:
        """Source -> id -> merged stamp of the images that all indexes have."""
        first, *others = [
            {name: index.stamps(name) for name in index.sources()} for index in self._indexes
        ]
        common: dict[str, dict[str, Stamp]] = {}
        for name, stamps in first.items():
            for record_id, stamp in stamps.items():
                theirs = [other.get(name, {}).get(record_id) for other in others]
                same = [t for t in theirs if t and t.content_hash == stamp.content_hash]
                if None in theirs:
                    self._leave_out(LACKING, record_id)
                elif len(same) < len(theirs):
                    self._leave_out(CHANGED, record_id)
                elif any(other.parts != stamp.parts for other in same):
                    self._leave_out(OTHER_PARTS, record_id)
                else:
                    merged = reduce(partial(self.merging.stamp, record_id), same, stamp)
                    common.setdefault(name, {})[record_id] = merged
        known = {record_id for stamps in first.values() for record_id in stamps}
        for record_id in {i for other in others for stamps in other.values() for i in stamps}:
            if record_id not in known:
                self._leave_out(LACKING, record_id)
        return common

    def _leave_out(self, reason: str, record_id: str) -> None:
        self.left_out[reason] += 1
        self.examples[reason] = min(self.examples.get(reason, record_id), record_id)


def _blocks(descriptor: Descriptor, vectors: Vectors) -> list[Vectors]:
    if isinstance(descriptor, ComposedDescriptor):
        return descriptor.blocks(vectors)
    return [vectors]
