"""Reading a report as a person would: what is on the page, and whether anything is missing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class Seen:
    """The page's text, its tags with their attributes in order, and what was wrong with it."""

    text: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.seen.text.append(data)


def read_page(path: Path) -> Seen:
    """The page at `path`, after checking that it is whole and holds all it needs."""
    source = path.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(source)
    reader.close()
    seen = reader.seen
    assert not reader.open, f"not closed: {reader.open}"
    assert not seen.of("script")
    ids = Counter(a["id"] for _, a in seen.tags if "id" in a)
    assert not [name for name, count in ids.items() if count > 1], "ids that come twice"
    for name, attributes in seen.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            if key in ("src", "href", "xlink:href"):
                assert value, (name, key)
                own = value.startswith(("data:", "#"))
                assert own or name == "a", (name, key, value)
                assert own or (path.parent / unquote(value)).is_file(), f"{value} is not there"
            if value and value.startswith("#") and key in ("href", "xlink:href"):
                assert value[1:] in ids, f"{value} leads nowhere"
            if key == "aria-labelledby":
                assert value in ids
    assert not re.search(r"url\((?!#)", source), "something is fetched"
    assert all(attributes.get("alt") for attributes in seen.of("img"))
    for drawn in re.findall(r"<svg.*?</svg>", source, flags=re.DOTALL):
        ElementTree.fromstring(drawn)
    return seen


def read_markdown(path: Path) -> str:
    """The Markdown at `path`, after checking its pictures and tables."""
    text = path.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*?[^\\]\]\((.*?)\)", text)
    for picture in pictures:
        assert (path.parent / unquote(picture)).is_file(), picture
    files = {f"plots/{file.name}" for file in (path.parent / "plots").iterdir()}
    assert set(pictures) <= files
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        assert width in (0, cells), line
        width = cells
    return text
