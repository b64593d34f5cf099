"""Searches an index: turns a query into ranked hits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self, Unpack

import numpy as np

from cbir.descriptors.contract import Descriptor, describe, describe_texts, has_text, prepare
from cbir.descriptors.models import descriptor_of, load_descriptor
from cbir.errors import CbirError, IndexStateError, MissingExtraError, RecordGoneError
from cbir.images.sources import file_path
from cbir.index.base import Index, Matches
from cbir.index.open import open_index
from cbir.search.asking import Asking, Views
from cbir.search.near_misses import warn_of_near_misses
from cbir.search.originals import original
from cbir.search.query import IndexedId, OptionChanges, Picture, Query, SearchOptions
from cbir.search.steps import steps_over
from cbir.types import Hit, OnDone, OnVerified, RgbImage, Vectors

REMOVALS_OUTRUN = 3


class Searcher:
    """An open index and the descriptor that belongs to it. Thread-safe; open one per process.

    `with` closes it.
    """

    def __init__(self, index: Index, descriptor: Descriptor | None = None) -> None:
        self.index = index
        self._given = descriptor
        self._loading = threading.Lock()
        self._loaded: Descriptor | None = None
        self._steps = steps_over(index)
        if descriptor is not None and descriptor.spec.fingerprint != index.spec.fingerprint:
            raise CbirError(
                f"{index.url} was built with {index.spec.short}; you gave {descriptor.spec.short}",
                "omit the descriptor to search with the index's own",
            )

    @classmethod
    def open(cls, url: str | Path, descriptor: str | Descriptor | None = None) -> Searcher:
        """A searcher over the index at `url`; raises `IndexStateError` if there is none.

        `descriptor` (or its name) is needed only if it is neither a model nor an installed entry
        point, so that the index cannot load it.
        """
        given = load_descriptor(descriptor) if isinstance(descriptor, str) else descriptor
        return cls(open_index(os.fspath(url)), given)

    def reopened(self) -> Searcher:
        """A searcher over the index that now lies at the same URL, for `IndexReplacedError`."""
        return Searcher(open_index(self.index.url), self._given)

    @property
    def descriptor(self) -> Descriptor:
        """The index's descriptor, loaded on first use."""
        with self._loading:
            if self._loaded is None:
                index = self.index
                self._loaded = self._given or descriptor_of(index.spec, index.model_files())
            return self._loaded

    @property
    def has_text(self) -> bool:
        """Whether the index can be searched by words; loads no network."""
        return has_text(self.descriptor)

    def search(
        self,
        query: Query | Picture | IndexedId,
        *,
        options: SearchOptions | None = None,
        on_done: OnDone = lambda _d, _t: None,
        on_verified: OnVerified = lambda _v: None,
        go_on: Callable[[], bool] = lambda: True,
        warn: bool = True,
        **changes: Unpack[OptionChanges],
    ) -> list[Hit]:
        """The `options.k` most similar records, best first.

        Words need a `Query`: `search(Query(text="a dog"))`. `changes` are fields of `SearchOptions`
        by name: `search("query.jpg", k=5)`.
        `on_done(done, total)` is a progress callback of verification; `on_verified` gets its
        counts. Verification calls `go_on()`, from several threads, before each picture: as soon as
        it returns False, the rest stays uncompared; what it raises ends the search. If there are no
        hits and `warn`, a warning is logged for each filter that no record can match.
        """
        options = replace(options or SearchOptions(), **changes)
        asked = query if isinstance(query, Query) else Query(query)
        describers = (self._describe, self._describe_texts)
        asking = Asking(self.index, *describers, asked, options, on_done, on_verified, go_on)
        own = asking.views()
        hits = _outrunning_removals(lambda: self._first_hits(own, asking))
        for step in self._steps.after:
            hits = step.apply(hits, asking)
        if warn and not hits and options.where:
            warn_of_near_misses(self.index, options.where)
        return hits[: options.k]

    def first_query(self, query: Query, options: SearchOptions) -> tuple[Asking, Views]:
        """`query` as the first search sees it, after the steps before that."""
        describers = (self._describe, self._describe_texts)
        asking = Asking(self.index, *describers, query, options)
        views = asking.views()
        for step in self._steps.before:
            views = step(views, asking)
        return asking, views

    def looked_at(self, options: SearchOptions) -> int:
        """How many hits the first search finds: `options.k`, or more for the steps after it."""
        return max(options.k, *(step.needs(options) for step in self._steps.after))

    def hits(self, found: Matches) -> list[Hit]:
        """Matches with their records and paths; raises `RecordGoneError`."""
        folders = self.index.sources()
        records = self.index.records(found.ids)
        if lost := {record.source for record in records} - folders.keys():
            raise IndexStateError(
                f"{self.index.url} is damaged: its source '{min(lost)}' is not registered",
                "index its folder again",
            )
        return [
            Hit(
                rank=rank,
                id=record.id,
                score=float(score),
                record=record,
                box=box,
                path=file_path(folders[record.source], record.location),
            )
            for rank, (record, score, box) in enumerate(
                zip(records, found.scores, found.boxes, strict=True), 1
            )
        ]

    def original(self, record_id: str) -> bytes | RgbImage:
        """The indexed picture itself; see `originals.original`."""
        return original(self.index, record_id)

    def warm_up(self) -> None:
        """Load everything that a search needs, so that the first search does not wait for it."""
        self.search(np.full((32, 32, 3), 127, dtype=np.uint8), k=1)
        if self.has_text:
            with suppress(MissingExtraError):  # pictures need no tokenizer
                self.search(Query(text="a picture"), k=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def _describe(self, images: Sequence[RgbImage]) -> Vectors:
        descriptor = self.descriptor
        return describe(descriptor, [prepare(descriptor, image) for image in images])

    def _describe_texts(self, texts: Sequence[str]) -> Vectors:
        return describe_texts(self.descriptor, texts)

    def _first_hits(self, views: Views, asking: Asking) -> list[Hit]:
        """The hits of the first search, as many as the steps after it need."""
        for step in self._steps.before:
            views = step(views, asking)
        wanted = self.looked_at(asking.options)
        found, names = views.merge(asking.match(views.vectors, wanted), wanted)
        hits = self.hits(found)
        if not names:
            return hits
        return [replace(hit, orientation=name) for hit, name in zip(hits, names, strict=True)]


def _outrunning_removals(answer: Callable[[], list[Hit]]) -> list[Hit]:
    """Call `answer`, and again if a writer removed a match before its record was read."""
    for _ in range(REMOVALS_OUTRUN):
        with suppress(RecordGoneError):
            return answer()
    return answer()
