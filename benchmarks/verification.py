"""Time of geometric verification: one query against 200 indexed photos.

Cold: no keypoints are kept. From files: they are kept, but not in this searcher's memory. From
memory: the searcher has compared the same photos before. A bare OpenCV program does the same for
comparison: decode, SIFT, ratio test and RANSAC, on all cores, without mirror images, checks of
content or an index. All of them alternate, each in a new process whose libraries are loaded.

    python -m benchmarks verification
    python -m benchmarks verification --photos FOLDER
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from shutil import rmtree

import numpy as np

from benchmarks.setting import PHOTOS, photos_archive
from cbir.descriptors.local import geometry
from cbir.descriptors.local.opencv import cv2
from cbir.images.sources import open_source
from cbir.ingest.indexing import index_images
from cbir.machine import usable_cores
from cbir.search.searcher import Searcher
from cbir.types import DescriptorSpec, RgbImage, Vectors

COUNT = 200
WAYS = ("cold", "from files", "from memory", "bare OpenCV")
RUNS = 5


class _Means:
    """Describes images by their mean colour: verification compares all of them anyway."""

    spec = DescriptorSpec("means", 3, "0" * 64)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        rows = np.array([image.mean(axis=(0, 1)) + 1 for image in images], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def main(arguments: Sequence[str] = ()) -> None:
    """Print medians of wall and processor time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks verification")
    parser.add_argument("--photos", help=f"a source; default: {PHOTOS} in CBIR_DATA")
    source = parser.parse_args(arguments).photos or photos_archive()
    with tempfile.TemporaryDirectory() as name:
        files = write_sample(source, Path(name) / "photos")
        place = Path(name) / "photos.cbir"
        index_images([files[0].parent], place, descriptor=_Means())

        times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(RUNS):
            for way, taken in times.items():
                with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                    taken.append(fresh.submit(_timed, way, place, files).result())
        size = sum(path.stat().st_size for path in (place / "keypoints").iterdir())
    print(f"{len(files)} photos, medians of n={RUNS}, {usable_cores()} cores")
    for way, taken in times.items():
        wall, busy = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"{way:12} {wall:.3f} s; of processor time {busy:.3f} s")
    print(f"kept keypoints: {size / len(files) / 1e3:.1f} kB a photo")
    print("target on two cores: cold 2 s, from files 0.3 s")


def write_sample(source: str, folder: Path) -> list[Path]:
    """A random sample of the source's files, as they are, in `folder`."""
    items = list(open_source(source).items())
    Random(0).shuffle(items)
    folder.mkdir()
    paths = []
    for number, item in enumerate(items[:COUNT]):
        data = item.read()
        assert isinstance(data, bytes), "the source has no files"
        paths.append(folder / f"{number:03}{Path(item.location).suffix}")
        paths[-1].write_bytes(data)
    return paths


def _timed(way: str, place: Path, files: Sequence[Path]) -> tuple[float, float]:
    """Wall and processor time in seconds."""
    if way == "cold":
        rmtree(place / "keypoints", ignore_errors=True)
    with Searcher.open(place, _Means()) as searcher:
        if way == "from memory":
            _verified(searcher, files)
        busy, started = time.process_time(), time.perf_counter()
        if way == "bare OpenCV":
            _bare(files)
        else:
            _verified(searcher, files)
        return time.perf_counter() - started, time.process_time() - busy


def _verified(searcher: Searcher, files: Sequence[Path]) -> None:
    hits = searcher.search(files[0], k=COUNT, verify=True)
    assert len(hits) == len(files) and all(hit.inliers is not None for hit in hits)


def _bare(files: Sequence[Path]) -> None:
    matcher = cv2.BFMatcher(cv2.NORM_L2)

    def described(path: Path) -> tuple[Sequence[cv2.KeyPoint], cv2.typing.MatLike]:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        factor = geometry.SIDE / max(image.shape)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return cv2.SIFT.create(nfeatures=geometry.MAX_POINTS).detectAndCompute(small, None)

    points, descriptors = described(files[0])

    def compared(path: Path) -> int:
        others, theirs = described(path)
        pairs = [
            best
            for best, second in matcher.knnMatch(descriptors, theirs, k=2)
            if best.distance < geometry.RATIO * second.distance
        ]
        if len(pairs) < geometry.MIN_INLIERS:
            return 0
        ours = np.array([points[pair.queryIdx].pt for pair in pairs])
        found = np.array([others[pair.trainIdx].pt for pair in pairs])
        model, mask = cv2.estimateAffinePartial2D(ours, found, method=cv2.RANSAC)
        return 0 if model is None else int(mask.sum())

    with ThreadPoolExecutor(usable_cores()) as pool:
        inliers = list(pool.map(compared, files))
    assert inliers[0] > geometry.MIN_INLIERS
