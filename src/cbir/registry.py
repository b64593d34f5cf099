"""Resolves names to factories: entry points and `module:attribute` strings."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from cbir.errors import CbirError, MissingExtraError
from cbir.wording import did_you_mean


def entry_point(name: str, group: str) -> Callable[[], Any] | None:
    """The factory registered as `name` in the entry-point group `group`, or None."""
    for entry in entry_points(group=group, name=name):
        return _load(name, entry.value)
    return None


def resolve(name: str, group: str, known: Iterable[str]) -> Callable[[], Any]:
    """The factory registered as `name` in the entry-point group `group`, or at `module:attribute`.

    If there is none, raises `CbirError` and suggests a registered or `known` name.
    """
    registered = entry_point(name, group)
    if registered is not None:
        return registered
    module_name, _, attribute = name.partition(":")
    if not attribute or not _importable(module_name):
        names = {*known, *(entry.name for entry in entry_points(group=group))}
        raise CbirError(f"unknown name '{name}'", did_you_mean(name, sorted(names)))
    return _load(name, name)


def installed(*modules: str) -> bool:
    """Whether all `modules` can be imported; imports none but the packages that they lie in."""
    return all(map(_importable, modules))


def require_extra(feature: str, extra: str, *modules: str) -> None:
    """Raise `MissingExtraError` unless all `modules` that `feature` needs are installed."""
    if not installed(*modules):
        raise MissingExtraError(feature, extra)


def _load(name: str, target: str) -> Callable[[], Any]:
    module_name, _, attribute = target.partition(":")
    try:
        factory: Callable[[], Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise CbirError(f"cannot load '{name}': {error}") from error
    return factory


def _importable(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except (ImportError, ValueError):
        return False
