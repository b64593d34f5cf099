"""Makes RGB pixels from a Pillow image: turned, on white or black, converted to sRGB in bands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from cbir.images.colours import to_srgb
from cbir.images.depths import grey_scale
from cbir.types import RgbImage

if TYPE_CHECKING:
    from PIL.Image import Image

# Where the stored rows are in an array of turned pixels.
_STORED: dict[str, Callable[[RgbImage], RgbImage]] = {
    "": lambda a: a,
    "FLIP_LEFT_RIGHT": lambda a: a[:, ::-1],
    "ROTATE_180": lambda a: a[::-1, ::-1],
    "FLIP_TOP_BOTTOM": lambda a: a[::-1],
    "TRANSPOSE": lambda a: a.swapaxes(0, 1),
    "ROTATE_270": lambda a: np.rot90(a),
    "TRANSVERSE": lambda a: a[::-1, ::-1].swapaxes(0, 1),
    "ROTATE_90": lambda a: np.rot90(a, -1),
}
_SWAPPING = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
TURNS = tuple(_STORED)
"""The transpositions by EXIF orientation, from 1; "" for none."""

_FAINT = 16  # grey levels
_BAND = 1_000_000  # pixels that are converted at a time


def rgb_pixels(image: Image, turn: str) -> RgbImage:
    """The RGB pixels of an image after a transposition of `TURNS`.

    It is converted in bands, so that little beside the pixels is in memory.
    """
    image.load()
    width, height = image.size
    convert = _conversion(image)
    if not turn and width * height <= _BAND:
        return _array(convert(image))
    pixels = np.empty((width, height, 3) if turn in _SWAPPING else (height, width, 3), np.uint8)
    stored = _STORED[turn](pixels)
    for top, band in _bands(image):
        stored[top : top + band.height] = _array(convert(band))
    return pixels


def _bands(image: Image) -> Iterator[tuple[int, Image]]:
    """Parts of an image from top to bottom, each with the number of its first row."""
    width, height = image.size
    rows = _band_rows(image)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(height, top + rows)))


def _array(image: Image) -> RgbImage:
    width, height = image.size
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(height, width, 3)


def _conversion(image: Image) -> Callable[[Image], Image]:
    """What makes RGB of `image` or a band of it."""
    profile = image.info.get("icc_profile")
    if image.mode == "RGB" and not profile and "transparency" not in image.info:
        return lambda band: band
    grey = grey_scale(image, (band for _, band in _bands(image)))
    if grey:
        return lambda band: to_srgb(grey(band), profile)
    if not image.has_transparency_data:
        return lambda band: to_srgb(band.convert("L") if band.mode == "1" else band, profile)
    step = _step(image)
    ground = None  # found when the only band is converted, so that it is converted once
    if _band_rows(image) < image.size[1]:
        ground = _ground((_layer(band, profile) for _, band in _bands(image)), step)

    def convert(band: Image) -> Image:
        layer = _layer(band, profile)
        return _on_ground(layer, ground or _ground([layer], step))

    return convert


def _layer(image: Image, profile: bytes | None) -> Image:
    grey = image.mode in ("1", "L", "LA", "La")
    return to_srgb(image.convert("LA" if grey else "RGBA"), profile)


def _on_ground(layer: Image, ground: str) -> Image:
    """An RGBA layer on white or black."""
    from PIL.Image import new

    alpha = layer.getchannel("A")
    colours = layer.convert("RGB")
    if alpha.getextrema()[0] == 255:
        return colours
    picture = new("RGB", layer.size, ground)
    picture.paste(colours, mask=alpha)
    return picture


def _ground(layers: Iterable[Image], step: int) -> str:
    """White, or black if what is drawn differs from white by less than `_FAINT`."""
    differences = opacities = 0.0
    for layer in layers:
        sample = np.asarray(layer)[::step, ::step].reshape(-1, 4).astype(np.float32)
        opacity = sample[:, 3]
        squares = np.square(255 - sample[:, :3]).mean(axis=1)
        differences += float((squares * opacity).sum())
        opacities += float(opacity.sum())
    return "black" if differences < _FAINT**2 * opacities else "white"  # nothing drawn: white


def _band_rows(image: Image) -> int:
    """The rows of a band, so that the rows that are looked at are those of the whole image."""
    step = _step(image)
    return max(step, _BAND // image.size[0] // step * step)


def _step(image: Image) -> int:
    """Every how many-th row and column are looked at."""
    return max(1, int((image.size[0] * image.size[1] / 1e6) ** 0.5))
