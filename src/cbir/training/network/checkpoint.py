"""Writes and reads checkpoints of a training run: arrays, and facts as JSON."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.errors import CbirError
from cbir.files import replacing

Arrays = dict[str, NDArray[Any]]

FACTS = "facts"


def write_checkpoint(path: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path` (.npz); if that fails, the old one stays.

    Raises `CbirError` if the disk is full or `path` cannot be written.
    """
    stored: dict[str, Any] = {**arrays, FACTS: np.array(json.dumps(facts))}
    try:
        with replacing(path) as draft:
            np.savez(draft, **stored)
    except OSError as error:
        raise CbirError(
            f"cannot write the checkpoint {path}: {error.strerror or error}",
            "make room and run the same command again: it resumes after the last saved epoch",
        ) from error


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and facts of the checkpoint at `path`; raises `CbirError` if it is damaged."""
    try:
        # Opened here, because NumPy leaves a truncated file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored}
        return arrays, json.loads(str(arrays.pop(FACTS)))
    except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise CbirError(
            f"the checkpoint {path} cannot be read; it is damaged or truncated",
            "remove it and run the same command again: training starts anew",
        ) from error
