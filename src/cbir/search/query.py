"""The query and the options of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from cbir.errors import ImageError, QueryError
from cbir.images.decode import decode
from cbir.index.entries import check_k
from cbir.types import Box, RgbImage

MAX_K = 10_000


@dataclass(frozen=True, slots=True)
class IndexedId:
    """An image that is in the index; its own record is left out of the results."""

    id: str


Picture = str | Path | bytes | RgbImage
"""A file's path, an image file's bytes, or RGB pixels, uint8 (height, width, 3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A picture or an indexed image to search with, whole or only its `region`.

    `region`: left, top, right, bottom as fractions (0..1). Raises `QueryError` for an invalid
    region.
    """

    of: Picture | IndexedId
    region: Box | None = None

    def __post_init__(self) -> None:
        if self.region is None:
            return
        left, top, right, bottom = self.region
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise QueryError(
                f"{self.region} is not a valid region",
                "give left, top, right, bottom as fractions between 0 and 1",
            )


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search, the same for every interface.

    `k`: how many hits. `where`: filters such as "label=cat"; all must hold. `exact`: no
    approximation. `expand`: how many first hits the query is averaged with before a second search
    (0: none). `any_orientation`: search with the query in all eight orientations; a record's score
    is its best. `verify`: re-rank the first `verify.LOOKED_AT` hits (all k if k is larger) by
    geometric verification. Raises `QueryError` for values out of range.
    """

    k: int = 10
    where: Sequence[str] = ()
    exact: bool = False
    expand: int = 0
    any_orientation: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        check_k(self.k, MAX_K)
        if self.expand < 0:
            raise QueryError(f"expand is {self.expand}", "choose 0 or more")


class OptionChanges(TypedDict, total=False):
    """The fields of `SearchOptions` as keyword arguments."""

    k: int
    where: Sequence[str]
    exact: bool
    expand: int
    any_orientation: bool
    verify: bool


def pixels_of(picture: Picture) -> RgbImage:
    """The RGB pixels of a query; raises `ImageError` or `QueryError`."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or not picture.size:
            raise QueryError(
                f"the query array is {picture.dtype} {picture.shape}",
                "give RGB pixels: uint8, height x width x 3",
            )
        return picture
    if isinstance(picture, bytes):
        return decode(picture)
    if not str(picture):
        raise ImageError("the name of the picture is empty", "give the path of an image file")
    try:
        data = Path(picture).read_bytes()
    except OSError as error:
        raise ImageError(
            f"{picture}: {error.strerror}", "give the path of an image file"
        ) from error
    try:
        return decode(data)
    except ImageError as error:
        raise ImageError(f"{picture}: {error.message}", error.hint) from error
