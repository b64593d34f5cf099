"""What `cbir train cnn` and `cbir train bovw` share: a model's name, and where its files go."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path


def check_name(name: str, stored: bool) -> None:
    """Raise `CbirError` where `name` cannot be a model's, or is a shipped one's (in the store)."""
    from cbir.descriptors.models import SHIPPED
    from cbir.errors import CbirError

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise CbirError(
            f"'{name}' cannot name a model", "use letters, digits, dots, dashes and underscores"
        )
    if stored and name in SHIPPED:
        raise CbirError(f"'{name}' is a shipped model", "choose another --name, or write to --out")


def keep(files: Mapping[str, bytes], out: Path | None) -> Path:
    """Write a model's files to the folder `out`, or to the model store; returns the folder."""
    from cbir.descriptors.models import keep_model

    return keep_model(files) if out is None else write_files(files, out)


def write_files(files: Mapping[str, bytes], out: Path) -> Path:
    """Write `files` by name into the folder `out`, each whole or not at all; returns `out`."""
    out.mkdir(parents=True, exist_ok=True)
    temporary = {name: out / f".{name}.{os.getpid()}" for name in files}
    try:
        for name, data in files.items():
            temporary[name].write_bytes(data)
        for name, path in temporary.items():
            path.replace(out / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return out
