"""Drawing with Pillow and OpenCV: arrays in, RGB pictures out; no plotting library is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cbir.descriptors.local.opencv import cv2
from cbir.types import RgbImage

Colour = tuple[int, int, int]
Numbers = NDArray[np.floating[Any]]

PAPER: Colour = (255, 255, 255)
INK: Colour = (34, 34, 34)
FAINT: Colour = (222, 222, 222)
SOFT: Colour = (110, 110, 110)
ACCENT: Colour = (209, 73, 91)
YELLOW: Colour = (255, 221, 51)
PALETTE: tuple[Colour, ...] = ((32, 99, 155), (217, 119, 6), (23, 138, 92), (124, 58, 160))
"""Colours of blocks, by their number."""

TITLE, TEXT, SMALL = 20, 15, 13
GAP = 12

CHART_WIDTH, CHART_HEIGHT = 1000, 180
LEFT, RIGHT, ABOVE, BELOW = 64, 16, 26, 26
"""What surrounds the plot of a chart, in pixels."""

THICK_FROM = 12
"""The radius in pixels from which circles have thick lines."""

_SHIFT = 4
_STEPS = (1, 2, 2.5, 5, 10)


class Row(NamedTuple):
    """A line of a sheet: what is said of it, and its patches."""

    label: str
    patches: Sequence[RgbImage]


def enlarged(image: RgbImage, side: int) -> tuple[RgbImage, int]:
    """`image` times the largest whole factor that keeps its longer side within `side`, and that.

    Smooth, as a person recognises more of 32 x 32 pixels so. Never smaller than it was.
    """
    height, width = image.shape[:2]
    factor = max(1, side // max(height, width))
    size = (width * factor, height * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), factor


def with_keypoints(image: RgbImage, points: Numbers, factor: int, colour: Colour) -> RgbImage:
    """`image` with a circle at each of `points` (n, 4) and a line that shows its angle.

    `points` are x, y, diameter and degrees in an image `factor` times smaller, as in
    `LocalFeatures`; circles as OpenCV's rich keypoints, with a dark rim that shows on any ground.
    """
    canvas = np.ascontiguousarray(image).copy()
    scale = 1 << _SHIFT
    for x, y, size, angle in points:
        middle = np.array([(x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5])
        radius = max(1.0, size / 2 * factor)
        turn = np.radians(max(0.0, angle))
        tip = middle + radius * np.array([np.cos(turn), np.sin(turn)])
        start, end = (tuple(int(v) for v in np.rint(p * scale)) for p in (middle, tip))
        inner = 2 if radius >= THICK_FROM else 1  # or a small circle is filled up
        for shade, width in (((0, 0, 0), inner + 2), (colour, inner)):
            cv2.circle(canvas, start, round(radius * scale), shade, width, cv2.LINE_AA, _SHIFT)
            cv2.line(canvas, start, end, shade, width, cv2.LINE_AA, _SHIFT)
    return canvas


def with_dots(image: RgbImage, points: Numbers, factor: int, colour: Colour) -> RgbImage:
    """`image` with a dot at each of `points` (n, 2 or more: x, y, as in `with_keypoints`)."""
    canvas = np.ascontiguousarray(image).copy()
    scale = 1 << _SHIFT
    for x, y in points[:, :2]:
        middle = [round(((v + 0.5) * factor - 0.5) * scale) for v in (float(x), float(y))]
        for shade, radius in (((0, 0, 0), 4), (colour, 3)):
            cv2.circle(canvas, middle, radius * scale, shade, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    return canvas


def with_window(
    image: RgbImage, point: Numbers, side: float, cells: int, factor: int, colour: Colour
) -> RgbImage:
    """`image` with a square of `side` pixels of the original, split into cells, around `point`."""
    canvas = np.ascontiguousarray(image).copy()
    middle = (point[:2] + 0.5) * factor - 0.5
    edges = np.linspace(-side / 2, side / 2, cells + 1) * factor
    scale = 1 << _SHIFT
    for shade, width in (((0, 0, 0), 5), (colour, 2)):
        for edge in edges:
            for ends in (
                ((edge, edges[0]), (edge, edges[-1])),
                ((edges[0], edge), (edges[-1], edge)),
            ):
                start, end = (
                    tuple(int(v) for v in np.rint((middle + np.array(p)) * scale)) for p in ends
                )
                cv2.line(canvas, start, end, shade, width, cv2.LINE_AA, _SHIFT)
    return canvas


def captioned(picture: RgbImage, title: str, *notes: str) -> RgbImage:
    """`picture` under a title and lines of notes, on white; as wide as the widest of them."""
    lines = [(title, TITLE, INK), *((note, TEXT, SOFT) for note in notes)]
    heights = [size + 8 for _, size, _ in lines]
    top = sum(heights) + GAP // 2
    height, width = picture.shape[:2]
    widest = max([width, *(text_width(text, size) for text, size, _ in lines)])
    canvas = Image.new("RGB", (widest + 2 * GAP, height + top + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = GAP
    for (text, size, colour), line in zip(lines, heights, strict=True):
        draw.text((GAP, y), text, fill=colour, font=font(size))
        y += line
    canvas.paste(Image.fromarray(picture), (GAP, top + GAP))
    return np.asarray(canvas)


def below(pictures: Sequence[RgbImage]) -> RgbImage:
    """`pictures` one below another, left edges in line, on white."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_on_paper(p, p.shape[0], width) for p in pictures])


