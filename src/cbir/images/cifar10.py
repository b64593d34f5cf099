"""CIFAR-10 (Krizhevsky, 2009) in all its forms, with the same ids and labels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

from cbir.errors import CbirError
from cbir.home import cbir_home
from cbir.images.batches import ARCHIVE, BATCHES, CLASSES, FOLDER, batch_items, open_row
from cbir.images.folders import FolderSource
from cbir.images.items import SourceItem
from cbir.images.kept_tars import open_member
from cbir.images.tars import tar_items
from cbir.types import OnDone, RgbImage

DEFAULT_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3a45b9a66d0"
SPLIT_SIZES = {"train": 50_000, "test": 10_000}
SPLITS = ("train", "test")
_FLAT_NAME = re.compile(r"(\d{1,9})-(\w+)\.\w+", re.ASCII)


class MissingDataError(CbirError):
    """CIFAR-10 was not found."""


@dataclass
class Cifar10Source:
    """The images of a split (None: both) of CIFAR-10 at `path`, in any form.

    The canonical batches yield pixels (32, 32, 3) in canonical order. A tree of class folders
    `train/<class>/NNNN.jpg` yields files in name order; an archive of one, in archive order. Flat
    folders `train/<index>-<label>.png` yield files in the order of their indexes. `count` is the
    number of files in folders, otherwise the size of the full data set.
    """

    path: Path
    split: str | None
    name: str = "cifar10"
    uri: str = "cifar10"
    descriptor: str | None = "cifar10-cnn"
    ignored: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self.scope = f"{self.split}/" if self.split else ""
        self._splits = (self.split,) if self.split else SPLITS

    @cached_property
    def count(self) -> int | None:
        """The number of items."""
        if _is_folder_of_files(self.path):
            return sum(1 for _ in self.items())
        return sum(SPLIT_SIZES[split] for split in self._splits)

    def items(self) -> Iterator[SourceItem]:
        for split in self._splits:
            empty = True
            for item in self._split_items(split):
                empty = False
                yield item
            if empty:
                raise _missing(f"{self.path} contains no images of cifar10:{split}")

    def _split_items(self, split: str) -> Iterator[SourceItem]:
        if _is_batches(self.path):
            return batch_items(self.path, split)
        if _is_folder_of_files(self.path) and not _is_tree(self.path):
            return _flat_items(self.path, split)
        return _tree_items(self.path, split)

    def open(self, location: str) -> bytes | RgbImage:
        if _is_batches(self.path):
            return open_row(self.path, location)
        if _is_folder_of_files(self.path):
            return FolderSource(self.path).open(location)
        return open_member(self.path, location)


def open_split(split: str | None) -> Cifar10Source:
    """Open the "train" or "test" split, or both; raises `MissingDataError` with a hint."""
    path = find_cifar10()
    if path is None:
        raise _missing(absence())
    return Cifar10Source(path, split)


def find_cifar10() -> Path | None:
    """The path of CIFAR-10: at or in `CBIR_DATA` if set, else in the cache folder.

    Returns the first that exists: the archive of the canonical batches, the extracted batches, a
    folder with `train/<class>/`, an archive of such a folder (`cifar10*.tar*`), or a folder with
    `train/<index>-<label>.png`.
    """
    named = os.environ.get("CBIR_DATA")
    places = [Path(named).expanduser()] if named else []
    places.append(cbir_home() / "data")
    return next((found for place in places if (found := _find_at(place))), None)


def absence() -> str:
    """The error message if `find_cifar10` finds nothing."""
    named = os.environ.get("CBIR_DATA")
    if named:
        return f"no CIFAR-10 in {named} (CBIR_DATA)"
    return "CIFAR-10 was not found"


def download_cifar10(progress: OnDone, url: str = DEFAULT_URL) -> Path:
    """Download the canonical archive (170 MB) into the cache and return its path.

    `progress` is a progress callback in bytes (total None: unknown). Interrupted downloads resume.
    Raises `CbirError` (see `download.fetch`).
    """
    from cbir.images.download import fetch

    return fetch(url, cbir_home() / "data" / ARCHIVE, MD5, progress)


def _find_at(place: Path) -> Path | None:
    if place.is_file() or _is_batches(place) or _is_tree(place):
        return place
    if not place.is_dir():
        return None
    if (place / ARCHIVE).is_file():
        return place / ARCHIVE
    if _is_batches(place / FOLDER):
        return place / FOLDER
    archives = (path for path in sorted(place.glob("cifar10*.tar*")) if path.is_file())
    return next(archives, place if _is_flat(place) else None)


def _is_batches(path: Path) -> bool:
    if path.is_dir():
        return (path / BATCHES["test"][0]).is_file() or (path / BATCHES["train"][0]).is_file()
    return path.name.startswith("cifar-10-python")


def _is_tree(path: Path) -> bool:
    """Whether `path` contains a split with one folder per CIFAR-10 class."""
    return any(all((path / split / word).is_dir() for word in CLASSES) for split in SPLITS)


def _is_flat(path: Path) -> bool:
    """Whether `path` contains a split as flat files of all CIFAR-10 classes."""
    for split in SPLITS:
        if (path / split).is_dir():
            places = map(_flat_place, (file.name for file in (path / split).iterdir()))
            if {place[1] for place in places if place} == set(CLASSES):
                return True
    return False


def _is_folder_of_files(path: Path) -> bool:
    return path.is_dir() and not _is_batches(path)


def _flat_items(path: Path, split: str) -> Iterator[SourceItem]:
    """The images of `<split>/<index>-<label>.<extension>`, in the order of their indexes.

    The index, from 0, is the image's place in the canonical order of the split, and the label is
    the name or number of its class; cbir-deep-learning wrote such folders. So the number within the
    class follows from the files before. If some are missing it is unknown, and the name remains.
    """
    found = [
        (*place, item)
        for item in FolderSource(path / split).items()
        if (place := _flat_place(item.location))
    ]
    found.sort(key=lambda one: one[0])
    complete = [index for index, _, _ in found] == list(range(len(found)))
    seen: Counter[str] = Counter()
    for _, word, item in found:
        name = f"{seen[word]:04d}" if complete else item.key.rpartition(".")[0]
        seen[word] += 1
        location = f"{split}/{item.location}"
        yield replace(item, key=f"{split}/{word}/{name}", location=location, label=word)


def _flat_place(name: str) -> tuple[int, str] | None:
    """Index and class of a file such as `29-cat.png` or `29-3.png`, None for others."""
    match = _FLAT_NAME.fullmatch(name)
    if match is None:
        return None
    index, label = match.groups()
    if label.isdecimal() and int(label) < len(CLASSES):
        return int(index), CLASSES[int(label)]
    return (int(index), label) if label in CLASSES else None


def _tree_items(path: Path, split: str) -> Iterator[SourceItem]:
    """The images of a tree, or an archive of one, with the keys and labels shared by all forms."""
    found: Iterator[SourceItem]
    if path.is_dir():
        folder = FolderSource(path / split).items()
        found = (replace(item, location=f"{split}/{item.location}") for item in folder)
    else:
        members = tar_items(path, lambda key: _tree_place(key, split) is not None)
        # Do not unpack anything after the split's last image.
        images = (item for item in members if isinstance(item, SourceItem))
        found = islice(images, SPLIT_SIZES[split])
    for item in found:
        if place := _tree_place(item.location, split):
            word, stem = place
            yield replace(item, key=f"{split}/{word}/{stem}", label=word)


def _tree_place(location: str, split: str) -> tuple[str, str] | None:
    """Class and file name without extension of `.../<split>/<class>/<file>`, None for others."""
    parts = location.split("/")[-3:]
    if len(parts) < 3 or parts[0] != split or parts[1] not in CLASSES:
        return None
    return parts[1], parts[2].rpartition(".")[0] or parts[2]


def _missing(what: str) -> MissingDataError:
    return MissingDataError(
        what, "`cbir demo` downloads it; or set CBIR_DATA to the folder that contains it"
    )
