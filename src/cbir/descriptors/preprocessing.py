"""How RGB pixels become the input of a network: a card's `preprocessing`, and nothing assumed.

The words are those of timm and of Hugging Face's image processors: resize, crop, interpolation,
scale, mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil, floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.interpolation import PLAIN, interpolated
from cbir.errors import CbirError
from cbir.types import RgbImage

RESIZES = ("stretch", "shortest", "fit")
LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "uint8")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROPS = ("round", "floor")
MAX_SIDE = 4096
LATER = ("crop", "antialias", "keep_exact")
"""Fields that older cards lack: fingerprints cover them only where they are not the default."""
MAX_AREA = 2**24
"""Pixels of a resized image above which only the cropped part of it is made."""
WIDEST = 3
"""Pixels on either side that Pillow's widest kernel, lanczos, looks at."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image of any size to a network's input of `height` x `width` pixels.

    The image is resized to the frame, which is `side` (one side of a square, or height and width;
    None means the input's size), and the input is cropped from the centre. `resize`: "stretch"
    fills the frame exactly and changes the aspect ratio; "shortest" keeps the aspect ratio and
    covers the frame; "fit" keeps it and stays within the frame, and what the input lacks is padded
    with `fill` (a level of grey or RGB, 0..255). `crop` says how half a pixel is rounded: "round"
    to the even offset, as in torchvision and timm, or "floor", as in transformers.

    Pillow interpolates, with antialiasing, and with `reducing_gap` in two steps; without
    `antialias` only the nearest pixels count, as in `torch.nn.functional.interpolate`. Values are
    (pixel * `scale` - `mean`) / `std` (one a channel) in float32, or the pixels in uint8. With
    `keep_exact`, an image of exactly the input's size is neither resized nor cropped. Raises
    `CbirError` for values that no network could mean.
    """

    height: int
    width: int
    resize: str = "stretch"
    side: int | tuple[int, int] | None = None
    interpolation: str = "bicubic"
    reducing_gap: float | None = None
    fill: int | tuple[int, int, int] = 0
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"
    dtype: str = "float32"
    crop: str = "round"
    antialias: bool = True
    keep_exact: bool = True

    def __post_init__(self) -> None:
        choices = (
            ("resize", RESIZES),
            ("layout", LAYOUTS),
            ("dtype", DTYPES),
            ("interpolation", INTERPOLATIONS if self.antialias else PLAIN),
            ("crop", CROPS),
            ("antialias", (False, True)),
            ("keep_exact", (False, True)),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise CbirError(
                    f"preprocessing: {name} is {getattr(self, name)!r}",
                    f"known: {', '.join(map(str, known))}",
                )
        if self.reducing_gap is not None and not 1 <= self.reducing_gap <= MAX_SIDE:
            raise CbirError(f"preprocessing: reducing_gap is {repr(self.reducing_gap)[:60]}")
        if not all(map(_is_side, (self.height, self.width))):
            raise CbirError(
                f"preprocessing: an input of {self.width} x {self.height} pixels",
                f"width and height are whole numbers from 1 to {MAX_SIDE}",
            )
        if self.resize == "shortest" and self.side is None:
            raise CbirError("preprocessing: resize 'shortest' needs a 'side'")
        if len(self.frame) != 2 or not all(map(_is_side, self.frame)):
            raise CbirError(f"preprocessing: side is {self.side!r}")
        if self.frame[0] < self.height or self.frame[1] < self.width:
            raise CbirError(f"preprocessing: no crop of the input fits into a side of {self.side}")
        numbers = (self.scale, *self.mean, *self.std)
        if (len(self.mean), len(self.std)) != (3, 3) or not all(map(isfinite, numbers)):
            raise CbirError("preprocessing: mean and std need one finite value a channel")
        fill = self.fill if isinstance(self.fill, tuple) else (self.fill,) * 3
        if min(self.std) <= 0:
            raise CbirError("preprocessing: std must be above 0")
        if len(fill) != 3 or not all(0 <= level <= 255 for level in fill):
            raise CbirError("preprocessing: fill must be a level of grey or RGB, from 0 to 255")

    @classmethod
    def parse(cls, stored: dict[str, Any]) -> Preprocessing:
        """From the JSON object of a card; raises as a call of the class does."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Every value, for the fingerprint; of fields that came later, only what is not usual."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        usual = {field.name: field.default for field in fields(self) if field.name in LATER}
        return {k: v for k, v in values.items() if k not in usual or v != usual[k]}

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width that an image is resized to before the crop."""
        if self.side is None:
            return self.height, self.width
        return self.side if isinstance(self.side, tuple) else (self.side, self.side)

    def __str__(self) -> str:
        """How images are resized, for people."""
        gap = [] if self.reducing_gap is None else [f"reducing gap {self.reducing_gap:g}"]
        side = self.side if isinstance(self.side, int) else f"{self.frame[1]}x{self.frame[0]}"
        at = "" if self.frame == (self.height, self.width) else f", centre at {side}"
        how = {
            "stretch": f"aspect ratio not kept{at}",
            "shortest": f"centre of the image at a shorter side of {side}",
            "fit": f"aspect ratio kept, padded{at}",
        }[self.resize]
        by = "Pillow" if self.antialias else "no antialiasing"
        return ", ".join([f"{self.width}x{self.height}", by, self.interpolation, *gap, how])

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` (RGB uint8) reduced to what the input needs; reduced again, it does not change.

        The result has the input's size, or the frame's where only that tells it from an image that
        has yet to be resized: then up to three more rows or columns keep the centre where it was.
        """
        height, width = image.shape[:2]
        if self.keep_exact and (height, width) == (self.height, self.width):
            return image
        tall, wide = self._resized_size(height, width)
        finished = self.keep_exact or self.frame == (self.height, self.width)
        if self.resize == "fit":
            resized = self._part(image, (tall, wide), (0, 0, tall, wide))
            return self._placed(resized) if finished else resized
        if finished:
            top, left = self._offset(tall - self.height), self._offset(wide - self.width)
            return self._part(image, (tall, wide), (top, left, self.height, self.width))
        rows, columns = (
            side + (length - side) % 4
            for length, side in zip((tall, wide), self.frame, strict=True)
        )
        part = ((tall - rows) // 2, (wide - columns) // 2, rows, columns)
        return self._part(image, (tall, wide), part)

    def inputs(self, images: Sequence[RgbImage]) -> NDArray[Any]:
        """The network's input for `images` (n), each of any size."""
        pixels = np.stack([self._placed(self.prepare(image)) for image in images])
        values: NDArray[Any] = pixels
        if self.dtype == "float32":
            std = np.asarray(self.std)
            scale, shift = self.scale / std, np.asarray(self.mean) / std
            values = pixels * scale.astype(np.float32) - shift.astype(np.float32)
        if self.layout == "NHWC":
            return values
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image of `height` x `width`, resized."""
        if self.resize == "stretch":
            return self.frame
        if self.resize == "shortest" and isinstance(self.side, int):
            shorter = min(height, width)  # torchvision.transforms.Resize rounds down
            tall, wide = (
                self.side if length == shorter else int(self.side * length / shorter)
                for length in (height, width)
            )
            return tall, wide
        choose = max if self.resize == "fit" else min
        ratio = choose(height / self.frame[0], width / self.frame[1])  # timm's ResizeKeepRatio
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _offset(self, spare: int) -> int:
        """Where the centre begins if `spare` pixels are cut away."""
        return spare // 2 if self.crop == "floor" else round(spare / 2)

    def _placed(self, image: RgbImage) -> RgbImage:
        """The centre of `image` at the input's size, padded where it is smaller."""
        height, width = image.shape[:2]
        if (height, width) == (self.height, self.width):
            return image
        if height < self.height or width < self.width:
            tall, wide = max(height, self.height), max(width, self.width)
            top, left = (tall - height) // 2, (wide - width) // 2
            padded = np.full((tall, wide, 3), self.fill, dtype=np.uint8)
            padded[top : top + height, left : left + width] = image
            image = padded
        top, left = (
            self._offset(a - b)
            for a, b in zip(image.shape, (self.height, self.width), strict=False)
        )
        return image[top : top + self.height, left : left + self.width]

    def _part(
        self, image: RgbImage, size: tuple[int, int], part: tuple[int, int, int, int]
    ) -> RgbImage:
        """A `part` (top, left, height, width) of `image` resized to `size` (height, width).

        Of a long strip, nothing else is made: 1 x 5,000 pixels would become 256 x 1,280,000.
        """
        top, left, rows, columns = part
        if not self.antialias:
            return interpolated(image, size, part, self.interpolation)
        if size[0] * size[1] <= MAX_AREA:
            return self._resized(image, size)[top : top + rows, left : left + columns]
        (across, x0, x1), (down, y0, y1) = (
            _needed(image.shape[axis], size[axis], part[axis], part[axis + 2]) for axis in (1, 0)
        )
        image = image[down, across]
        tall = image.shape[0]
        # Rows first, as Pillow enlarges whole images.
        image = self._resized(image, (tall, columns), (x0, 0, x1, tall))
        return self._resized(image, (rows, columns), (0, y0, columns, y1))

    def _resized(
        self,
        image: RgbImage,
        size: tuple[int, int],
        box: tuple[float, float, float, float] | None = None,
    ) -> RgbImage:
        from PIL import Image

        how = Image.Resampling[self.interpolation.upper()]
        picture = Image.fromarray(image)
        return np.asarray(picture.resize(size[::-1], how, box, self.reducing_gap))


def _needed(length: int, resized: int, start: int, count: int) -> tuple[slice, float, float]:
    """The pixels that `count` ones from `start` need when `length` become `resized`.

    Also where those begin and end, counted from the first of these.
    """
    ratio = length / resized
    begin, end = start * ratio, (start + count) * ratio
    around = ceil(WIDEST * max(1.0, ratio)) + 1
    first = max(0, floor(begin) - around)
    return slice(first, ceil(end) + around), begin - first, end - first


def _is_side(length: object) -> bool:
    return type(length) is int and 1 <= length <= MAX_SIDE
