"""How RGB pixels become the input of a network: a card's `preprocessing`, and nothing assumed.

The words are those of timm and of Hugging Face's image processors: resize, crop, interpolation,
scale, mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.types import RgbImage

RESIZES = ("stretch", "shortest", "fit")
LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "uint8")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
MAX_SIDE = 4096
MAX_AREA = 2**24
"""Pixels of a resized image above which only the cropped part of it is made."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image of any size to a network's input of `height` x `width` pixels.

    `resize`: "stretch" changes the aspect ratio; "shortest" brings the shorter side to `side`
    pixels and crops the input from the centre; "fit" keeps the whole image and pads it with `fill`
    (0..255). Pillow interpolates, with antialiasing, and with `reducing_gap` in two steps. Values
    are (pixel * `scale` - `mean`) / `std` (one a channel) in float32, or the pixels in uint8. An
    image of exactly the input's size is not resized. Raises `CbirError` for values that no network
    could mean.
    """

    height: int
    width: int
    resize: str = "stretch"
    side: int | None = None
    interpolation: str = "bicubic"
    reducing_gap: float | None = None
    fill: int = 0
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        choices = (
            ("resize", RESIZES),
            ("layout", LAYOUTS),
            ("dtype", DTYPES),
            ("interpolation", INTERPOLATIONS),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise CbirError(
                    f"preprocessing: {name} is {getattr(self, name)!r}",
                    f"known: {', '.join(known)}",
                )
        sides = (self.height, self.width)
        if not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in sides):
            raise CbirError(f"preprocessing: an input of {self.width} x {self.height} pixels")
        if (self.side is None) == (self.resize == "shortest"):
            raise CbirError("preprocessing: 'side' belongs to resize 'shortest', and to it alone")
        if self.side is not None and not max(self.height, self.width) <= self.side <= MAX_SIDE:
            raise CbirError(f"preprocessing: no crop of the input fits into a side of {self.side}")
        numbers = (self.scale, *self.mean, *self.std)
        if (len(self.mean), len(self.std)) != (3, 3) or not all(map(isfinite, numbers)):
            raise CbirError("preprocessing: mean and std need one finite value a channel")
        if min(self.std) <= 0 or not 0 <= self.fill <= 255:
            raise CbirError("preprocessing: std must be above 0, and fill a level of grey")

    @classmethod
    def parse(cls, stored: dict[str, Any]) -> Preprocessing:
        """From the JSON object of a card; raises as a call of the class does."""
        values: dict[str, Any] = {**stored}
        for name in ("mean", "std"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Every value, for the fingerprint."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def __str__(self) -> str:
        """How images are resized, for people."""
        gap = [] if self.reducing_gap is None else [f"reducing gap {self.reducing_gap:g}"]
        how = {
            "stretch": "aspect ratio not kept",
            "shortest": f"centre of the image at a shorter side of {self.side}",
            "fit": "aspect ratio kept, padded",
        }[self.resize]
        return ", ".join([f"{self.width}x{self.height}", "Pillow", self.interpolation, *gap, how])

    def prepare(self, image: RgbImage) -> RgbImage:
        """`image` at the input's size, RGB uint8; an image of that size is not changed."""
        height, width = image.shape[:2]
        if (height, width) == (self.height, self.width):
            return image
        if self.resize == "stretch":
            return self._resized(image, self.height, self.width)
        if self.resize == "fit":
            factor = min(self.height / height, self.width / width)
            tall, wide = (max(1, round(length * factor)) for length in (height, width))
            return self._padded(self._resized(image, tall, wide))
        return self._central(image)

    def inputs(self, images: Sequence[RgbImage]) -> NDArray[Any]:
        """The network's input for `images` (n), each of any size."""
        pixels = np.stack([self.prepare(image) for image in images])
        values: NDArray[Any] = pixels
        if self.dtype == "float32":
            std = np.asarray(self.std)
            scale, shift = self.scale / std, np.asarray(self.mean) / std
            values = pixels * scale.astype(np.float32) - shift.astype(np.float32)
        if self.layout == "NHWC":
            return values
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def _central(self, image: RgbImage) -> RgbImage:
        """The centre of `image`, once its shorter side is `side` pixels.

        Of a long strip, only the part that the crop needs is resized: 1 x 5,000 pixels would
        become 256 x 1,280,000.
        """
        assert self.side is not None
        height, width = image.shape[:2]
        shorter = min(height, width)
        tall, wide = (
            self.side if length == shorter else int(self.side * length / shorter)
            for length in (height, width)
        )
        top, left = round((tall - self.height) / 2), round((wide - self.width) / 2)
        if tall * wide <= MAX_AREA:
            resized = self._resized(image, tall, wide)
            return resized[top : top + self.height, left : left + self.width]
        rows, columns = height / tall, width / wide  # of the image for one of the result
        box = (
            left * columns,
            top * rows,
            (left + self.width) * columns,
            (top + self.height) * rows,
        )
        return self._resized(image, self.height, self.width, box)

    def _padded(self, image: RgbImage) -> RgbImage:
        top, left = (self.height - image.shape[0]) // 2, (self.width - image.shape[1]) // 2
        padded = np.full((self.height, self.width, 3), self.fill, dtype=np.uint8)
        padded[top : top + image.shape[0], left : left + image.shape[1]] = image
        return padded

    def _resized(
        self,
        image: RgbImage,
        height: int,
        width: int,
        box: tuple[float, float, float, float] | None = None,
    ) -> RgbImage:
        from PIL import Image

        how = Image.Resampling[self.interpolation.upper()]
        picture = Image.fromarray(image)
        return np.asarray(picture.resize((width, height), how, box, self.reducing_gap))
