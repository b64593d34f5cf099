"""The images of a tuning run: written once, and mapped into memory by all trials."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.files import replacing

FIELDS = ("images", "labels", "held_images", "held_labels")


@dataclass(frozen=True)
class TuningData:
    """Images uint8 (n, size, size, 3) and class numbers int64 (n,), to train on and held out.

    Class numbers are below `classes`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    held_images: NDArray[np.uint8]
    held_labels: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(max(self.labels.max(), self.held_labels.max())) + 1

    def digest(self) -> str:
        """The sha256 (hex) of all arrays."""
        digest = sha256()
        for array in self._arrays().values():
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write a file for each array into `folder`, unless it is there; raises `CbirError`."""
        try:
            for name, array in self._arrays().items():
                path = folder / f"{name}.npy"
                if not path.exists():
                    with replacing(path) as draft:
                        np.save(draft, array)
        except OSError as error:
            raise CbirError(
                f"cannot write the images to {folder}: {error.strerror or error}",
                "make room and run the same command again",
            ) from error

    @classmethod
    def open(cls, folder: Path) -> TuningData:
        """The arrays in `folder`; raises `CbirError` if they are not there."""
        try:
            # Copy on write: torch warns of arrays that it could not write to.
            return cls(*(np.load(folder / f"{name}.npy", mmap_mode="c") for name in FIELDS))
        except OSError as error:
            raise CbirError(
                f"cannot read the images in {folder}: {error.strerror or error}",
                "in a cluster, --out has to be on storage that all machines share",
            ) from error

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in FIELDS}
