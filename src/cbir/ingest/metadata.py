"""Metadata files: what a CSV or JSONL file says of images, joined by id or by path."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from cbir.errors import CbirError
from cbir.images.ids import encode_path
from cbir.index.filters import FIELDS, as_number
from cbir.types import MetadataValue

Key = Literal["id", "path"]
Fields = dict[str, MetadataValue]

_KEYS: tuple[Key, Key] = ("id", "path")
_LABEL = "label"
_OPERATORS = re.compile("[=!<>]")
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_LARGEST_INTEGER = 2**63 - 1
_ONE_KEY = "give each row its image in one column, 'id' or 'path' (relative to the source)"


@dataclass
class Metadata:
    """Fields of images, found by what the file names them by.

    `key` is "id" or "path". `label` is a field like the others, always text.
    """

    key: Key
    _fields: dict[str, Fields]
    _names: dict[str, str]
    _used: set[str] = field(default_factory=set)

    def lookup(self, id: str, path: str) -> Fields:
        """The fields of the record `id` at the (percent-encoded) `path` in its source, or {}."""
        place = id if self.key == "id" else path.replace("\\", "/")
        if place not in self._fields:
            return {}
        self._used.add(place)
        return dict(self._fields[place])

    def unused(self) -> list[str]:
        """Ids or paths, as the file has them, that no `lookup` has asked for."""
        return [name for place, name in self._names.items() if place not in self._used]


@dataclass(frozen=True, slots=True)
class _Row:
    """One image of the file: its line, and its fields (absent ones left out)."""

    line: int
    fields: Mapping[str, Any]


def read_metadata(path: Path) -> Metadata:
    """The metadata in a `.csv` file (with a header line) or a `.jsonl` file (an object a line).

    A column `id` or `path` says which image a row is about; a path is relative to the source, with
    `/` or `\\`. `label` becomes the record's label. In a CSV file a column is numbers if all its
    cells are (no leading zeros, at most 18 digits), else text; an empty cell, as a null in JSON,
    is an absent field. Both are UTF-8. Raises `CbirError` naming file and line for everything
    else: a row without a key, a key that comes twice, nested values, fields with reserved names.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CbirError(f"metadata file {path} is neither .csv nor .jsonl", "rename or convert it")
    try:
        rows = list(reader(path))
    except OSError as error:
        raise CbirError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CbirError(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    if not rows:
        raise CbirError(f"{path} says nothing of any image", _ONE_KEY)
    return _joined(path, rows)


def _joined(path: Path, rows: Sequence[_Row]) -> Metadata:
    key = _key_of(path, rows[0])
    fields: dict[str, Fields] = {}
    names: dict[str, str] = {}
    for row in rows:
        if _key_of(path, row) != key:
            _refuse(path, row.line, f"this row has no '{key}', which the first row has", _ONE_KEY)
        name = row.fields[key]
        if not isinstance(name, str) or not name:
            _refuse(path, row.line, f"{key} {name!r} is not text", _ONE_KEY)
        place = name if key == "id" else _place(name)
        if place in names:
            _refuse(path, row.line, f"{key} '{name}' comes twice", "keep one row an image")
        names[place] = name
        fields[place] = {k: value for k, value in row.fields.items() if k != key}
    return Metadata(key, fields, names)


def _key_of(path: Path, row: _Row) -> Key:
    keys = [key for key in _KEYS if key in row.fields]
    if len(keys) != 1:
        found = "both 'id' and 'path'" if keys else "neither 'id' nor 'path'"
        _refuse(path, row.line, f"the row has {found}", _ONE_KEY)
    return keys[0]


def _place(name: str) -> str:
    return encode_path(PurePosixPath(name.replace("\\", "/")).as_posix())


def _csv_rows(path: Path) -> Iterator[_Row]:
    lines, cells = _csv_cells(path)
    if not cells:
        return
    header = cells[0]
    _check_header(path, lines[0], header)
    for line, row in zip(lines, cells, strict=True):
        if len(row) != len(header):
            _refuse(path, line, f"{len(header)} cells expected, found {len(row)}")
    columns = [
        column if name in (*_KEYS, _LABEL) else _typed(column)
        for name, column in zip(header, zip(*cells[1:], strict=True), strict=False)
    ]
    for line, row_values in zip(lines[1:], zip(*columns, strict=True), strict=True):
        named = zip(header, row_values, strict=True)
        yield _Row(line, {name: value for name, value in named if value != ""})


def _csv_cells(path: Path) -> tuple[list[int], list[list[str]]]:
    """The rows that are not blank and the line each starts at; cells without outer space."""
    lines, cells = [], []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, skipinitialspace=True, strict=True)
        line = 1
        try:
            for row in reader:
                if any(row):
                    lines.append(line)
                    cells.append([cell.strip() for cell in row])
                line = reader.line_num + 1
        except csv.Error as error:
            _refuse(path, line, f"not CSV: {error}")
    return lines, cells


