"""Reads the tensors of a `.pth` file into NumPy, without torch and without running its pickles.

The format before PyTorch 1.6: three pickled headers, the pickled state dict, the pickled list of
storage keys, then the storages, each an int64 count and its little-endian values.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.files import require_regular

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
MALFORMED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(OverflowError, MemoryError, RecursionError),
)
"""What reading a file that is no such file may raise."""

Tensors = Mapping[str, NDArray[Any]]


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The state dict in the file at `path`, by name.

    Raises `CbirError` if the file holds anything but tensors, or is no such file.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            return _tensors(file)
    except OSError as error:
        raise CbirError(f"{path}: {error.strerror}") from error
    except MALFORMED as error:
        raise CbirError(f"{path} is not a file of tensors: {error}") from error


def _tensors(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    if _Reader(file).load() != MAGIC:
        raise ValueError("it does not begin as a .pth file of this format does")
    for _ in ("protocol", "system"):
        _Reader(file).load()
    reader = _Reader(file)
    stored = reader.load()
    if not isinstance(stored, dict) or not all(isinstance(v, _Pending) for v in stored.values()):
        raise TypeError("it holds something else than tensors by name")
    storages: dict[str, NDArray[Any]] = {}
    for key in _Reader(file).load():
        storages[key] = _storage(file, reader.wanted[key])
    return {name: pending.read(storages) for name, pending in stored.items()}


def _storage(file: IO[bytes], kind: tuple[str, int]) -> NDArray[Any]:
    dtype, expected = np.dtype(kind[0]), kind[1]
    count = int(np.frombuffer(file.read(8), dtype="<i8")[0])
    if count != expected:
        raise ValueError(f"a storage of {count} values where {expected} were announced")
    data = file.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype, count=count)


class _Reader(pickle.Unpickler):
    """Builds numbers, texts, containers and tensors, and refuses every other name."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.wanted: dict[str, tuple[str, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Pending
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")

    def persistent_load(self, saved: Any) -> str:
        kind, dtype, key, _, count, *view = saved
        if kind != "storage" or view not in ([], [None]):
            raise pickle.UnpicklingError("it refers to something else than storages")
        self.wanted[key] = (dtype, count)
        return str(key)


class _Pending:
    """A tensor that is made when the storages are read, after the pickles."""

    def __init__(
        self, key: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> None:
        self.key, self.offset, self.size, self.stride = key, offset, size, stride

    def read(self, storages: Tensors) -> NDArray[Any]:
        flat = storages[self.key]
        last = self.offset + sum((n - 1) * by for n, by in zip(self.size, self.stride, strict=True))
        if min((self.offset, *self.stride, *self.size)) < 0 or last >= max(len(flat), 1):
            raise ValueError("a tensor reaches beyond its storage")
        if prod(self.size) > max(len(flat), 1):
            raise ValueError("a tensor repeats its storage")
        steps = [step * flat.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, steps).copy()
