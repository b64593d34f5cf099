"""Resolves names to factories: built-in names, entry points, `module:attribute` strings."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from cbir.errors import CbirError


def resolve(name: str, builtin: Mapping[str, str], group: str) -> Callable[..., Any]:
    """The factory registered as `name`.

    `builtin` maps names to `module:attribute`; `group` is an entry-point group that other
    packages add to; any other `module:attribute` is imported as it stands. Raises `CbirError`
    with the nearest known names where nothing fits.
    """
    plugins = {entry.name: entry.value for entry in entry_points(group=group)}
    known = {**plugins, **builtin}
    target = known.get(name, name)
    module_name, _, attribute = target.partition(":")
    if not attribute or (name not in known and not _importable(module_name)):
        raise CbirError(f"unknown name '{name}'", _near(name, known))
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise CbirError(f"cannot load '{name}': {error}", _near(name, known)) from error
    return factory


def _importable(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except (ImportError, ValueError):
        return False


def _near(name: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listed = ", ".join(sorted(known))
    return f"did you mean '{close[0]}'?" if close else f"known names: {listed}"
