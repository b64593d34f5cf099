"""The decoder on real photos, against other readers: differences in grey levels of 255.

OpenCV and ImageMagick bring their own builds of libjpeg-turbo. FFmpeg has a JPEG decoder of its
own, and enlarges the planes of colour differently; so it also reads the photos written again as
4:4:4, where nothing is enlarged. A reader that is not there is left out.

    python -m benchmarks decoding
    python -m benchmarks decoding --photos FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image

from benchmarks.setting import PHOTOS, photos_archive
from cbir.images.decode import decode
from cbir.images.sources import open_source
from tests.images.support_readers import Pixels, by_imagemagick, ffmpeg, opencv

Reader = Callable[[bytes, Path, tuple[int, ...]], Pixels | None]


def main(arguments: Sequence[str] = ()) -> None:
    """Print the largest and the mean difference to each reader over all photos."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks decoding")
    parser.add_argument("--photos", help=f"a source of JPEGs; default: {PHOTOS} in CBIR_DATA")
    source = open_source(parser.parse_args(arguments).photos or photos_archive())
    as_they_are: dict[str, Reader] = {
        f"OpenCV {cv2.__version__}": lambda data, *_: opencv(data),
        "ImageMagick": by_imagemagick,
        "FFmpeg": _by_ffmpeg,
    }
    again: dict[str, Reader] = {"FFmpeg, 4:4:4": _by_ffmpeg}
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in as_they_are | again}
    with tempfile.TemporaryDirectory() as folder:
        for item in source.items():
            data = item.read()
            assert isinstance(data, bytes), "the source has no files"
            for file, readers in ((data, as_they_are), (_written_again(data), again)):
                mine = decode(file)
                for name, read in readers.items():
                    other = read(file, Path(folder), mine.shape)
                    if other is not None:
                        apart = np.abs(mine.astype(int) - other)
                        found[name].append((int(apart.max()), float(apart.mean())))
    print(f"Pillow {PIL.__version__} against   photos  largest  mean")
    for name, differences in found.items():
        if differences:
            largest, means = zip(*differences, strict=True)
            print(f"{name:22} {len(differences):6,} {max(largest):8} {np.mean(means):5.2f}")
        else:
            print(f"{name:22} not here")


def _by_ffmpeg(data: bytes, folder: Path, _: tuple[int, ...]) -> Pixels:
    return ffmpeg(data, folder, ".jpg")


def _written_again(data: bytes) -> bytes:
    target = BytesIO()
    Image.fromarray(decode(data)).save(target, "JPEG", quality=90, subsampling=0)
    return target.getvalue()


if __name__ == "__main__":
    main()
