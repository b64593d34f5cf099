"""What a report says, apart from how it looks: sections of blocks, for page and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph; a `note` is set apart, for what is easily overlooked."""

    text: str
    note: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notes:
    """Paragraphs that explain what stands beside them; `wide` ones what stands above."""

    title: str
    texts: Sequence[str]
    wide: bool = False
    kind: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Link:
    """What is to be found at another page, `page` relative to this one, without its suffix."""

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
    """Lines as they are typed."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Tile:
    """A figure that stands out: its value, what it is, and what stands beside it."""

    value: str
    name: str
    beside: str = ""


@dataclass(frozen=True)
class Tiles:
    """The figures to see first."""

    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header. The first column names the row; `numbers`: the others are
    figures. `folded`: shown when asked for, under its `title`; `wide`: over the whole width.
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
    """A drawn figure. `name` is its file's; `alt` says in words what is to be seen. A `wide` one
    has the whole width.
    """

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
    """An image of the collection: its id, label, encoded picture (None: it has none), enlarged
    with sharp edges where it is `small`.
    """

    id: str
    label: str | None
    picture: bytes | None
    small: bool


@dataclass(frozen=True)
class ShownHit:
    """A hit in a row of pictures; `right` where it is relevant to the query."""

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
    """Queries as pictures with their hits, under a title. `name` is their sheet's file's."""

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
    """A whole report; `subtitle` says in one line what was measured."""

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=list)
