"""The state of one query, which the steps of a search share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from cbir.descriptors.fusion import unit_rows
from cbir.images.decode import load_pixels
from cbir.images.limits import keep
from cbir.images.regions import crop
from cbir.index.base import Index, Matches
from cbir.search.originals import original
from cbir.search.query import IndexedId, Query, SearchOptions, pixels_of
from cbir.types import Hit, OnDone, OnVerified, RgbImage, Vectors

DescribeImages = Callable[[Sequence[RgbImage]], Vectors]
DescribeTexts = Callable[[Sequence[str]], Vectors]

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
    """A query, its options, its picture and its words (each read at most once), and the first
    search."""

    def __init__(
        self,
        index: Index,
        describe: DescribeImages,
        describe_texts: DescribeTexts,
        query: Query,
        options: SearchOptions,
        on_done: OnDone = lambda _d, _t: None,
        on_verified: OnVerified = lambda _v: None,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        options.check_for(query)
        self.index = index
        self._describe = describe
        self._describe_texts = describe_texts
        self.query = query
        self.options = options
        self.on_done = on_done
        self.on_verified = on_verified
        self.go_on = go_on

    @cached_property
    def pixels(self) -> RgbImage:
        """The pixels to search with; raises `ImageError` if an indexed original is gone."""
        of, region = self.query.of, self.query.region
        assert of is not None  # words alone have no pixels, and options that need some are refused
        if isinstance(of, IndexedId):
            image = load_pixels(original(self.index, of.id))
            keep(image)
        else:
            image = pixels_of(of)
        return image if region is None else crop(image, region)

    @property
    def exclude(self) -> str | None:
        """The id that is left out of the results."""
        return self.query.of.id if isinstance(self.query.of, IndexedId) else None

    def views(self) -> Views:
        """The query's own vector; for an indexed image, it starts from the stored one."""
        of, text = self.query.of, self._text
        if of is None:
            assert text is not None  # a query has a picture or words
            return Views(text)
        if isinstance(of, IndexedId) and self.query.region is None:
            return Views(self._with_text(self.index.vectors(of.id)[:1]))
        return Views(self.describe([self.pixels]))

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        """The vectors (n, dim) of `images`, each joined with the query's words if it has some."""
        return self._with_text(self._describe(images))

    def match(self, vectors: Vectors, k: int) -> list[Matches]:
        """The first search: the k best records for each of `vectors` (v, dim)."""
        return first_search(self.index, vectors, k, self.options, [self.exclude] * len(vectors))

    @cached_property
    def _text(self) -> Vectors | None:
        """The vector (1, dim) of the query's words, None if it has none."""
        return None if self.query.text is None else self._describe_texts([self.query.text])

    def _with_text(self, pictures: Vectors) -> Vectors:
        """The weighted sums (n, dim) of `pictures` and the words, scaled to unit norm."""
        if self._text is None:
            return pictures
        weight = self.options.text_weight
        return unit_rows(weight * self._text + (1 - weight) * pictures)


Before = Callable[[Views, Asking], Views]
"""A step before the first search: changes the query's vectors, or returns them unchanged."""


class After(Protocol):
    """A step after the first search: changes hits, or returns them unchanged."""

    def needs(self, options: SearchOptions) -> int:
        """How many hits the step needs; 0 if it is not requested."""

    def apply(self, hits: list[Hit], asking: Asking) -> list[Hit]: ...
