"""Queries and their hits on one picture, for Markdown, which has no rows of pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cbir.images.decode import decode
from cbir.report.canvas import GAP, INK, PAPER, SMALL, SOFT, TEXT, Colour, font
from cbir.report.content import Example, Shown

_SIDE, _PITCH = 96, 112
_LINE = 18
_HEIGHT = _SIDE + 2 * _LINE + 2 * GAP
_RIGHT: Colour = (0, 114, 178)
_WRONG: Colour = (196, 82, 10)


def sheet(examples: Sequence[Example]) -> bytes:
    """A PNG: a row a query, its picture and then its hits, right and wrong ones marked."""
    most = max((len(one.hits) for one in examples), default=0)
    size = (_PITCH * (most + 1) + 3 * GAP, max(1, len(examples)) * _HEIGHT + GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, one in enumerate(examples):
        top = number * _HEIGHT + GAP
        _put(canvas, draw, one.query, GAP, top, SOFT)
        _say(draw, GAP, top, one.query.label or "", one.figure, INK)
        for place, hit in enumerate(one.hits, 1):
            left = place * _PITCH + 2 * GAP
            colour = _RIGHT if hit.right else _WRONG
            _put(canvas, draw, hit.image, left, top, colour)
            mark = f"{'+' if hit.right else 'x'} {hit.score:.4f}"
            _say(draw, left, top, hit.image.label or "", mark, colour)
    target = io.BytesIO()
    canvas.save(target, "PNG", optimize=True)
    return target.getvalue()


def _put(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, image: Shown, x: int, y: int, colour: Colour
) -> None:
    draw.rectangle([x - 3, y - 3, x + _SIDE + 2, y + _SIDE + 2], outline=colour, width=3)
    if image.picture is None:
        return
    picture = Image.fromarray(np.ascontiguousarray(decode(image.picture)))
    scale = _SIDE / max(picture.size)
    way = Image.Resampling.NEAREST if image.small else Image.Resampling.BICUBIC
    fitted = picture.resize(_scaled(picture.size, scale), way)
    canvas.paste(fitted, (x + (_SIDE - fitted.width) // 2, y + (_SIDE - fitted.height) // 2))


def _say(
    draw: ImageDraw.ImageDraw, x: int, y: int, label: str, figure: str, colour: Colour
) -> None:
    while len(label) > 1 and draw.textlength(label, font(TEXT)) > _PITCH - GAP:
        label = f"{label[:-2]}…"
    draw.text((x, y + _SIDE + 6), label, fill=INK, font=font(TEXT))
    draw.text((x, y + _SIDE + 6 + _LINE), figure, fill=colour, font=font(SMALL))


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
