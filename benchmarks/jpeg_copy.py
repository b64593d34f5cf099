"""Makes the JPEG copy of CIFAR-10 used for the figures from the canonical archive.

    python -m benchmarks.jpeg_copy cifar10-jpeg.tar.xz

Every image is encoded with Pillow at quality 75, 4:2:0, as `train/<class>/NNNN.jpg` and
`test/<class>/NNNN.jpg`, numbered within its class in canonical order.
"""

from __future__ import annotations

import io
import sys
import tarfile

from PIL import Image

from cbir.images.cifar10 import download_cifar10, find_cifar10
from cbir.images.sources import open_source


def main() -> None:
    """Write the archive named on the command line; downloads the canonical one if needed."""
    if find_cifar10() is None:
        download_cifar10(lambda _done, _total: None)
    with tarfile.open(sys.argv[1], "w:xz") as archive:
        for split in ("train", "test"):
            for item in open_source(f"cifar10:{split}").items():
                pixels = item.read()
                assert not isinstance(pixels, bytes), "the JPEG copy is made of original pixels"
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG", quality=75, subsampling="4:2:0")
                member = tarfile.TarInfo(f"{item.key}.jpg")
                member.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(member, buffer)


if __name__ == "__main__":
    main()
