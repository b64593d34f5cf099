"""The query and the options of a search."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict

import numpy as np

from cbir.errors import ImageError, QueryError
from cbir.files import read_regular
from cbir.images.decode import decode, pixels_of_image
from cbir.index import filters
from cbir.index.entries import check_k, check_whole
from cbir.types import Box, RgbImage

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_K = 10_000
MAX_TEXT = 10_000
"""Characters of a query's text; a model reads far fewer and ignores the rest."""


@dataclass(frozen=True, slots=True)
class IndexedId:
    """An image that is in the index; its own record is left out of the results."""

    id: str


class ReadableFile(Protocol):
    """A file opened in binary mode, or anything else whose `read` returns an image file's bytes."""

    def read(self) -> Any: ...


Picture: TypeAlias = "str | Path | bytes | ReadableFile | Image | RgbImage"
"""A file's path, its bytes, the opened file, a `PIL.Image`, or RGB pixels, uint8 (h, w, 3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A picture or an indexed image, whole or only its `region`, or words, or both together.

    `region`: left, top, right, bottom as fractions (0..1). `text`: what to look for, stripped of
    white space around it; the index's model must have a text tower. Raises `QueryError` for an
    invalid region or text, and if there is neither a picture nor text.
    """

    of: Picture | IndexedId | None = None
    region: Box | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.of is None and self.text is None:
            raise QueryError("the query is empty", "give a picture, an indexed image or words")
        if self.text is not None:
            object.__setattr__(self, "text", _checked_text(self.text))
        if self.region is not None:
            _check_region(self.region, self.of)


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search, the same for every interface.

    `k`: how many hits. `where`: a filter such as "label=cat", or several, which must all hold.
    `exact`: no approximation. `expand`: how many first hits the query is averaged with before a
    second search (0: none). `any_orientation`: search with the query in all eight orientations; a
    record's score is its best. `verify`: re-rank the first `verify.LOOKED_AT` hits (all k if k is
    larger) by geometric verification. `text_weight`: the share of the words in a query of a picture
    and words, from 0 (only the picture counts) to 1 (only the words). Raises `QueryError` for
    values out of range.
    """

    k: int = 10
    where: Sequence[str] = ()
    exact: bool = False
    expand: int = 0
    any_orientation: bool = False
    verify: bool = False
    text_weight: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", filters.texts(self.where))
        check_k(self.k, MAX_K)
        check_whole("expand", self.expand)
        if self.expand < 0:
            raise QueryError(f"expand is {self.expand}", "choose 0 or more")
        if not isinstance(self.text_weight, Real) or not 0 <= self.text_weight <= 1:
            raise QueryError(f"text_weight is {self.text_weight!r}", "choose a number from 0 to 1")

    def check_for(self, query: Query) -> None:
        """Raise `QueryError` if an option needs a picture and `query` has only words."""
        for name, what in (
            ("any_orientation", "search in any orientation"),
            ("verify", "verification"),
        ):
            if query.of is None and getattr(self, name):
                raise QueryError(
                    f"{what} needs a picture, and the query is only words",
                    f"add a picture, or search without {name}",
                )


class OptionChanges(TypedDict, total=False):
    """The fields of `SearchOptions` as keyword arguments."""

    k: int
    where: Sequence[str]
    exact: bool
    expand: int
    any_orientation: bool
    verify: bool
    text_weight: float


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
    if not isinstance(picture, str | os.PathLike):
        return _pixels_of_object(picture)
    if not str(picture):
        raise ImageError("the name of the picture is empty", "give the path of an image file")
    try:
        data = read_regular(picture)
    except OSError as error:
        raise ImageError(
            f"{picture}: {error.strerror}", "give the path of an image file"
        ) from error
    try:
        return decode(data)
    except ImageError as error:
        raise ImageError(f"{picture}: {error.message}", error.hint) from error


def _pixels_of_object(picture: ReadableFile | Image) -> RgbImage:
    """The RGB pixels of an opened file or a `PIL.Image`; raises `ImageError` or `QueryError`."""
    from PIL.Image import Image

    if isinstance(picture, Image):
        return pixels_of_image(picture)
    data: object = picture
    if hasattr(picture, "read"):
        data = "" if isinstance(picture, io.TextIOBase) else picture.read()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise QueryError(
            f"the query is {type(data).__name__}, not a picture",
            "give a path, bytes, a file opened in binary mode, a PIL.Image or an RGB array",
        )
    return decode(bytes(data))


def _checked_text(text: str) -> str:
    """`text` without white space around it; raises `QueryError`."""
    if not isinstance(text, str):
        raise QueryError(f"the text is {text!r}", "say in a few words what to look for")
    stripped = text.strip()
    if not stripped:
        raise QueryError("the text is empty", "say in a few words what to look for")
    if len(stripped) > MAX_TEXT:
        raise QueryError(f"the text has {len(stripped):,} characters", f"give at most {MAX_TEXT:,}")
    try:
        stripped.encode()
    except UnicodeEncodeError as error:  # from a command line in another encoding
        raise QueryError("the text is not valid Unicode", "send it as UTF-8") from error
    return stripped


def _check_region(region: Box, of: Picture | IndexedId | None) -> None:
    try:
        left, top, right, bottom = region
        is_box = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    except (TypeError, ValueError):
        is_box = False
    if not is_box:
        raise QueryError(
            f"{region!r} is not a valid region",
            "give left, top, right, bottom as fractions between 0 and 1",
        )
    if of is None:
        raise QueryError(
            "a region needs a picture, and the query is only words",
            "add a picture, or search without a region",
        )