def beside(pictures: Sequence[RgbImage]) -> RgbImage:
    """`pictures` side by side with a gap, upper edges in line, on white."""
    height = max(picture.shape[0] for picture in pictures)
    parts = [_on_paper(p, height, p.shape[1] + GAP) for p in pictures[:-1]]
    return np.concatenate([*parts, _on_paper(pictures[-1], height, pictures[-1].shape[1])], axis=1)


def bar_chart(
    values: Numbers, colour: Colour, title: str, *, named: Sequence[int] = (), percent: bool = False
) -> RgbImage:
    """Bars of `values` (k,), not negative, over their numbers; those `named` carry them.

    At least a pixel a bar; the highest bar is `CHART_HEIGHT` pixels or a little less, as the axis
    ends at a round number.
    """
    width = max(CHART_WIDTH, min(len(values), 4 * CHART_WIDTH))
    canvas, draw = _chart(width, title)
    step, steps = _scale(float(values.max(initial=0)))
    for number in range(steps + 1):
        y = _y(number / steps)
        draw.line([(LEFT, y), (LEFT + width, y)], fill=FAINT)
        told = f"{number * step:.3g}" if not percent else f"{100 * number * step:.3g}%"
        draw.text((LEFT - 6, y), told, fill=SOFT, font=font(SMALL), anchor="rm")
    edges = LEFT + np.arange(len(values) + 1) * width / max(1, len(values))
    space = 1 if width / max(1, len(values)) >= 4 else 0
    for number, value in enumerate(values):
        if value > 0:
            left, right = int(edges[number]), max(int(edges[number]), int(edges[number + 1]) - 1)
            top = min(_y(float(value) / (step * steps)), _y(0) - 1)
            draw.rectangle([left, top, max(left, right - space), _y(0) - 1], fill=colour)
    draw.line([(LEFT, _y(0)), (LEFT + width, _y(0))], fill=INK)
    for tick in _ticks(len(values)):
        x = (edges[tick] + edges[tick + 1]) / 2
        draw.text((x, _y(0) + 5), f"{tick:,}", fill=SOFT, font=font(SMALL), anchor="mt")
    _name_bars(draw, values / (step * steps), edges, named)
    return np.asarray(canvas)


def curve(
    xs: Sequence[float], ys: Sequence[float], title: str, x_title: str, marked: int, said: str
) -> RgbImage:
    """Points joined by lines, the one at place `marked` in another colour with `said` above it."""
    low, high = min(ys), max(ys)
    margin = (high - low or abs(high) or 1.0) * 0.25
    low, high = low - margin, high + margin
    first, last = min(xs), max(xs)
    canvas, draw = _chart(CHART_WIDTH, title, height=2 * CHART_HEIGHT, under=24)
    bottom = ABOVE + 2 * CHART_HEIGHT
    places = [
        (
            LEFT + 30 + (x - first) / (last - first or 1) * (CHART_WIDTH - 60),
            bottom - (y - low) / (high - low) * 2 * CHART_HEIGHT,
        )
        for x, y in zip(xs, ys, strict=True)
    ]
    step, _ = _scale(high - low)
    for value in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step:
        y = bottom - (value - low) / (high - low) * 2 * CHART_HEIGHT
        draw.line([(LEFT, y), (LEFT + CHART_WIDTH, y)], fill=FAINT)
        draw.text((LEFT - 6, y), f"{value:.4g}", fill=SOFT, font=font(SMALL), anchor="rm")
    draw.line([(LEFT, bottom), (LEFT + CHART_WIDTH, bottom)], fill=INK)
    draw.line(places, fill=PALETTE[0], width=3, joint="curve")
    free = 0.0
    for number, (place, x_value) in enumerate(zip(places, xs, strict=True)):
        colour, radius = (ACCENT, 8) if number == marked else (PALETTE[0], 5)
        draw.circle(place, radius, fill=colour)
        told = f"{x_value:,.0f}"
        half = text_width(told, SMALL) / 2 + 3
        if place[0] - half >= free:
            free = place[0] + half
            draw.text((place[0], bottom + 5), told, fill=SOFT, font=font(SMALL), anchor="mt")
    x, y = places[marked]
    half = text_width(said, TEXT) / 2
    x = min(max(x, LEFT + half), LEFT + CHART_WIDTH - half)
    draw.text((x, y + 16), said, fill=ACCENT, font=font(TEXT), anchor="mt")
    draw.text(
        (LEFT + CHART_WIDTH / 2, bottom + 24), x_title, fill=SOFT, font=font(SMALL), anchor="mt"
    )
    return np.asarray(canvas)


