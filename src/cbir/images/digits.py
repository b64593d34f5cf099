"""scikit-learn's handwritten digits: 1,797 labelled 8 x 8 images that need no download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import numpy as np
from numpy.typing import NDArray

from cbir.errors import ImageError
from cbir.images.items import SourceItem
from cbir.registry import require_extra
from cbir.types import RgbImage

TEST_EVERY = 5
"""Every fifth image of a class is a test image."""

_BRIGHTEST = 16


@dataclass
class DigitsSource:
    """The images of a split (None: both) as RGB pixels (8, 8, 3), with keys such as `train/3/0007`.

    From the UCI set "Optical Recognition of Handwritten Digits" (CC BY 4.0). Grey levels 0..16
    are scaled to 0..255. Images are numbered per class and split, in scikit-learn's order.
    """

    split: str | None
    name: str = "digits"
    uri: str = "digits"
    descriptor: str | None = "classic"
    ignored: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.scope = f"{self.split}/" if self.split else ""

    @cached_property
    def count(self) -> int | None:
        """The number of items."""
        return len(self._pictures)

    def items(self) -> Iterator[SourceItem]:
        for key, grey in self._pictures.items():
            label = key.split("/")[1]
            yield SourceItem(key, key, label, None, None, partial(_rgb, grey))

    def open(self, location: str) -> RgbImage:
        if location not in self._pictures:
            raise ImageError(f"the digits have no image {location}")
        return _rgb(self._pictures[location])

    @cached_property
    def _pictures(self) -> dict[str, NDArray[np.float64]]:
        return {key: grey for key, grey in _load().items() if key.startswith(self.scope)}


def open_split(split: str | None) -> DigitsSource:
    """Open the "train" or "test" split, or both; `MissingExtraError` without scikit-learn."""
    require_extra("the digits source", "digits", "sklearn")
    return DigitsSource(split)


@cache
def _load() -> dict[str, NDArray[np.float64]]:
    """Grey images by key, the train split first."""
    from sklearn.datasets import load_digits

    data = load_digits()
    seen: Counter[str] = Counter()
    splits: dict[str, dict[str, NDArray[np.float64]]] = {"train": {}, "test": {}}
    for grey, digit in zip(data.images, data.target.tolist(), strict=True):
        seen[digit] += 1
        split = "train" if seen[digit] % TEST_EVERY else "test"
        folder = f"{split}/{digit}"
        splits[split][f"{folder}/{seen[folder]:04d}"] = grey
        seen[folder] += 1
    return splits["train"] | splits["test"]


def _rgb(grey: NDArray[np.float64]) -> RgbImage:
    level = np.rint(grey * (255 / _BRIGHTEST)).astype(np.uint8)
    return np.repeat(level[:, :, None], 3, axis=2)
