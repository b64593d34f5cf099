"""A report as Markdown, with its plots and pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from cbir.report.content import (
    Block,
    Code,
    Examples,
    Links,
    Notes,
    Picture,
    Plot,
    Report,
    Table,
    Text,
    Tiles,
)
from cbir.report.drawing import png
from cbir.report.sheets import sheet

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")
FOLDER = "plots"


def markdown(report: Report) -> tuple[str, dict[str, bytes]]:
    """`report` as Markdown, and the files that it shows, by their path beside it."""
    files: dict[str, bytes] = {}
    lines = [f"# {escaped(report.title)}", "", escaped(report.subtitle)]
    for section in report.sections:
        lines += ["", f"## {escaped(section.title)}"]
        for block in section.blocks:
            lines += ["", *_lines(block, files)]
    return "\n".join(lines) + "\n", files


def escaped(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would take for its own."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _lines(block: Block, files: dict[str, bytes]) -> list[str]:
    match block:
        case Text(text=text, note=note):
            return [f"> {escaped(text)}" if note else escaped(text)]
        case Notes(title=title, texts=texts):
            return [
                f"**{escaped(title)}**",
                *(line for text in texts for line in ("", escaped(text))),
            ]
        case Links(title=title, links=links):
            return [
                f"**{escaped(title)}**",
                "",
                *(f"- [{escaped(link.text)}]({quote(link.page)}/report.md)" for link in links),
            ]
        case Code(text=text):
            return [f"    {line}" for line in text.splitlines()]
        case Tiles(tiles=tiles):
            return [
                f"- **{escaped(t.value)}** {escaped(t.name)}"
                + (f" ({escaped(t.beside)})" if t.beside else "")
                for t in tiles
            ]
        case Table():
            return _table(block)
        case Plot(name=name, figure=figure):
            files[f"{FOLDER}/{name}.png"] = png(figure)
            return _picture(block.title, f"{name}.png", block.alt, block.caption)
        case Picture(name=name, data=data):
            files[f"{FOLDER}/{name}.jpg"] = data
            return _picture("", f"{name}.jpg", block.alt, block.caption)
        case Examples(name=name):
            files[f"{FOLDER}/{name}.png"] = sheet(block.examples)
            return [
                *_picture(block.title, f"{name}.png", _told(block), block.caption),
                "",
                *_table(_as_table(block)),
            ]


def _picture(title: str, file: str, alt: str, caption: str) -> list[str]:
    head = [f"**{escaped(title)}**", ""] if title else []
    return [
        *head,
        f"![{escaped(alt)}]({FOLDER}/{file})",
        *(["", escaped(caption)] if caption else []),
    ]


def _table(table: Table) -> list[str]:
    align = "---:" if table.numbers else "---"
    head = [
        _row(table.header),
        "|" + "|".join(["---", *[align] * (len(table.header) - 1)]) + "|",
    ]
    return [f"**{escaped(table.title)}**", "", *head, *map(_row, table.rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


def _told(block: Examples) -> str:
    return f"{block.title}: each query's picture, then its first hits."


def _as_table(block: Examples) -> Table:
    return Table(
        "The same in words",
        ["query", "label", "figure", "right of the first hits", "first hit", "score"],
        [
            [
                one.query.id,
                one.query.label or "",
                one.figure,
                f"{sum(hit.right for hit in one.hits)} of {len(one.hits)}",
                one.hits[0].image.id if one.hits else "",
                f"{one.hits[0].score:.3f}" if one.hits else "",
            ]
            for one in block.examples
        ],
        numbers=False,
    )
