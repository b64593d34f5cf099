"""Pictures drawn with Pillow and OpenCV: arrays in, RGB pictures out; charts are in `plots`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cbir.descriptors.local.opencv import cv2
from cbir.report.plot_style import INK, LINE, SOFT
from cbir.types import RgbImage

Colour = tuple[int, int, int]
Numbers = NDArray[np.floating[Any]]

FAINT: Colour = (222, 222, 222)
ACCENT: Colour = (209, 73, 91)
YELLOW: Colour = (255, 221, 51)

TITLE, TEXT, SMALL = 20, 15, 13
GAP = 12

THICK_FROM = 12
"""The radius in pixels from which circles have thick lines."""

_SHIFT = 4


class Row(NamedTuple):
    """A line of a sheet: its caption and its patches."""

    label: str
    patches: Sequence[RgbImage]


def enlarged(image: RgbImage, side: int) -> tuple[RgbImage, int]:
    """`image` enlarged smoothly by a whole factor, and the factor.

    The factor is the largest that keeps the longer side within `side`, at least 1.
    """
    height, width = image.shape[:2]
    factor = max(1, side // max(height, width))
    size = (width * factor, height * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), factor


def with_keypoints(image: RgbImage, points: Numbers, factor: int, colour: Colour) -> RgbImage:
    """`image` with a circle at each of `points` (n, 4) and a line that shows its angle.

    `points` are x, y, diameter and degrees in an image `factor` times smaller, as in
    `LocalFeatures`. Circles are OpenCV's rich keypoints with a dark rim.
    """
    canvas = np.ascontiguousarray(image).copy()
    for point in points:
        middle = _magnified(point, factor)
        size, angle = point[2:4].tolist()
        radius = max(1.0, size / 2 * factor)
        turn = np.radians(max(0.0, angle))
        ends = _fixed(middle), _fixed(middle + radius * np.array([np.cos(turn), np.sin(turn)]))
        inner = 2 if radius >= THICK_FROM else 1  # thick lines would fill small circles
        for shade, width in (((0, 0, 0), inner + 2), (colour, inner)):
            fixed = round(radius * (1 << _SHIFT))
            cv2.circle(canvas, ends[0], fixed, shade, width, cv2.LINE_AA, _SHIFT)
            cv2.line(canvas, *ends, shade, width, cv2.LINE_AA, _SHIFT)
    return canvas


def with_dots(image: RgbImage, points: Numbers, factor: int, colour: Colour) -> RgbImage:
    """`image` with a dot at each of `points` (n, 2 or more: x, y, as in `with_keypoints`)."""
    canvas = np.ascontiguousarray(image).copy()
    for point in points:
        for shade, radius in (((0, 0, 0), 4), (colour, 3)):
            middle, fixed = _fixed(_magnified(point, factor)), radius << _SHIFT
            cv2.circle(canvas, middle, fixed, shade, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    return canvas


def with_window(
    image: RgbImage, point: Numbers, side: float, cells: int, factor: int, colour: Colour
) -> RgbImage:
    """`image` with a square of `side` pixels of the original, split into cells, around `point`."""
    canvas = np.ascontiguousarray(image).copy()
    edges = np.linspace(-side / 2, side / 2, cells + 1) * factor
    first, last = edges[0], edges[-1]
    lines = [line for e in edges for line in (((e, first), (e, last)), ((first, e), (last, e)))]
    for shade, width in (((0, 0, 0), 5), (colour, 2)):
        for line in lines:
            start, end = (_fixed(_magnified(point, factor) + np.array(each)) for each in line)
            cv2.line(canvas, start, end, shade, width, cv2.LINE_AA, _SHIFT)
    return canvas


def _magnified(point: Numbers, factor: int) -> Numbers:
    """Where `point` (x, y, ...) lies in an image `factor` times larger."""
    return (point[:2].astype(np.float64) + 0.5) * factor - 0.5


def _fixed(point: Numbers) -> tuple[int, int]:
    """`point` (x, y) in the fixed-point numbers of OpenCV."""
    x, y = np.rint(point * (1 << _SHIFT)).astype(int).tolist()
    return x, y


def captioned(picture: RgbImage, title: str, *notes: str) -> RgbImage:
    """`picture` under a title and lines of notes, on white; as wide as the widest of them."""
    lines = [(title, TITLE, INK), *((note, TEXT, SOFT) for note in notes)]
    heights = [size + 8 for _, size, _ in lines]
    top = sum(heights) + GAP // 2
    height, width = picture.shape[:2]
    widest = max([width, *(text_width(text, size) for text, size, _ in lines)])
    canvas = Image.new("RGB", (widest + 2 * GAP, height + top + 2 * GAP), "white")
    draw = ImageDraw.Draw(canvas)
    y = GAP
    for (text, size, colour), line in zip(lines, heights, strict=True):
        draw.text((GAP, y), text, fill=colour, font=font(size))
        y += line
    canvas.paste(Image.fromarray(picture), (GAP, top + GAP))
    return np.asarray(canvas)


def below(pictures: Sequence[RgbImage]) -> RgbImage:
    """`pictures` stacked vertically, aligned left, on white."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_on_paper(p, p.shape[0], width) for p in pictures])


def beside(pictures: Sequence[RgbImage]) -> RgbImage:
    """`pictures` side by side with a gap, aligned at the top, on white."""
    height = max(picture.shape[0] for picture in pictures)
    parts = [_on_paper(p, height, p.shape[1] + GAP) for p in pictures[:-1]]
    return np.concatenate([*parts, _on_paper(pictures[-1], height, pictures[-1].shape[1])], axis=1)


def sheet(rows: Sequence[Row], side: int) -> RgbImage:
    """Rows of patches (any size, shown `side` x `side`), each after its label."""
    label_width = max(text_width(row.label, TEXT) for row in rows) + GAP
    most = max(len(row.patches) for row in rows)
    pitch = side + 4
    canvas = Image.new("RGB", (label_width + most * pitch, len(rows) * pitch), "white")
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        draw.text((0, number * pitch + side / 2), row.label, fill=INK, font=font(TEXT), anchor="lm")
        for place, patch in enumerate(row.patches):
            shown = Image.fromarray(patch).resize((side, side), Image.Resampling.NEAREST)
            x, y = label_width + place * pitch, number * pitch
            canvas.paste(shown, (x, y))
            draw.rectangle([x, y, x + side - 1, y + side - 1], outline=LINE)
    return np.asarray(canvas)


def grid(patches: NDArray[np.uint8], columns: int, factor: int) -> RgbImage:
    """Patches (n, h, w, 3) in `columns`, each pixel `factor` wide, with light lines between."""
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
    """The square of `window` pixels around `point` (x, y, size, degrees), rotated upright.

    The result has `side` x `side` pixels, light grey outside the image.
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


def file_bytes(image: Image.Image | RgbImage, kind: str, **options: Any) -> bytes:
    """`image` as the bytes of a PNG or JPEG file; `options` are those of Pillow."""
    target = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(target, kind, **options)
    return target.getvalue()


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
