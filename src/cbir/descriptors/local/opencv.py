"""OpenCV as describing uses it: one thread a call.

Callers run one batch a core, and OpenCV's own threads would only compete with them. The setting
holds for the whole process, so it stands here, where everything that describes gets `cv2` from.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(1)
