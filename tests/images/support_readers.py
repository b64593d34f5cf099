"""Readers of pictures that share no code, or little, with the decoder."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

Pixels = NDArray[np.uint8]


def opencv(data: bytes) -> Pixels:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert found is not None
    return np.asarray(found, np.uint8)


def ffmpeg(data: bytes, folder: Path, suffix: str) -> Pixels:
    """The picture as FFmpeg reads it, which OpenCV contains for videos."""
    path = folder / f"picture{suffix}"
    path.write_bytes(data)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found, frame = capture.read()
    capture.release()
    assert found
    return np.asarray(frame, np.uint8)[..., ::-1]


@cache
def imagemagick() -> str | None:
    """The command of ImageMagick; other programs are called `convert`, too."""
    for name in ("magick", "convert"):
        command = shutil.which(name)
        if command and b"ImageMagick" in _output(command, "-version"):
            return command
    return None


def by_imagemagick(data: bytes, folder: Path, shape: tuple[int, ...]) -> Pixels | None:
    """The picture in sRGB, None if ImageMagick is missing or was built without this format."""
    command = imagemagick()
    if command is None:
        return None
    (folder / "picture").write_bytes(data)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (folder / "srgb.icc").write_bytes(srgb)
    lay = ["-auto-orient", "-background", "white", "-flatten"]
    colours = ["-intent", "relative", "-profile", str(folder / "srgb.icc"), "-colorspace", "sRGB"]
    arguments = [f"{folder / 'picture'}[0]", *lay, *colours, "-depth", "8", "rgb:-"]
    done = subprocess.run([command, *arguments], capture_output=True)
    if b"no decode delegate" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.uint8).reshape(shape)


def difference(one: Pixels, other: Pixels) -> int:
    """The largest difference, in grey levels of 255."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def _output(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True).stdout
