"""Small sound pictures of every format that cbir reads, by name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.images.support_images import HEIC
from tests.images.support_tiff import CFA, Directory, tiff

Values = dict[int, int | Sequence[int]]

SIZE = (48, 40)  # height, width


@cache
def seeds() -> Mapping[str, bytes]:
    """Name -> file, always the same."""
    photo = Image.fromarray(_photo())
    grey = photo.convert("L")
    clear = photo.copy()
    clear.putalpha(grey)
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x0132] = 6, "Maker", "2024:05:03 12:30:45"
    frames = [photo.rotate(turn) for turn in (90, 180)]
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    floats = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    return {
        "baseline.jpg": _file(photo, "JPEG"),
        "progressive.jpg": _file(photo, "JPEG", progressive=True, exif=tags),
        "cmyk.jpg": _file(photo.convert("CMYK"), "JPEG"),
        "plain.png": _file(photo, "PNG", exif=tags),
        "palette.png": _file(photo.convert("P"), "PNG", transparency=0),
        "deep.png": _file(deep, "PNG"),
        "animated.gif": _file(photo, "GIF", save_all=True, append_images=frames),
        "lossy.webp": _file(photo, "WEBP", exif=tags),
        "animated.webp": _file(clear, "WEBP", save_all=True, append_images=frames, lossless=True),
        "clear.avif": _file(clear, "AVIF"),
        "phone.heic": HEIC,
        "plain.bmp": _file(photo, "BMP"),
        "deflated.tif": _file(photo, "TIFF", compression="tiff_adobe_deflate"),
        "float.tif": _file(floats, "TIFF", compression="tiff_lzw"),
        "tiles.jp2": _file(photo, "JPEG2000", tile_size=(16, 16)),
        "plain.ppm": _file(photo, "PPM"),
        "camera.dng": _raw(_file(photo.resize((600, 400)), "JPEG", quality=30)),
    }


def _photo() -> NDArray[np.uint8]:
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)]
    rough = np.random.default_rng(7).normal(0, 6, (height, width, 3))
    return np.clip(np.stack(planes, axis=-1) + rough, 0, 255).astype(np.uint8)


def _file(image: Image.Image, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def _raw(preview: bytes) -> bytes:
    """A DNG with a sensor's data and a preview, as cameras write them."""
    common: Values = {258: (8, 8, 8), 277: 3}
    small = {**common, 254: 1, 256: 40, 257: 30, 259: 1, 262: 2, 278: 30, 50706: 0x01040000}
    large = {**common, 254: 1, 256: 600, 257: 400, 259: 7, 262: 6, 278: 400}
    sensor: dict[int, int | Sequence[int]] = {
        254: 0,
        256: 1200,
        257: 800,
        258: 16,
        259: 1,
        262: CFA,
        277: 1,
        278: 800,
    }
    below = [Directory(sensor, b"\7" * 64), Directory(large, preview)]
    return tiff(Directory(small, bytes(3600), below))
