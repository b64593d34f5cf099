"""OpenCV, and the BLAS of its package, compute on the caller's thread."""

from __future__ import annotations

from pathlib import Path

from threadpoolctl import threadpool_info

from cbir.descriptors.local.opencv import cv2


def test_opencv_computes_on_the_thread_of_its_caller() -> None:
    assert cv2.getNumThreads() == 1
    own = [
        library["num_threads"]
        for library in threadpool_info()
        if Path(library["filepath"]).parent.name.startswith("opencv")
    ]
    assert own == [1] * len(own)
