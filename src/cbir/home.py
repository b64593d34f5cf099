"""The folder that keeps what `cbir` fetched and trained."""

from __future__ import annotations

import os
from pathlib import Path


def cbir_home() -> Path:
    """`CBIR_HOME` if it is set, else `~/.cache/cbir`; the folder may not exist yet."""
    given = os.environ.get("CBIR_HOME")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "cbir"
