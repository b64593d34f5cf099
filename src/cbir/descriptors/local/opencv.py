"""OpenCV with one thread per call; all modules of the package import `cv2` from here.

Callers run one batch per core, so OpenCV's own threads, and those of its BLAS, would oversubscribe
the cores. The settings are process-wide.
"""

from __future__ import annotations

from pathlib import Path

import cv2
from threadpoolctl import ThreadpoolController

__all__ = ["cv2"]


def _keep_blas_on_one_thread() -> None:
    libraries = ThreadpoolController()
    names = [library["filepath"] for library in libraries.info()]
    # OpenCV's packages bring a BLAS along, in opencv_python_headless.libs or the like.
    own = [name for name in names if Path(name).parent.name.startswith("opencv")]
    libraries.select(filepath=own).limit(limits=1)


cv2.setNumThreads(1)
_keep_blas_on_one_thread()
