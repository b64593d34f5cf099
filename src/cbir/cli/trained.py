"""What `cbir train cnn` and `cbir train bovw` share: a model's name, and where its files go."""

from __future__ import annotations

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
    from cbir.files import write_files

    if out is None:
        return keep_model(files)
    write_files(files, out)
    return out
