"""Converts pixels with an ICC profile to sRGB (relative colorimetric, Little CMS)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cbir.types import RgbImage

if TYPE_CHECKING:
    from PIL.Image import Image

_IDENTITY = 1
"""Grey levels: a profile that changes no colour by more than this is taken for sRGB."""

_LARGEST = 8_000_000
"""Bytes: larger profiles, of which none is known, are ignored; `_conversion` keeps some."""

_SPACES = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


def to_srgb(image: Image, profile: bytes | None) -> Image:
    """`image` in sRGB: RGBA if it has an alpha channel, else RGB; may change `image` itself.

    A profile that is damaged, or made for another colour space than the pixels', is ignored.
    """
    if profile and len(profile) > _LARGEST:
        profile = None
    if image.mode == "LA":
        colours = to_srgb(image.getchannel("L"), profile)
        colours.putalpha(image.getchannel("A"))
        return colours
    if image.mode not in _SPACES:
        image = image.convert("RGB")
    if image.mode == "LAB":
        profile = profile or _lab_profile()
    convert = _conversion(profile, image.mode) if profile else None
    if convert:
        return convert(image)
    if image.mode == "L" and profile:  # grey, but the profile may be one for colours
        return to_srgb(image.convert("RGB"), profile)
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def is_srgb(profile: bytes | None, mode: str) -> bool:
    """Whether pixels of `mode` with this profile are used as they are."""
    if not profile or len(profile) > _LARGEST:
        return True
    pure = {"LA": "L", "P": "RGB", "1": "L"}.get(mode, mode)
    tried = ("L", "RGB") if pure == "L" or pure.startswith("I;16") else (pure,)
    return all(_conversion(profile, one) is None for one in tried if one in _SPACES)


@lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> Callable[[Image], Image] | None:
    """The conversion to sRGB; None if there is nothing to convert, or no way to."""
    from PIL import ImageCms

    # Little CMS replaces a profile by a table, which is much faster. That of a grey curve has too
    # few steps for dark values, and that of Lab for colours at the edge of sRGB.
    exact = mode in ("L", "LAB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGBA" if mode == "RGBA" else "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.NOOPTIMIZE if exact else ImageCms.Flags.NONE,
        )
        if _changes_nothing(transform, mode):
            return None
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if mode == "L":
        return partial(_looked_up, table=_of_all_greys(transform))
    return partial(_transformed, transform=transform)


def _transformed(image: Image, transform: Any) -> Image:
    if image.mode != transform.output_mode:
        return cast("Image", transform.apply(image))
    image.load()
    transform.apply_in_place(image)
    return image


def _looked_up(image: Image, table: RgbImage) -> Image:
    from PIL.Image import fromarray

    return fromarray(table[np.asarray(image)])


def _of_all_greys(transform: Any) -> RgbImage:
    from PIL.Image import fromarray

    greys = fromarray(np.arange(256, dtype=np.uint8).reshape(1, 256))
    table: RgbImage = np.asarray(transform.apply(greys))[0]
    return table


@cache
def _lab_profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether the colours of a grid stay as they are, up to a rounding."""
    from PIL.Image import fromarray

    if mode not in ("L", "RGB", "RGBA"):
        return False
    if mode == "L":
        converted, colours = _of_all_greys(transform), np.arange(256)[:, None]
    else:
        levels = np.append(np.arange(0, 256, 15), 8).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        whole = fromarray(grid).convert(mode)
        converted, colours = np.asarray(transform.apply(whole).convert("RGB")), grid.astype(int)
    return bool(np.abs(converted.astype(int) - colours).max() <= _IDENTITY)
