"""What one indexing run knows: its index and options, the index's contents, and its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cbir.descriptors.contract import Descriptor
from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.images.limits import DEFAULT, Limits
from cbir.index.base import Index, Stamp, Tombstone
from cbir.ingest.metadata import Metadata
from cbir.types import AddReport, Box

TELL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run: images done, their total (None: unknown) and failures among them.

    Until an image has to be read, the total is the number that the index has of the sources.
    """

    done: int
    total: int | None
    failed: int


OnProgress = Callable[[Progress], None]


@dataclass
class RunState:
    """What the sources of a run share: the index, the options, and what is known of the index.

    `rehash`: read files again that seem unchanged. `again`: forget the tombstones of what the
    sources contain. `whole`: the sources that are read as a whole. `lost`: the sources that were
    not pruned, see `run.PruneRefusedError`. `done`: how many images are done, of `total` (None:
    unknown). `uncounted`: the sources, until their images are counted.
    """

    index: Index
    descriptor: Descriptor
    boxes: Sequence[Box]
    metadata: Sequence[Metadata]
    on_progress: OnProgress
    limits: Limits = DEFAULT
    exif: bool = True
    rehash: bool = False
    again: bool = False
    report: AddReport = field(default_factory=AddReport)
    whole: set[str] = field(default_factory=set)
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)
    done: int = 0
    total: int | None = None
    uncounted: Sequence[ImageSource] = ()
    _told: float = 0.0
    _stamps: dict[str, dict[str, Stamp]] = field(default_factory=dict)

    @cached_property
    def buried(self) -> dict[str, Tombstone]:
        """The tombstones that count."""
        return {} if self.again else self.index.tombstones()

    @cached_property
    def contents(self) -> dict[str, list[str]]:
        """Content hash -> ids of the records that can be used for another image of that content."""
        contents = self.index.contents(len(self.boxes))
        contents.pop("", None)  # to be described again, see `cbir verify --repair`
        return contents

    @cached_property
    def buried_contents(self) -> dict[str, list[str]]:
        """Content hash -> ids of tombstones."""
        found: dict[str, list[str]] = {}
        for tombstone in self.buried.values():
            found.setdefault(tombstone.content_hash, []).append(tombstone.id)
        return found

    def stamps(self, source: str) -> dict[str, Stamp]:
        """The stamps that the index had of a source; several scans of it share them."""
        if source not in self._stamps:
            self._stamps[source] = self.index.stamps(source)
        return self._stamps[source]

    def count(self) -> None:
        """Count the images of all sources, if nobody has."""
        counts = [_count(source) for source in self.uncounted]
        if counts:
            self.total = None if None in counts else sum(filter(None, counts))
            self.uncounted = ()

    def tell_if_due(self) -> None:
        """Report progress, unless it was reported a moment ago."""
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            self.tell()

    def tell(self) -> None:
        """Report progress."""
        self.on_progress(Progress(self.done, self.total, len(self.report.failures)))


def _count(source: ImageSource) -> int | None:
    try:
        return source.count
    except CbirError:  # damaged; told when it is read
        return None
