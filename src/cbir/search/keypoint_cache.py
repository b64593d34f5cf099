"""Keeps the keypoints of indexed pictures in files, so that they are computed once.

The folder is `keypoints` in an embedded index. For other engines, and for an index that cannot be
written, it is `keypoints` in `CBIR_HOME`. The picture's content hash and everything else that
changes its keypoints name a file, so it is never out of date.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir.home import cbir_home
from cbir.index.base import Index
from cbir.index.embedded.folder import KEYPOINTS
from cbir.index.kept_files import KeptFiles

if TYPE_CHECKING:
    from cbir.descriptors.local.geometry import Keypoints

_FORMAT = 1
_HEAD = struct.Struct("<HHH")  # number of keypoints, width, height
_BYTES_EACH = 2 * 4 + 128


class KeypointCache:
    """The kept keypoints of an index's pictures. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._files = KeptFiles(_folder(index))

    def get(self, content_hash: str) -> Keypoints | None:
        """Keypoints of the picture with this hash; None if there are none or they are damaged."""
        data = self._files.get(content_hash, _settings())
        return None if data is None else _unpacked(data)

    def put(self, content_hash: str, found: Keypoints) -> None:
        """Keep the keypoints of a picture if the folder can be written."""
        with suppress(OSError):
            cbir_home().mkdir(parents=True, exist_ok=True)
        self._files.put(content_hash, _settings(), _packed(found))


def _folder(index: Index) -> Path:
    inside = Path(index.url) / KEYPOINTS
    # A link would lead out of an index that may be a stranger's.
    if index.engine == "embedded" and os.access(inside.parent, os.W_OK) and not inside.is_symlink():
        return inside
    return cbir_home() / KEYPOINTS


def _settings() -> str:
    """What changes the keypoints of a picture, besides its bytes."""
    from cbir.descriptors.local import geometry
    from cbir.descriptors.local.opencv import cv2
    from cbir.images.decode import decoder_name
    from cbir.images.rules import RULES

    sizes = f"{geometry.SIDE} {geometry.MAX_ENLARGED} {geometry.MAX_POINTS}"
    return f"{_FORMAT} {sizes} OpenCV {cv2.__version__} {decoder_name()} {RULES}"


def _packed(found: Keypoints) -> bytes:
    head = _HEAD.pack(len(found.points), found.width, found.height)
    return head + found.points.astype("<f4").tobytes() + found.descriptors.tobytes()


def _unpacked(data: bytes) -> Keypoints | None:
    """The keypoints in `data`, None if they are invalid: anybody can write a valid checksum."""
    from cbir.descriptors.local.geometry import MAX_POINTS, SIDE, Keypoints

    if len(data) < _HEAD.size:
        return None
    count, width, height = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + count * _BYTES_EACH or count > MAX_POINTS:
        return None
    points = np.frombuffer(data, "<f4", 2 * count, _HEAD.size).reshape(count, 2)
    descriptors = np.frombuffer(data, np.uint8, 128 * count, _HEAD.size + 8 * count)
    if not (1 <= width <= SIDE and 1 <= height <= SIDE and np.all(np.abs(points) <= 2 * SIDE)):
        return None  # NaN is refused, too
    return Keypoints(points.astype(np.float32), descriptors.reshape(count, 128), width, height)
