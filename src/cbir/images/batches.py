"""Reads CIFAR-10's canonical form, six pickled batches, with a restricted unpickler.

Format: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import codecs
import pickle
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError, ImageError
from cbir.files import read_regular
from cbir.images.items import SourceItem
from cbir.images.tar_members import stream_tar
from cbir.types import RgbImage

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"

_SIDE = 32
_MOST_BYTES = 2**28
_PICKLE_ERRORS = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError),
    *(LookupError, AttributeError, OverflowError),
)
_LOCATION = re.compile(r"(data_batch_[1-5]|test_batch)/(\d+)")


@dataclass(frozen=True, slots=True)
class Batch:
    """`rows`: uint8 (n, 3072), red, green and blue planes; `labels`: n indices into `CLASSES`."""

    rows: NDArray[np.uint8]
    labels: list[int]


def batch_items(path: Path, split: str) -> Iterator[SourceItem]:
    """The images of a split in canonical order, from the archive or the extracted folder."""
    seen: Counter[str] = Counter()
    for name, data in _raw_batches(path, BATCHES[split]):
        batch = _unpickle(data, f"{path}: {name}")
        del data
        for number, label in enumerate(batch.labels):
            word = CLASSES[label]
            key = f"{split}/{word}/{seen[word]:04d}"
            seen[word] += 1
            read = partial(_pixels, batch.rows[number])
            yield SourceItem(key, f"{name}/{number}", word, None, None, read)


def open_row(path: Path, location: str) -> RgbImage:
    """The pixels at a location such as `data_batch_1/17`; raises `ImageError` if it is missing."""
    match = _LOCATION.fullmatch(location)
    rows = _kept_batch(path, match[1]).rows if match else np.empty((0, 0), np.uint8)
    if match is None or int(match[2]) >= len(rows):
        raise ImageError(f"the original is gone: no image {location} in {path}")
    return _pixels(rows[int(match[2])])


@lru_cache(maxsize=1)
def _kept_batch(path: Path, name: str) -> Batch:
    [(_, data)] = _raw_batches(path, (name,))
    return _unpickle(data, f"{path}: {name}")


def _pixels(row: NDArray[np.uint8]) -> RgbImage:
    return np.ascontiguousarray(row.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))


def _raw_batches(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of the named files in the order of `names`, keeping none in memory."""
    if path.is_dir():
        for name in names:
            try:
                yield name, read_regular(path / name)
            except OSError as error:
                raise _damaged(f"{path / name}: {error.strerror or error}") from error
        return
    # The archive has its own batch order and can only be read sequentially.
    found: dict[str, bytes] = {}
    for member in stream_tar(path):
        name = member.key.rpartition("/")[2]
        if name in names and member.file is not None:
            found[name] = member.read(min(member.info.size, _MOST_BYTES))
            if len(found) == len(names):
                break
    for name in names:
        if name not in found:
            raise _damaged(f"{path}: {name} is missing")
        yield name, found.pop(name)


def _unpickle(data: bytes, where: str) -> Batch:
    try:
        content = _RestrictedUnpickler(BytesIO(data), encoding="bytes").load()
        rows, labels = content[b"data"], content[b"labels"]
    except _PICKLE_ERRORS as error:
        raise _damaged(f"{where}: {error}") from error
    whole = (
        isinstance(rows, np.ndarray)
        and rows.dtype == np.uint8
        and rows.shape == (len(labels), 3 * _SIDE * _SIDE)
        and all(isinstance(label, int) and 0 <= label < len(CLASSES) for label in labels)
    )
    if not whole:
        raise _damaged(f"{where}: not 32 x 32 RGB images with labels 0 to 9")
    return Batch(rows, list(labels))


def _damaged(what: str) -> CbirError:
    return CbirError(f"CIFAR-10 cannot be read: {what}", "delete it and fetch it again")


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds only lists, dictionaries, strings and NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}") from None


_reconstruct = np.empty(0).__reduce__()[0]

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}
