"""Geometric verification: do two pictures show the same thing, in the same arrangement?

RootSIFT keypoints (Arandjelović and Zisserman, CVPR 2012) are matched with Lowe's ratio test
(IJCV 2004); RANSAC (Fischler and Bolles, 1981) looks for the one shift, turn and change of size
that explains most of the matches, as in Philbin et al., "Object retrieval with large vocabularies
and fast spatial matching", CVPR 2007. All of it gives the same answer on every run and thread:
OpenCV's RANSAC starts from a fixed seed, and matches come in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.local.opencv import cv2
from cbir.descriptors.local.sift import keypoint_sift, root_sift
from cbir.types import Floats, RgbImage

MIN_INLIERS = 8
"""Fewer matches that agree are chance, and count as none."""

SIDE = 320
"""Longest side, in pixels, at which pictures are compared."""

MAX_ENLARGED = 2.0
"""How much a smaller picture is enlarged at most, so that it has enough keypoints."""

MAX_POINTS = 500
"""The strongest keypoints of a picture that are kept."""

RATIO = 0.8
"""The nearest descriptor must be this much nearer than the next one (Lowe 2004)."""

TOLERANCE = 4.0
"""How far, in pixels at `SIDE`, a point may lie from where the model puts it."""

MAX_SCALE = 8.0
"""Changes of size, in pixels at `SIDE`, beyond which a model is degenerate."""

MIN_SPREAD = 4.0
"""Least standard deviation, in pixels at `SIDE`, of the inliers across their main direction."""

_ROUNDS = 2000
_CONFIDENCE = 0.999


@dataclass(frozen=True, slots=True)
class Keypoints:
    """What verification keeps of a picture: places in pixels at its compared size, descriptors.

    `points`: float32 (n, 2), x and y, strongest first. `descriptors`: uint8 (n, 128), SIFT.
    `width` and `height`: the compared size, to make fractions of points.
    """

    points: Floats
    descriptors: NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class QueryKeypoints:
    """A query's keypoints, of the picture as it is and of its mirror image, computed once."""

    plain: Keypoints
    mirrored: Keypoints


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many matches agree on one arrangement: 0 or at least `MIN_INLIERS`.

    `mirrored`: the query's mirror image fitted better than the query. `points`: float32
    (inliers, 4), the matched places: x and y in the query (as it was given, not mirrored), x and y
    in the candidate, as fractions (0..1) of width and height.
    """

    inliers: int
    mirrored: bool
    points: Floats


def keypoints(image: RgbImage) -> Keypoints:
    """The keypoints of an RGB picture (height, width, 3); none of a flat or tiny one."""
    scaled = _scaled(image)
    height, width = scaled.shape[:2]
    found = keypoint_sift(scaled, MAX_POINTS)
    return Keypoints(
        np.ascontiguousarray(found.points[:, :2]), found.descriptors.astype(np.uint8), width, height
    )


def query_keypoints(image: RgbImage) -> QueryKeypoints:
    """The keypoints of a query and of its mirror image."""
    return QueryKeypoints(keypoints(image), keypoints(np.ascontiguousarray(image[:, ::-1])))


def verdict(query: QueryKeypoints, candidate: Keypoints) -> Verdict:
    """Whether `candidate` shows what `query` or its mirror image shows."""
    plain = _inliers(query.plain, candidate)
    turned = _inliers(query.mirrored, candidate)
    mirrored = len(turned) > len(plain)
    points = turned if mirrored else plain
    sizes = (query.plain.width, query.plain.height, candidate.width, candidate.height)
    fractions = np.clip((points + 0.5) / np.array(sizes, dtype=np.float32), 0, 1)
    if mirrored:
        fractions[:, 0] = 1 - fractions[:, 0]
    return Verdict(len(points), mirrored, fractions.astype(np.float32))


def _scaled(image: RgbImage) -> RgbImage:
    height, width = image.shape[:2]
    factor = min(SIDE / max(height, width), MAX_ENLARGED)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size == (width, height):
        return image
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=how), np.uint8)


def _inliers(query: Keypoints, candidate: Keypoints) -> Floats:
    """The matched places (n, 4), in pixels, that one similarity explains; (0, 4) for too few."""
    none = np.zeros((0, 4), dtype=np.float32)
    pairs = _matches(query, candidate)
    if len(pairs) < MIN_INLIERS:
        return none
    model, mask = cv2.estimateAffinePartial2D(
        np.ascontiguousarray(pairs[:, :2]),
        np.ascontiguousarray(pairs[:, 2:]),
        method=cv2.RANSAC,
        ransacReprojThreshold=TOLERANCE,
        maxIters=_ROUNDS,
        confidence=_CONFIDENCE,
    )
    if model is None or not _is_plausible(model):
        return none
    agreed = _distinct(pairs[mask.ravel().astype(bool)])
    if (
        len(agreed) < MIN_INLIERS
        or min(_spread(agreed[:, :2]), _spread(agreed[:, 2:])) < MIN_SPREAD
    ):
        return none
    return agreed


def _matches(query: Keypoints, candidate: Keypoints) -> Floats:
    """Pairs of places (n, 4) whose descriptors are nearest by far, best first, each place once."""
    if len(query.points) < MIN_INLIERS or len(candidate.points) < MIN_INLIERS:
        return np.zeros((0, 4), dtype=np.float32)
    # OpenCV's product stays on this thread: those of NumPy wait for each other when cores are busy.
    likeness = np.asarray(
        cv2.gemm(_rooted(query), _rooted(candidate), 1, np.empty(0), 0, flags=cv2.GEMM_2_T)
    )
    rows = np.arange(len(likeness))
    nearest = likeness.argmax(axis=1)
    best = likeness[rows, nearest]
    likeness[rows, nearest] = -1
    second = likeness.max(axis=1)
    # Of unit vectors: squared distance = 2 - 2 x likeness.
    clear = np.flatnonzero(1 - best < RATIO**2 * (1 - second))
    order = clear[np.argsort(-best[clear], kind="stable")]
    _, first = np.unique(nearest[order], return_index=True)
    order = order[np.sort(first)]
    return np.hstack([query.points[order], candidate.points[nearest[order]]])


def _rooted(found: Keypoints) -> Floats:
    return root_sift(found.descriptors.astype(np.float32))


def _is_plausible(model: NDArray[Any]) -> bool:
    scale = float(np.hypot(model[0, 0], model[1, 0]))
    return 1 / MAX_SCALE <= scale <= MAX_SCALE


def _distinct(pairs: Floats) -> Floats:
    """Pairs without those that begin or end at a pixel where one before them does.

    SIFT puts several keypoints, of several angles, at one place; they are one piece of evidence.
    """
    for columns in (slice(0, 2), slice(2, 4)):
        _, first = np.unique(np.rint(pairs[:, columns]), axis=0, return_index=True)
        pairs = pairs[np.sort(first)]
    return pairs


def _spread(points: Floats) -> float:
    """Standard deviation of points (n, 2) across their main direction: 0 on a line."""
    return float(np.sqrt(max(0.0, np.linalg.eigvalsh(np.cov(points.T.astype(np.float64)))[0])))
