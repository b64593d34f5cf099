"""Writes and reads checkpoints of a training run: tensors, and facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cbir.errors import CbirError
from cbir.files import replacing

FACTS = "facts"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path` (.safetensors); if that fails, the old one stays.

    Raises `CbirError` if the disk is full or `path` cannot be written.
    """
    # Clones, because safetensors refuses tensors that share memory.
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with replacing(path) as draft:
            draft.write_bytes(save(stored, {FACTS: json.dumps(facts)}))
    except OSError as error:
        raise CbirError(
            f"cannot write the checkpoint {path}: {error.strerror or error}",
            "make room and run the same command again: it resumes after the last saved epoch",
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of the checkpoint at `path`; raises `CbirError` if it is damaged."""
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load(data), json.loads(header["__metadata__"][FACTS])
    except (KeyError, OSError, ValueError, SafetensorError) as error:
        raise CbirError(
            f"the checkpoint {path} cannot be read; it is damaged or truncated",
            "remove it and run the same command again: training starts anew",
        ) from error


def grouped(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, named without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
