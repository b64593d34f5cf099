"""Two small pictures laid over each other as well as can be: are they the same photograph?

First a search by shifts and a few sizes, then a fine one by every affine map ("Parametric Image
Alignment Using Enhanced Correlation Coefficient Maximization", Evangelidis & Psarakis, PAMI 2008).
Another crop, another aspect ratio or a frame moves pixels by a fraction of one: without the fine
search the correlation of copies falls to that of pictures which are merely alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.types import RgbImage

SIDE = 32
"""Both pictures' height and width."""

_MIDDLE = 24  # pixels of the query that are looked for: the rest is room for shifts of 4 pixels
_SCALES = (0.9, 1.0, 1.1)
_LEAST_FOUND = 0.5  # of copies, 1 in 80 is below; of candidates on CIFAR-10, 9 in 10
_BLUR = 3.0
_LEAST_CONTRAST = 1.0  # grey levels: less is the noise of a flat picture

_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
_SMOOTHED = 3  # pixels
_EDGE = 2  # pixels at the border of a picture that are not compared
_MOST_TURNED = 0.08  # beyond this, silhouettes before a sky are turned until they agree
_MOST_SCALED = 1.6
_LEAST_SHARED = 0.45

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Middle:
    """The details in the middle of a query at one scale, and their first row and column there."""

    scale: float
    start: int
    details: Floats


def most_alike(query: RgbImage, pictures: NDArray[np.uint8]) -> float:
    """The correlation of a query with that of the pictures which it agrees with best, 0 to 1.

    `query`: uint8 (32, 32, 3); `pictures`: uint8 (n, 32, 32, 3). Compared are grey pictures less a
    blurred copy of each, for skies and lawns are alike without being the same. It is 0 where the
    query is not found in a picture, where one must be turned, sheared or scaled much to fit or they
    share less than 45 % of their area, and for pictures of hardly any contrast.
    """
    middles = _middles(query)
    if not middles:
        return 0.0
    of_query = _details(_grey(query))
    return max((_correlation(of_query, middles, picture) for picture in pictures), default=0.0)


def _correlation(of_query: Floats, middles: list[_Middle], picture: RgbImage) -> float:
    details = _details(_grey(picture))
    edge = (SIDE - _MIDDLE) // 2
    if details[edge:-edge, edge:-edge].std() < _LEAST_CONTRAST:
        return 0.0
    found, start = max((_find(each, details) for each in middles), key=lambda place: place[0])
    if found < _LEAST_FOUND:
        return 0.0
    try:
        correlation, fitted = cv2.findTransformECC(
            details, of_query, start, cv2.MOTION_AFFINE, _STEPS, _inside(), _SMOOTHED
        )
    except cv2.error as error:
        if error.code != cv2.Error.STS_NO_CONV:
            raise
        return 0.0  # nothing in common: the search ran away
    return float(correlation) if _is_modest(fitted) else 0.0


def _middles(query: RgbImage) -> list[_Middle]:
    grey = _grey(query)
    middles = []
    for scale in _SCALES:
        side = round(SIDE * scale)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        details = _details(cv2.resize(grey, (side, side), interpolation=way))
        start = (side - _MIDDLE) // 2
        end = start + _MIDDLE
        middles.append(_Middle(scale, start, details[start:end, start:end]))
    return [each for each in middles if each.details.std() >= _LEAST_CONTRAST]


def _find(middle: _Middle, details: Floats) -> tuple[float, Floats]:
    """How well the query is found in a picture, and the map from that one's pixels to its own."""
    values = cv2.matchTemplate(details, middle.details, cv2.TM_CCOEFF_NORMED)
    _, most, _, at = cv2.minMaxLoc(values)
    x, y = ((middle.start - first + 0.5) / middle.scale - 0.5 for first in at)
    return most, np.array([[1 / middle.scale, 0, x], [0, 1 / middle.scale, y]], dtype=np.float32)


def _is_modest(fitted: NDArray[Any]) -> bool:
    """Whether a map neither turns, shears nor scales much and leaves enough of both in common."""
    (x_scale, x_shear), (y_shear, y_scale) = fitted[:, :2]
    if max(abs(x_shear), abs(y_shear)) > _MOST_TURNED:
        return False
    if not all(1 / _MOST_SCALED < scale < _MOST_SCALED for scale in (x_scale, y_scale)):
        return False
    everything = np.ones((SIDE, SIDE), dtype=np.uint8)
    way = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    shared = cv2.warpAffine(everything, fitted, (SIDE, SIDE), flags=way)
    return float(shared.mean()) >= _LEAST_SHARED


def _inside() -> NDArray[np.uint8]:
    inside = np.zeros((SIDE, SIDE), dtype=np.uint8)
    inside[_EDGE:-_EDGE, _EDGE:-_EDGE] = 255
    return inside


def _grey(picture: RgbImage) -> Floats:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _details(grey: NDArray[Any]) -> Floats:
    """The picture less a blurred copy of it."""
    values = grey.astype(np.float32)
    return values - cv2.GaussianBlur(values, (0, 0), _BLUR)
