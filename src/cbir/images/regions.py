"""Regions: the parts of an image that have their own vectors, and how to crop them."""

from __future__ import annotations

from cbir.errors import CbirError
from cbir.types import WHOLE, Box, RgbImage


def region_boxes(regions: int) -> list[Box]:
    """The boxes of 1 (whole), 5 (plus 2x2) or 14 (plus overlapping 3x3) regions."""
    quarters = _grid(count=2, size=0.5)
    ninths = _grid(count=3, size=0.4)
    layouts = {1: [WHOLE], 5: [WHOLE, *quarters], 14: [WHOLE, *quarters, *ninths]}
    if regions not in layouts:
        raise CbirError(f"invalid number of regions: {regions}", "choose 1, 5 or 14")
    return layouts[regions]


def crop(image: RgbImage, box: Box) -> RgbImage:
    """The part of `image` inside `box`, at least one pixel in each direction."""
    height, width = image.shape[:2]
    left, right = _pixels(box[0], box[2], width)
    top, bottom = _pixels(box[1], box[3], height)
    return image[top:bottom, left:right]


def _grid(count: int, size: float) -> list[Box]:
    starts = [i * (1 - size) / (count - 1) for i in range(count)]
    return [(x, y, x + size, y + size) for y in starts for x in starts]


def _pixels(start: float, end: float, size: int) -> tuple[int, int]:
    first = min(int(start * size), size - 1)
    return first, max(first + 1, min(size, round(end * size)))
