"""The folder for downloads and trained models."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cbir_home() -> Path:
    """`CBIR_HOME` if it is set, else `cbir` in the user's cache folder; it may not exist yet."""
    given = os.environ.get("CBIR_HOME")
    return Path(given).expanduser() if given else user_cache_path("cbir", appauthor=False)
