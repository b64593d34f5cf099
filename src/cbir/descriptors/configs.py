"""Reads the JSON files beside a model of another library: bounded, with types checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeGuard, TypeVar

from cbir.errors import CbirError

MAX_BYTES = 16 * 2**20
MOST = 2**31
"""The largest whole number that a setting may be."""

SHOWN = 60

T = TypeVar("T")
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Read(Generic[T]):
    """What the files of a model say.

    `value` is None if they do not say enough. `assumptions` are what was taken for granted, and
    `questions` what stays open; one line each.
    """

    value: T | None
    assumptions: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


class OpenQuestionError(Exception):
    """A file says something that cannot be represented, or not enough; the text is one line."""


@dataclass(frozen=True)
class Config:
    """A JSON object of `file`. A key that is absent or null has no value: None.

    The methods raise `CbirError`, which names file and key, for values of another type.
    """

    file: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if value is None or isinstance(value, str) else self.refuse(key)

    def flag(self, key: str, usual: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return usual
        return value if isinstance(value, bool) else self.refuse(key)

    def whole(self, key: str) -> int | None:
        value = self.values.get(key)
        return value if value is None or _is_whole(value) else self.refuse(key)

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        return value if value is None or _is_number(value) else self.refuse(key)

    def channels(self, key: str) -> Triple | None:
        """One number for each of three channels, or the same for all."""
        value = self.values.get(key)
        if value is None or _is_number(value):
            return None if value is None else (value, value, value)
        if isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)):
            return value[0], value[1], value[2]
        return self.refuse(key)

    def pair(self, key: str) -> tuple[int, int] | None:
        """Height and width: a list of two, or one number for both."""
        value = self.values.get(key)
        if value is None or _is_whole(value):
            return None if value is None else (value, value)
        if isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value)):
            return value[0], value[1]
        return self.refuse(key)

    def part(self, key: str, usual: float) -> float:
        """A number above 0 and at most 1."""
        part = self.number(key) or usual
        return part if 0 < part <= 1 else self.refuse(key)

    def choice(self, key: str, known: Sequence[str], usual: str) -> str:
        value = self.values.get(key)
        if value is not None and value not in known:
            self.refuse(key)
        return usual if value is None else str(value)

    def section(self, key: str) -> Config:
        """The object in this one; an empty one if there is none."""
        value = self.values.get(key)
        if value is None or isinstance(value, dict):
            return Config(self.file, value or {})
        return self.refuse(key)

    def missing(self, *keys: str) -> list[str]:
        """Those of `keys` that have no value."""
        return [key for key in keys if self.values.get(key) is None]

    def refuse(self, key: str) -> NoReturn:
        """Raise `CbirError` for the value of `key`."""
        shown = repr(self.values.get(key))
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        raise CbirError(f"{self.file}: '{key}' is {shown}", "correct the file")


def read_config(path: Path, limit: int = MAX_BYTES) -> Config | None:
    """The JSON object in `path`; None if there is no such file.

    Raises `CbirError` if it holds anything else, or more than `limit` bytes.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CbirError(f"cannot read {path.name}: {error.strerror}") from error
    if len(data) > limit:
        raise CbirError(
            f"{path.name} is larger than {limit // 2**20} MB", "fetch or export the model again"
        )
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CbirError(f"{path.name} is not JSON", "fetch or export the model again") from error
    if not isinstance(values, dict):
        raise CbirError(f"{path.name} is not a JSON object", "fetch or export the model again")
    return Config(path.name, values)


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) <= MOST


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False
