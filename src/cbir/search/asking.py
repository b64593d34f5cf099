"""One query on its way to an answer: what the steps of a search are given, and may call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from cbir.images.decode import load_pixels
from cbir.images.regions import crop
from cbir.index.base import Index, Matches
from cbir.search.originals import original
from cbir.search.query import IndexedId, Query, SearchOptions, pixels_of
from cbir.types import Hit, OnDone, RgbImage, Vectors

Merge = Callable[[Sequence[Matches], int], tuple[Matches, Sequence[str]]]
"""From the answers of a query's views and k to the k best matches, and the name of the view that
found each (no names where there is but one view)."""


def only_answer(answers: Sequence[Matches], _k: int) -> tuple[Matches, Sequence[str]]:
    """The merge rule of a query with one view: its answer."""
    return answers[0], ()


@dataclass(frozen=True, slots=True)
class Views:
    """A query as the first search sees it: unit vectors (v, dim), and how v answers become one."""

    vectors: Vectors
    merge: Merge = only_answer


def first_search(
    index: Index,
    vectors: Vectors,
    k: int,
    options: SearchOptions,
    exclude: Sequence[str | None],
) -> list[Matches]:
    """The k best records for each of `vectors` (q, dim), without its id in `exclude` (q)."""
    return index.search(vectors, k, where=options.where, exclude=exclude, exact=options.exact)


class Asking:
    """A query, its options, its picture (decoded at most once), and the first search."""

    def __init__(
        self,
        index: Index,
        describe: Callable[[Sequence[RgbImage]], Vectors],
        query: Query,
        options: SearchOptions,
        on_done: OnDone,
    ) -> None:
        self.index = index
        self.describe = describe
        self.query = query
        self.options = options
        self.on_done = on_done

    @cached_property
    def pixels(self) -> RgbImage:
        """The region searched with; raises `ImageError` where an indexed original is gone."""
        of, region = self.query.of, self.query.region
        if isinstance(of, IndexedId):
            image = load_pixels(original(self.index, of.id))
        else:
            image = pixels_of(of)
        return image if region is None else crop(image, region)

    @property
    def exclude(self) -> str | None:
        """The id that is left out of the answer."""
        return self.query.of.id if isinstance(self.query.of, IndexedId) else None

    def views(self) -> Views:
        """The query's own vector; that of an indexed image is taken as it is stored."""
        if isinstance(self.query.of, IndexedId) and self.query.region is None:
            return Views(self.index.vectors(self.query.of.id)[:1])
        return Views(self.describe([self.pixels]))

    def match(self, vectors: Vectors, k: int) -> list[Matches]:
        """The first search: the k best records for each of `vectors` (v, dim)."""
        return first_search(self.index, vectors, k, self.options, [self.exclude] * len(vectors))


Before = Callable[[Views, Asking], Views]
"""A step before the first search: changes the query's vectors, or returns them as they are."""


class After(Protocol):
    """A step after the first search: changes hits, or returns them as they are."""

    def needs(self, options: SearchOptions) -> int:
        """How many hits the step wants to see; 0 if it is not asked for."""

    def apply(self, hits: list[Hit], asking: Asking) -> list[Hit]: ...
