"""A report as Markdown, with its plots and pictures as separate files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from cbir.images.decode import decode
from cbir.report.content import (
    Block,
    Code,
    Example,
    Examples,
    Links,
    Notes,
    Picture,
    Plot,
    Report,
    Shown,
    Table,
    Text,
    Tiles,
)
from cbir.report.pictures import GAP, SMALL, TEXT, file_bytes, font
from cbir.report.plot_style import INK, RIGHT, SOFT, WRONG, png

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")
FOLDER = "plots"

_SIDE, _PITCH = 96, 112
_LINE = 18
_HEIGHT = _SIDE + 2 * _LINE + 2 * GAP


def markdown(report: Report) -> tuple[str, dict[str, bytes]]:
    """`report` as Markdown, and its pictures by relative path."""
    files: dict[str, bytes] = {}
    lines = [f"# {escaped(report.title)}", "", escaped(report.subtitle)]
    for section in report.sections:
        lines += ["", f"## {escaped(section.title)}"]
        for block in section.blocks:
            lines += ["", *_lines(block, files)]
    return "\n".join(lines) + "\n", files


def escaped(text: str) -> str:
    """`text` on one line, with the special characters of Markdown and HTML escaped."""
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
            files[f"{FOLDER}/{name}.png"] = _sheet(block.examples)
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
        "As a table",
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


def _sheet(examples: Sequence[Example]) -> bytes:
    """A contact sheet as a PNG file: a row per query, with its picture and its marked hits."""
    most = max((len(one.hits) for one in examples), default=0)
    size = (_PITCH * (most + 1) + 3 * GAP, max(1, len(examples)) * _HEIGHT + GAP)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for number, one in enumerate(examples):
        top = number * _HEIGHT + GAP
        _put(canvas, draw, one.query, GAP, top, SOFT)
        _say(draw, GAP, top, one.query.label or "", one.figure, INK)
        for place, hit in enumerate(one.hits, 1):
            left = place * _PITCH + 2 * GAP
            colour = RIGHT if hit.right else WRONG
            _put(canvas, draw, hit.image, left, top, colour)
            mark = f"{'+' if hit.right else 'x'} {hit.score:.4f}"
            _say(draw, left, top, hit.image.label or "", mark, colour)
    return file_bytes(canvas, "PNG", optimize=True)


def _put(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, image: Shown, x: int, y: int, colour: str
) -> None:
    draw.rectangle([x - 3, y - 3, x + _SIDE + 2, y + _SIDE + 2], outline=colour, width=3)
    if image.picture is None:
        return
    picture = Image.fromarray(np.ascontiguousarray(decode(image.picture)))
    scale = _SIDE / max(picture.size)
    way = Image.Resampling.NEAREST if image.small else Image.Resampling.BICUBIC
    width, height = (max(1, round(side * scale)) for side in picture.size)
    fitted = picture.resize((width, height), way)
    canvas.paste(fitted, (x + (_SIDE - fitted.width) // 2, y + (_SIDE - fitted.height) // 2))


def _say(draw: ImageDraw.ImageDraw, x: int, y: int, label: str, figure: str, colour: str) -> None:
    while len(label) > 1 and draw.textlength(label, font(TEXT)) > _PITCH - GAP:
        label = f"{label[:-2]}…"
    draw.text((x, y + _SIDE + 6), label, fill=INK, font=font(TEXT))
    draw.text((x, y + _SIDE + 6 + _LINE), figure, fill=colour, font=font(SMALL))
