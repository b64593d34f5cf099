"""Geometric verification: do two images show the same thing in the same arrangement?

Lowe's ratio test (IJCV 2004) matches RootSIFT keypoints (Arandjelović and Zisserman, CVPR 2012).
RANSAC (Fischler and Bolles, 1981) finds the similarity transform (shift, rotation, scale) that
explains most matches, as in Philbin et al., "Object retrieval with large vocabularies and fast
spatial matching", CVPR 2007. Results are deterministic: OpenCV's RANSAC has a fixed seed, and
matches have a fixed order.
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
"""Fewer inliers than this may be chance and count as none."""

SIDE = 288
"""The longest side of the compared images, in pixels."""

MAX_ENLARGED = 2.0
"""The largest factor by which to enlarge a small image, so that it has enough keypoints."""

MAX_POINTS = 500
"""The number of keypoints kept per image, strongest first."""

RATIO = 0.8
"""The largest distance ratio of the two nearest descriptors (Lowe 2004)."""

TOLERANCE = 3.6
"""The largest reprojection error, in pixels at `SIDE`."""

MAX_SCALE = 8.0
"""The largest scale and the inverse of the smallest; beyond that, a model is degenerate."""

MIN_SPREAD = 3.6
"""The least standard deviation of inliers across their main direction, in pixels at `SIDE`."""

_ROUNDS = 2000
_CONFIDENCE = 0.999


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The keypoints of an image, in pixels of its compared size.

    `points`: float32 (n, 2), x and y, strongest first. `descriptors`: uint8 (n, 128), SIFT.
    `width` and `height`: the compared size.
    """

    points: Floats
    descriptors: NDArray[np.uint8]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class QueryKeypoints:
    """The keypoints of a query image and of its mirror image, with RootSIFT, computed once."""

    plain: Keypoints
    mirrored: Keypoints
    plain_rooted: Floats
    mirrored_rooted: Floats


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number of matches that fit one model: 0 or at least `MIN_INLIERS`.

    `mirrored`: the query's mirror image fits better than the query. `points`: float32
    (inliers, 4), the matched points: x and y in the original query, x and y in the candidate, as
    fractions (0..1) of width and height.
    """

    inliers: int
    mirrored: bool
    points: Floats


def keypoints(image: RgbImage) -> Keypoints:
    """The keypoints of an RGB image (height, width, 3); none if it is flat or tiny."""
    scaled = _scaled(image)
    height, width = scaled.shape[:2]
    found = keypoint_sift(scaled, MAX_POINTS)
    return Keypoints(
        np.ascontiguousarray(found.points[:, :2]), found.descriptors.astype(np.uint8), width, height
    )


def query_keypoints(image: RgbImage) -> QueryKeypoints:
    """The keypoints of a query image and of its mirror image."""
    plain, mirrored = keypoints(image), keypoints(np.ascontiguousarray(image[:, ::-1]))
    return QueryKeypoints(plain, mirrored, _rooted(plain), _rooted(mirrored))


def verdict(query: QueryKeypoints, candidate: Keypoints) -> Verdict:
    """Match `candidate` against `query` and its mirror image; return the better result."""
    rooted = _rooted(candidate)
    plain = _inliers(query.plain, candidate, query.plain_rooted, rooted)
    turned = _inliers(query.mirrored, candidate, query.mirrored_rooted, rooted)
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


def _inliers(query: Keypoints, candidate: Keypoints, ours: Floats, theirs: Floats) -> Floats:
    """The matched points (n, 4), in pixels, that fit one similarity; (0, 4) if they are too few."""
    none = np.zeros((0, 4), dtype=np.float32)
    pairs = _matches(query, candidate, ours, theirs)
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


def _matches(query: Keypoints, candidate: Keypoints, ours: Floats, theirs: Floats) -> Floats:
    """Pairs of points (n, 4) that pass the ratio test, best first, each candidate point once.

    `ours` and `theirs`: the RootSIFT of both.
    """
    if len(query.points) < MIN_INLIERS or len(candidate.points) < MIN_INLIERS:
        return np.zeros((0, 4), dtype=np.float32)
    # OpenCV's product stays on this thread; NumPy's threads block each other on busy cores.
    likeness = np.asarray(cv2.gemm(ours, theirs, 1, np.empty(0), 0, flags=cv2.GEMM_2_T))
    rows = np.arange(len(likeness))
    nearest = likeness.argmax(axis=1)
    best = likeness[rows, nearest]
    likeness[rows, nearest] = -1
    second = likeness.max(axis=1)
    # For unit vectors: squared distance = 2 - 2 x similarity.
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
    """Pairs, without those that share a pixel of either image with an earlier pair.

    SIFT puts several keypoints with different angles at one point; count them once.
    """
    for columns in (slice(0, 2), slice(2, 4)):
        _, first = np.unique(np.rint(pairs[:, columns]), axis=0, return_index=True)
        pairs = pairs[np.sort(first)]
    return pairs


def _spread(points: Floats) -> float:
    """Standard deviation of points (n, 2) across their main direction: 0 on a line."""
    return float(np.sqrt(max(0.0, np.linalg.eigvalsh(np.cov(points.T.astype(np.float64)))[0])))
