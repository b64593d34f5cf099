"""The libraries that fitting needs and describing does not."""

from __future__ import annotations

import importlib.util

from cbir.errors import MissingExtraError


def require_extra(*modules: str) -> None:
    """Raise `MissingExtraError` unless scikit-learn, and `modules` as well, are installed."""
    for module in ("sklearn", *modules):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("cbir train bovw", "bovw")
