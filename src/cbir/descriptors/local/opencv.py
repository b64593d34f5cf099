"""OpenCV on one thread per call; all modules of the package import `cv2` from here.

Callers run one batch per core, and OpenCV's own threads would only compete with them. The setting
holds for the whole process.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(1)
