"""An image source that takes its labels from metadata files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.ingest.metadata import Metadata, label_in
from cbir.types import RgbImage


@dataclass
class MetadataLabels:
    """The images of `source` with the labels of `metadata`; others keep those of the source.

    Ids are those that a new index gives. `on_end` is called once all images were yielded: then
    `Metadata.unused` knows the rows that matched none.
    """

    source: ImageSource
    metadata: Sequence[Metadata]
    on_end: Callable[[], None] = lambda: None
    ignored: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        source = self.source
        self.name, self.uri, self.scope = source.name, source.uri, source.scope
        self.descriptor = source.descriptor

    @property
    def count(self) -> int | None:
        return self.source.count

    def items(self) -> Iterator[SourceItem]:
        for item in self.source.items():
            found = label_in(self.metadata, make_id(self.name, item.key), item.location, self.uri)
            yield item if found is None else replace(item, label=found)
        self.ignored = self.source.ignored
        self.on_end()

    def open(self, location: str) -> bytes | RgbImage:
        return self.source.open(location)
