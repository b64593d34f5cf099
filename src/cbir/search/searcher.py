"""Searching: a picture, part of one, or an indexed id in; hits out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.contract import Descriptor, describe, prepare
from cbir.descriptors.models import descriptor_of, load_descriptor
from cbir.errors import CbirError, ImageError, QueryError
from cbir.images.decode import decode, load_pixels
from cbir.images.regions import crop
from cbir.images.sources import file_path
from cbir.index.base import Index, Matches
from cbir.index.open import open_index
from cbir.search.expand import expanded_query
from cbir.search.orient import ORIENTATIONS, best_orientations, in_every_orientation
from cbir.search.originals import Originals
from cbir.search.verify import LOOKED_AT, SecondLook
from cbir.types import WHOLE, Box, Hit, OnDone, RgbImage, Vectors

MAX_K = 10_000
REMOVALS_OUTRUN = 3


@dataclass(frozen=True, slots=True)
class IndexedId:
    """A query by an image that is in the index; its own record is left out of the answer."""

    id: str


Query = str | Path | bytes | RgbImage | IndexedId
"""A file's path, an image file's bytes, RGB pixels (height, width, 3), or an indexed id."""


class Searcher:
    """An open index and the descriptor that belongs to it. Thread-safe; open one a process."""

    def __init__(self, index: Index, descriptor: Descriptor | None = None) -> None:
        self.index = index
        self._given = descriptor
        self._loading = threading.Lock()
        self._loaded: Descriptor | None = None
        self._second_look = SecondLook(index)
        if descriptor is not None and descriptor.spec.fingerprint != index.spec.fingerprint:
            raise CbirError(
                f"{index.url} was built with {index.spec.short}; you gave {descriptor.spec.short}",
                "leave the descriptor out to search with the index's own",
            )

    @classmethod
    def open(cls, url: str | Path, descriptor: str | Descriptor | None = None) -> Searcher:
        """A searcher over the index at `url`; raises `IndexStateError` if there is none.

        `descriptor` (or its name) is needed only where the index cannot load it by itself: one
        that is neither a model nor an installed entry point.
        """
        given = load_descriptor(descriptor) if isinstance(descriptor, str) else descriptor
        return cls(open_index(os.fspath(url)), given)

    @property
    def descriptor(self) -> Descriptor:
        """The index's descriptor, loaded when it is first needed."""
        with self._loading:
            if self._loaded is None:
                index = self.index
                self._loaded = self._given or descriptor_of(index.spec, index.model_files())
            return self._loaded

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Sequence[str] = (),
        region: Box | None = None,
        exact: bool = False,
        expand: int = 0,
        any_orientation: bool = False,
        verify: bool = False,
        on_done: OnDone = lambda _d, _t: None,
    ) -> list[Hit]:
        """The k most similar records, best first.

        `where`: filters such as "label=cat", all must hold. `region`: the part of the query
        picture to look for, as fractions. `exact`: no approximation. `expand`: how many first
        hits the query is averaged with before a second search (0: none). `any_orientation`:
        searches with the query turned and mirrored in all eight ways; a record's score is its best.
        `verify`: the first `second_look.LOOKED_AT` hits (all k where k is more) are compared with
        the query point by point and ordered by how many points agree, then by score; the k first
        are returned. `on_done(done, total)` is called as they are, query by query.
        """
        regions = None if region is None else [region]
        return self.search_many(
            [query],
            k,
            where=where,
            regions=regions,
            exact=exact,
            expand=expand,
            any_orientation=any_orientation,
            verify=verify,
            on_done=on_done,
        )[0]

    def search_many(
        self,
        queries: Sequence[Query],
        k: int = 10,
        *,
        where: Sequence[str] = (),
        regions: Sequence[Box] | None = None,
        exact: bool = False,
        expand: int = 0,
        any_orientation: bool = False,
        verify: bool = False,
        on_done: OnDone = lambda _d, _t: None,
    ) -> list[list[Hit]]:
        """`search` for each of `queries`, in one go; the same answers as one at a time."""
        if not 1 <= k <= MAX_K:
            raise QueryError(f"k is {k}", f"choose a k from 1 to {MAX_K}")
        views = len(ORIENTATIONS) if any_orientation else 1
        vectors = self._views(queries, regions, any_orientation)
        exclude = [
            q.id if isinstance(q, IndexedId) else None for q in queries for _ in range(views)
        ]
        wanted = max(k, LOOKED_AT) if verify else k

        def answer() -> list[list[Hit]]:
            found = self.match(
                vectors, wanted, where=where, exclude=exclude, exact=exact, expand=expand
            )
            return self._best_hits(found, wanted) if any_orientation else self.hits(found)

        hits = _outrunning_removals(answer)
        if not verify:
            return hits
        images = (
            self._image(query, None if regions is None else regions[number])
            for number, query in enumerate(queries)
        )
        return [
            self._second_look.ordered(image, found, on_done)[:k]
            for image, found in zip(images, hits, strict=True)
        ]

    def query_vectors(
        self, queries: Sequence[Query], regions: Sequence[Box] | None = None
    ) -> Vectors:
        """One unit vector a query (q, dim); an indexed id's stored vector is taken as it is."""
        return self._views(queries, regions)

    def match(
        self,
        vectors: Vectors,
        k: int = 10,
        *,
        where: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        exact: bool = False,
        expand: int = 0,
    ) -> list[Matches]:
        """The k best records for each of `vectors` (q, dim), as ids and scores."""
        if expand < 0:
            raise QueryError(f"expand is {expand}", "choose 0 or more")
        if expand:
            vectors = self.expanded(vectors, expand, where=where, exclude=exclude, exact=exact)
        return self.index.search(vectors, k, where=where, exclude=exclude, exact=exact)

    def expanded(
        self,
        vectors: Vectors,
        expand: int,
        *,
        where: Sequence[str] = (),
        exclude: Sequence[str | None] | None = None,
        exact: bool = False,
    ) -> Vectors:
        """Each of `vectors` (q, dim) averaged with the matched parts of its first `expand` hits."""
        first = self.index.search(vectors, expand, where=where, exclude=exclude, exact=exact)
        return np.stack([self._expanded(v, found) for v, found in zip(vectors, first, strict=True)])

    def hits(self, matches: Sequence[Matches]) -> list[list[Hit]]:
        """Matches with their records and paths."""
        folders = self.index.sources()
        return [self._hits(found, folders) for found in matches]

    def original(self, record_id: str) -> bytes | RgbImage:
        """The indexed picture itself: from the index if it is kept there, else from its source.

        A file's bytes, or RGB pixels where there is no file. Raises `ImageError` when it is gone.
        """
        return Originals(self.index).open(self.index.records([record_id])[0])

    def warm_up(self) -> None:
        """Load all that a search needs, so that the first person to search does not wait for it."""
        grey = np.full((32, 32, 3), 127, dtype=np.uint8)
        self.search(grey, k=1)

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def _views(
        self,
        queries: Sequence[Query],
        regions: Sequence[Box] | None,
        any_orientation: bool = False,
    ) -> Vectors:
        """A unit vector for every view of every query: itself, or all of `ORIENTATIONS`."""
        views = len(ORIENTATIONS) if any_orientation else 1
        rows = np.empty((len(queries) * views, self.index.spec.dim), dtype=np.float32)
        waiting: dict[int, RgbImage] = {}
        for number, query in enumerate(queries):
            region = None if regions is None else regions[number]
            first = number * views
            stored = isinstance(query, IndexedId) and region is None
            if isinstance(query, IndexedId) and stored:
                rows[first] = self.index.vectors(query.id)[0]
                if not any_orientation:
                    continue
            image = self._image(query, region)
            seen = in_every_orientation(image) if any_orientation else [image]
            for view in range(int(stored), views):
                waiting[first + view] = prepare(self.descriptor, seen[view])
        if waiting:
            rows[list(waiting)] = describe(self.descriptor, list(waiting.values()))
        return rows

    def _image(self, query: Query, region: Box | None) -> RgbImage:
        """The pixels to search with; raises `ImageError` where an indexed original is gone."""
        box = WHOLE if region is None else _checked(region)
        if isinstance(query, IndexedId):
            return crop(load_pixels(self.original(query.id)), box)
        return crop(_pixels(query), box)

    def _best_hits(self, answers: Sequence[Matches], k: int) -> list[list[Hit]]:
        """The hits of queries that were searched in every orientation: as many answers each."""
        views = len(ORIENTATIONS)
        best = [
            best_orientations(answers[start : start + views], k)
            for start in range(0, len(answers), views)
        ]
        return [
            [replace(hit, orientation=one) for hit, one in zip(hits, found, strict=True)]
            for hits, (_, found) in zip(self.hits([m for m, _ in best]), best, strict=True)
        ]

    def _expanded(self, vector: NDArray[np.float32], found: Matches) -> NDArray[np.float32]:
        """The query averaged with the matched part of each of its first hits."""
        neighbours = [self.index.vectors(record_id) for record_id in found.ids]
        if not neighbours:
            return vector
        matched = np.stack([parts[np.argmax(parts @ vector)] for parts in neighbours])
        return expanded_query(vector, matched, found.scores)

    def _hits(self, found: Matches, folders: Mapping[str, str]) -> list[Hit]:
        records = self.index.records(found.ids)
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


def _outrunning_removals(answer: Callable[[], list[list[Hit]]]) -> list[list[Hit]]:
    """`answer()`, again where a writer removed a match before its record was read."""
    for _ in range(REMOVALS_OUTRUN):
        with suppress(QueryError):
            return answer()
    return answer()


def _pixels(query: str | Path | bytes | RgbImage) -> RgbImage:
    if isinstance(query, np.ndarray):
        if query.dtype != np.uint8 or query.ndim != 3 or query.shape[2] != 3 or not query.size:
            raise QueryError(
                f"the query array is {query.dtype} {query.shape}",
                "give RGB pixels: uint8, height x width x 3",
            )
        return query
    if isinstance(query, bytes):
        return decode(query)
    if not str(query):
        raise ImageError("the name of the picture is empty", "give the path of an image file")
    try:
        data = Path(query).read_bytes()
    except OSError as error:
        raise ImageError(f"{query}: {error.strerror}", "give the path of an image file") from error
    try:
        return decode(data)
    except ImageError as error:
        raise ImageError(f"{query}: {error.message}", error.hint) from error


def _checked(region: Box) -> Box:
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise QueryError(
            f"{region} is no part of a picture",
            "give left, top, right, bottom as fractions between 0 and 1",
        )
    return region
