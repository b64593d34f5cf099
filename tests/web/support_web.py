"""A small real index, and small real pictures, for the tests of the page."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

from cbir.descriptors.contract import Descriptor
from cbir.images.decode import decode
from cbir.ingest.indexing import index_images
from cbir.search.query import SearchOptions
from cbir.search.searcher import Searcher
from cbir.types import DescriptorSpec, Hit, RgbImage, Vectors
from cbir.web.serve import Server, listen
from tests.descriptors.local.support_textures import texture, write_textures

NAMES = (
    "warm/red.png",
    "warm/orange.png",
    "warm/yellow.jpg",
    "warm/a b.png",
    "warm/100%.png",
    "warm/100%25.png",
    "cold/blue.png",
    "cold/q?x=1&y#z+w.png",
    "cold/grün äß.png",
    "cold/日本.png",
    "cold/<b>&\"'.png",
    "cold/large.png",
    "cold/print.tif",
)


class Grid:
    """Describes a picture by the colours of a 4 x 4 grid."""

    @property
    def spec(self) -> DescriptorSpec:
        return DescriptorSpec("grid", 48, "9c" * 32)

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        small = [Image.fromarray(image).resize((4, 4), Image.Resampling.BOX) for image in images]
        rows = np.stack([np.asarray(s, dtype=np.float32).ravel() for s in small]) - 127.25
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class GridWords(Grid):
    """Its text tower: a picture that no other text has."""

    has_text = True

    @property
    def spec(self) -> DescriptorSpec:
        return DescriptorSpec("grid-words", 48, "9d" * 32)

    def describe_texts(self, texts: Sequence[str]) -> Vectors:
        drawn = [decode(picture(crc32(text.encode()))) for text in texts]
        return self.describe(drawn)


def picture(seed: int, side: int = 32, kind: str = "PNG") -> bytes:
    """A picture that no other seed has: coloured squares."""
    squares = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(squares).resize((side, side), Image.Resampling.NEAREST)
    target = io.BytesIO()
    # Uncompressed, a large one is too large for an index to keep it whole as its thumbnail.
    image.save(target, kind, **({"compress_level": 0} if kind == "PNG" else {}))
    return target.getvalue()


def noise(side: int) -> bytes:
    """A PNG of about 3 x side x side bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=0)
    return target.getvalue()


def build_index(folder: Path, regions: int = 1, descriptor: Descriptor | None = None) -> str:
    """An index of the pictures in `NAMES` (seeds in their order), and where it is."""
    kinds = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}
    for seed, name in enumerate(NAMES):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 400 if "large" in name else 32
        path.write_bytes(picture(seed, side, kinds[path.suffix]))
    url = str(folder / "pictures.cbir")
    report = index_images(
        [str(folder / "pictures")],
        url,
        descriptor=descriptor or Grid(),
        label_from_folder=True,
        regions=regions,
    )
    assert report.added == len(NAMES), report
    return url


PART = "photos/part.png"


def build_textured(folder: Path) -> str:
    """An index of pictures with enough on them to be compared, and where it is.

    `PART` is a part of `photos/2.png`, which the scores alone do not tell.
    """
    photos = write_textures(folder / "photos", 4)
    Image.fromarray(texture(2)[60:, 80:]).save(photos / "part.png")
    index_images([photos], folder / "t.cbir", descriptor=Grid())
    return str(folder / "t.cbir")


class SlowSearcher(Searcher):
    """Begins the searches for which `slow` once `go_on` is set, or when verification should end."""

    def __init__(self, url: str, slow: Callable[[Any, SearchOptions], bool]) -> None:
        super().__init__(open_searcher(url).index, Grid())
        self.slow = slow
        self.begun = threading.Semaphore(0)
        self.ended: list[str] = []
        self.go_on = threading.Event()

    def search(self, query: Any, **options: Any) -> list[Hit]:
        asked: SearchOptions | None = options.get("options")
        if asked is not None and self.slow(query, asked):
            self.begun.release()
            try:
                while not self.go_on.wait(0.02):
                    if asked.verify and not options["go_on"]():
                        break
            except BaseException as error:
                self.ended.append(str(error))
                raise
        return super().search(query, **options)


LARGE = "pictures/cold/large.png"


def open_searcher(url: str, descriptor: Descriptor | None = None) -> Searcher:
    return Searcher.open(url, descriptor or Grid())


@contextmanager
def served(searcher: Searcher) -> Iterator[str]:
    """The address of a page over `searcher`, answered by the production server."""
    with listening(searcher) as (_server, address):
        yield address


@contextmanager
def listening(searcher: Searcher) -> Iterator[tuple[Server, str]]:
    """The production server over `searcher`, and the address of its page."""
    server, address = listen(searcher, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server, address
    finally:
        server.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()
