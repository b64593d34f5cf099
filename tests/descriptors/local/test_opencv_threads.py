"""OpenCV, and the BLAS of its package, compute on the caller's thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys

THREADS = """
import json, cbir.descriptors.local.opencv as opencv, threadpoolctl
own = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if "opencv" in lib["filepath"]]
print(json.dumps([opencv.cv2.getNumThreads(), own]))
"""


def test_opencv_computes_on_the_thread_of_its_caller() -> None:
    several = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    told = subprocess.run(
        [sys.executable, "-c", THREADS], env=several, capture_output=True, text=True, check=True
    )
    threads, own = json.loads(told.stdout)
    assert threads == 1
    assert set(own) <= {1}
    if sys.platform == "linux":  # where the package has a BLAS
        assert own
