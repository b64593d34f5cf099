"""Image registration of two small images: are they the same photograph?

A coarse search over shifts and a few scales precedes a fine one over affine transforms ("Parametric
Image Alignment Using Enhanced Correlation Coefficient Maximization", Evangelidis & Psarakis, PAMI
2008). A different crop or aspect ratio causes subpixel shifts: without the fine search, copies
correlate no better than merely similar images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.types import Floats, RgbImage

SIDE = 32
"""The height and width of both images."""

_MIDDLE = 24  # template side, in pixels; leaves room for shifts of 4 pixels
_SIDES = (29, 32, 35)  # image sizes from which the template is cut
_LEAST_FOUND = 0.5  # most candidates but few copies score lower: skips the fine search
_BLUR = 3.0
_LEAST_CONTRAST = 1.0  # grey levels; less is noise in a flat image

_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
_SMOOTHING = 3  # pixels, the side of a Gaussian kernel
_BORDER = 2  # border pixels to ignore: frames and resize artefacts
_MOST_TURNED = 0.08  # off-diagonal entry, 4.6 degrees; beyond, unrelated outlines match


@dataclass(frozen=True)
class _Prepared:
    """The details of an image, and its templates at every size of `_SIDES` (none if flat)."""

    details: Floats
    middles: list[Floats]


def most_alike(picture: RgbImage, others: NDArray[np.uint8]) -> float:
    """The best correlation, 0 to 1, of an image with any of the others after registration.

    `picture`: uint8 (32, 32, 3); `others`: uint8 (n, 32, 32, 3). Registers each pair both ways.
    Subtracts a blurred copy from each grey image, because skies and lawns look alike without being
    copies. The correlation is 0 if neither image is found in the other, if the match needs rotation
    or shear, and for images with very low contrast.
    """
    this = _prepared(picture)
    best = 0.0
    for other in others:
        that = _prepared(other)
        best = max(best, _correlation(this, that), _correlation(that, this))
    return best


def _prepared(picture: RgbImage) -> _Prepared:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    details = np.subtract(grey, cv2.GaussianBlur(grey, (0, 0), _BLUR), dtype=np.float32)
    if _middle(details).std() < _LEAST_CONTRAST:
        return _Prepared(details, [])
    sizes = [(side, cv2.INTER_AREA if side < SIDE else cv2.INTER_LINEAR) for side in _SIDES]
    resized = [cv2.resize(details, (side, side), interpolation=way) for side, way in sizes]
    return _Prepared(details, [_middle(each.astype(np.float32, copy=False)) for each in resized])


def _middle(details: Floats) -> Floats:
    start = (len(details) - _MIDDLE) // 2
    return details[start : start + _MIDDLE, start : start + _MIDDLE]


def _correlation(sought: _Prepared, where: _Prepared) -> float:
    """The correlation of one image with the other at the best match, 0 if there is none."""
    if not sought.middles or not where.middles:
        return 0.0
    sizes = zip(sought.middles, _SIDES, strict=True)
    places = [_find(middle, side, where.details) for middle, side in sizes]
    found, start = max(places, key=lambda place: place[0])
    if found < _LEAST_FOUND:
        return 0.0
    try:
        correlation, fitted = cv2.findTransformECC(
            where.details, sought.details, start, cv2.MOTION_AFFINE, _STOP, _inside(), _SMOOTHING
        )
    except cv2.error as error:
        # Not `error.code`: a class attribute that another thread's error may overwrite.
        if f"({cv2.Error.STS_NO_CONV}:" not in str(error):
            raise
        return 0.0  # the search diverged: no match
    turned = max(abs(fitted[0, 1]), abs(fitted[1, 0]))
    return float(correlation) if turned <= _MOST_TURNED else 0.0


def _find(middle: Floats, side: int, details: Floats) -> tuple[float, Floats]:
    """The best match of a template in an image, and the map from image to template pixels."""
    values = cv2.matchTemplate(details, middle, cv2.TM_CCOEFF_NORMED)
    _, most, _, at = cv2.minMaxLoc(values)
    start, scale = (side - _MIDDLE) // 2, SIDE / side
    x, y = ((start - first + 0.5) * scale - 0.5 for first in at)
    return most, np.array([[scale, 0, x], [0, scale, y]], dtype=np.float32)


def _inside() -> NDArray[np.uint8]:
    inside = np.zeros((SIDE, SIDE), dtype=np.uint8)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = 255
    return inside
