"""The content of a report, independent of its format: sections of blocks, for every writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph; a `note` is highlighted."""

    text: str
    note: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notes:
    """Paragraphs that explain the block beside them, or above them if `wide`."""

    title: str
    texts: Sequence[str]
    wide: bool = False
    kind: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Link:
    """A link to another report; `page` is its folder relative to this one."""

    text: str
    page: str


@dataclass(frozen=True)
class Links:
    """Other pages of the same report."""

    title: str
    links: Sequence[Link]
    kind: ClassVar[str] = "links"


@dataclass(frozen=True)
class Code:
    """Lines of code or of a command."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Tile:
    """A prominent figure: its value, what it is, and a remark `beside` it."""

    value: str
    name: str
    beside: str = ""


@dataclass(frozen=True)
class Tiles:
    """The most important figures."""

    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header. The first column names the row.

    `numbers`: the other columns are figures. `folded`: collapsed under its title.
    `wide`: full width.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True
    folded: bool = False
    wide: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A chart. `name` is that of its file; `alt` describes it in words; `wide`: full width."""

    name: str
    title: str
    figure: Figure
    alt: str
    caption: str = ""
    wide: bool = False
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Picture:
    """A picture as the bytes of a JPEG or PNG file."""

    name: str
    data: bytes
    alt: str
    caption: str = ""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Shown:
    """An image of the collection: id, label, encoded picture or None.

    A `small` picture is enlarged with sharp edges.
    """

    id: str
    label: str | None
    picture: bytes | None
    small: bool


@dataclass(frozen=True)
class ShownHit:
    """A hit in a row of pictures; `right` if it is relevant to the query."""

    image: Shown
    rank: int
    score: float
    right: bool


@dataclass(frozen=True)
class Example:
    """A query, its figure in words, and its first hits."""

    query: Shown
    figure: str
    hits: Sequence[ShownHit]


@dataclass(frozen=True)
class Examples:
    """Queries as pictures with their hits. `name` is that of their contact sheet."""

    name: str
    title: str
    caption: str
    examples: Sequence[Example]
    kind: ClassVar[str] = "examples"


Block = Text | Notes | Links | Code | Tiles | Table | Plot | Picture | Examples


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading; `name` is its anchor."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A report; `subtitle` says in one line what the report measures."""

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=list)