def _check_header(path: Path, line: int, header: Sequence[str]) -> None:
    if len({"id", "path"} & set(header)) != 1:
        listed = ", ".join(header)
        _refuse(path, line, f"one column 'id' or 'path' expected, found: {listed}", _ONE_KEY)
    for number, name in enumerate(header):
        if name in header[:number]:
            _refuse(path, line, f"column '{name}' comes twice")
        _check_name(path, line, name)


def _typed(column: Sequence[str]) -> Sequence[MetadataValue]:
    """The cells as whole numbers, else as numbers, else as they are; empty ones stay."""
    numbers: dict[str, int | float] = {}
    for cell in filter(None, column):
        number = _number(cell)
        if number is None:
            return column
        numbers[cell] = number
    kind = float if any(isinstance(number, float) for number in numbers.values()) else int
    return [kind(numbers[cell]) if cell else "" for cell in column]


def _number(cell: str) -> int | float | None:
    """None also for what only looks like a number: article codes such as 007, very long ones."""
    number = as_number(cell)
    if number is None or not math.isfinite(number) or _LEADING_ZERO.match(cell):
        return None
    return None if isinstance(number, float) and cell.lstrip("+-").isdigit() else number


def _json_rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if text.strip():
                yield _Row(line, dict(_json_fields(path, line, _json_object(path, line, text))))


def _json_object(path: Path, line: int, text: str) -> list[tuple[str, Any]]:
    def refuse_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number of JSON")

    try:
        # Pairs instead of a dict, so that a name given twice is seen.
        found = json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, line, f"not JSON: {error}", "write one object a line")
    if not isinstance(found, _Pairs):
        _refuse(path, line, "not a JSON object", "write one object a line")
    return found


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, apart from a JSON array."""


def _json_fields(
    path: Path, line: int, pairs: Iterable[tuple[str, Any]]
) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            _refuse(path, line, f"'{name}' comes twice")
        seen.add(name)
        _check_name(path, line, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            _refuse(path, line, f"'{name}' is neither text nor a number", "flatten it to fields")
        if not isinstance(value, str) and not abs(value) <= _LARGEST_INTEGER:
            _refuse(path, line, f"'{name}' is too large a number", "write it as text")
        yield name, str(value) if name == _LABEL else value


def _check_name(path: Path, line: int, name: str) -> None:
    if name in FIELDS and name not in (*_KEYS, _LABEL):
        _refuse(path, line, f"'{name}' is a field that every record has", "rename the column")
    if not name or name != name.strip() or _OPERATORS.search(name):
        _refuse(path, line, f"a column cannot be called '{name}'", "use no space around, nor =!<>")


def _refuse(path: Path, line: int, problem: str, hint: str = "") -> NoReturn:
    raise CbirError(f"{path}:{line}: {problem}", hint)
