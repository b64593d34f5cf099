"""The state of one query, which the steps of a search share."""

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
"""Merges the results of a query's views into the k best matches; also returns the name of the view
that found each (no names if there is only one view)."""


def only_answer(answers: Sequence[Matches], _k: int) -> tuple[Matches, Sequence[str]]:
    """The merge rule of a query with one view: its results, unchanged."""
    return answers[0], ()


@dataclass(frozen=True, slots=True)
class Views:
    """The query of the first search: unit vectors (v, dim), and the rule that merges results."""

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
        """The pixels to search with; raises `ImageError` if an indexed original is gone."""
        of, region = self.query.of, self.query.region
        if isinstance(of, IndexedId):
            image = load_pixels(original(self.index, of.id))
        else:
            image = pixels_of(of)
        return image if region is None else crop(image, region)

    @property
    def exclude(self) -> str | None:
        """The id that is left out of the results."""
        return self.query.of.id if isinstance(self.query.of, IndexedId) else None

    def views(self) -> Views:
        """The query's own vector; for an indexed image, the stored one."""
        if isinstance(self.query.of, IndexedId) and self.query.region is None:
            return Views(self.index.vectors(self.query.of.id)[:1])
        return Views(self.describe([self.pixels]))

    def match(self, vectors: Vectors, k: int) -> list[Matches]:
        """The first search: the k best records for each of `vectors` (v, dim)."""
        return first_search(self.index, vectors, k, self.options, [self.exclude] * len(vectors))


Before = Callable[[Views, Asking], Views]
"""A step before the first search: changes the query's vectors, or returns them unchanged."""


class After(Protocol):
    """A step after the first search: changes hits, or returns them unchanged."""

    def needs(self, options: SearchOptions) -> int:
        """How many hits the step needs; 0 if it is not requested."""

    def apply(self, hits: list[Hit], asking: Asking) -> list[Hit]: ...
