"""OpenCV with one thread per call; all modules of the package import `cv2` from here.

Callers run one batch per core, so OpenCV's own threads would oversubscribe the cores. The setting
is process-wide.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(1)