def sheet(rows: Sequence[Row], side: int) -> RgbImage:
    """Rows of patches (any size, shown `side` x `side`), each behind its label."""
    label_width = max(text_width(row.label, TEXT) for row in rows) + GAP
    most = max(len(row.patches) for row in rows)
    pitch = side + 4
    canvas = Image.new("RGB", (label_width + most * pitch, len(rows) * pitch), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        draw.text((0, number * pitch + side / 2), row.label, fill=INK, font=font(TEXT), anchor="lm")
        for place, patch in enumerate(row.patches):
            shown = Image.fromarray(patch).resize((side, side), Image.Resampling.NEAREST)
            x, y = label_width + place * pitch, number * pitch
            canvas.paste(shown, (x, y))
            draw.rectangle([x, y, x + side - 1, y + side - 1], outline=FAINT)
    return np.asarray(canvas)


def grid(patches: NDArray[np.uint8], columns: int, factor: int) -> RgbImage:
    """Patches (n, h, w, 3) in rows of `columns`, each pixel `factor` wide, a light line between."""
    n, height, width, _ = patches.shape
    rows = -(-n // columns)
    pitch = (height * factor + 2, width * factor + 2)
    canvas = np.full((rows * pitch[0] - 2, columns * pitch[1] - 2, 3), 255, dtype=np.uint8)
    for number, patch in enumerate(patches):
        y, x = (number // columns) * pitch[0], (number % columns) * pitch[1]
        large = np.repeat(np.repeat(patch, factor, axis=0), factor, axis=1)
        canvas[y : y + height * factor, x : x + width * factor] = large
    return canvas


def cut_out(image: RgbImage, point: Numbers, window: float, side: int) -> RgbImage:
    """The square of `window` pixels around `point` (x, y, size, degrees), turned upright.

    `side` x `side` pixels; what lies outside of the image is light grey.
    """
    fine = max(side, round(window))
    turn = np.radians(max(0.0, float(point[3])))
    step = window / fine
    across = np.array([np.cos(turn), np.sin(turn)]) * step
    down = np.array([-np.sin(turn), np.cos(turn)]) * step
    origin = point[:2] - (across + down) * (fine - 1) / 2
    to_image = np.column_stack([across, down, origin])
    patch = cv2.warpAffine(
        np.ascontiguousarray(image),
        to_image,
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FAINT,
    )
    shrunk = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, dtype=np.uint8)


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """How many pixels wide `text` is."""
    return int(np.ceil(font(size).getlength(text)))


def _on_paper(picture: RgbImage, height: int, width: int) -> RgbImage:
    missing = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, missing, constant_values=255)


def _chart(
    width: int, title: str, height: int = CHART_HEIGHT, under: int = 0
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    size = (LEFT + width + RIGHT, ABOVE + height + BELOW + under)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((LEFT, 2), title, fill=SOFT, font=font(TEXT))
    return canvas, draw


def _y(share: float) -> int:
    """Where `share` of a bar chart's height is, in pixels from above."""
    return round(ABOVE + CHART_HEIGHT * (1 - share))


def _scale(highest: float) -> tuple[float, int]:
    """A round step of an axis from 0 to `highest` or a little more, and how many: up to five."""
    if highest <= 0:
        return 1.0, 1
    power = 10.0 ** np.floor(np.log10(highest / 4))
    step = next(s * power for s in _STEPS if highest / (s * power) <= 5)
    return step, int(np.ceil(highest / step - 1e-9))


def _ticks(count: int) -> range:
    """Numbers of bars to write below them: about ten."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if count / s <= 12)
    return range(0, count, step)


def _name_bars(
    draw: ImageDraw.ImageDraw, shares: Numbers, edges: Numbers, named: Sequence[int]
) -> None:
    """Numbers over the bars `named`, the first ones first, where there is room."""
    taken: list[tuple[float, float, int]] = []
    for number in named:
        half = text_width(str(number), SMALL) / 2 + 3
        x, y = (edges[number] + edges[number + 1]) / 2, _y(float(shares[number])) - 3
        if all(x + half < left or x - half > right for left, right, _ in taken):
            draw.text((x, y), str(number), fill=INK, font=font(SMALL), anchor="ms")
            taken.append((x - half, x + half, y))
