"""Metadata files: CSV or JSONL rows, joined to images by id or by path."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn
from unicodedata import normalize

from cbir.errors import CbirError
from cbir.files import require_regular
from cbir.images.ids import encode_path
from cbir.index.filters import FIELDS, TAKEN, as_number, iso_date
from cbir.types import MetadataValue

Key = Literal["id", "path"]
Fields = dict[str, MetadataValue | None]

_KEYS: tuple[Key, Key] = ("id", "path")
_LABEL = "label"
_OPERATORS = re.compile("[=!<>]")
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_LARGEST_INTEGER = 2**63 - 1
_ONE_KEY = "name each row's image in one column, 'id' or 'path' (relative to the source)"


@dataclass
class Metadata:
    """Fields of images by id or by path; `key` says which.

    `label` is a field like the others and always text. None stands for an empty cell.
    """

    key: Key
    _fields: dict[str, Fields]
    _names: dict[str, str]
    _alike: dict[str, str]
    _used: set[str] = field(default_factory=set)

    def lookup(self, id: str, path: str, source: str = "") -> Fields:
        """The fields of the record `id` at the (percent-encoded) `path` in `source`, or {}.

        `source`: its location, to find absolute paths.
        """
        for name in [id] if self.key == "id" else _spellings(path.replace("\\", "/"), source):
            place = name if name in self._fields else self._alike.get(_composed(name))
            if place is not None:
                self._used.add(place)
                return dict(self._fields[place])
        return {}

    def unused(self) -> list[str]:
        """The ids or paths, as written in the file, that no `lookup` has matched."""
        return [name for place, name in self._names.items() if place not in self._used]


@dataclass(frozen=True, slots=True)
class _Row:
    """One image of the file: its line and the fields that are present."""

    line: int
    fields: Mapping[str, Any]


class _LineError(Exception):
    """A problem with a line of the file, and the hint."""

    def __init__(self, line: int, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.line, self.problem, self.hint = line, problem, hint


def read_metadata(path: Path) -> Metadata:
    """The metadata in a `.csv` file (with a header) or a `.jsonl` file (one object per line).

    A column `id` or `path` identifies the image; a path is absolute or relative to the source, and
    uses `/` or `\\`. It does not matter how Unicode composes a name's letters. `label` becomes the
    record's label. A CSV column is numeric if all its cells are numbers (no leading zeros, at most
    18 digits), otherwise text. A date in `taken` becomes ISO 8601. An empty cell or a JSON null is
    None. Files are UTF-8. Raises `CbirError` with file and line for anything else: a row without a
    key, a duplicate key, a nested value, a field with a reserved name.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CbirError(f"metadata file {path} is neither .csv nor .jsonl", "rename or convert it")
    try:
        rows = list(reader(path))
        if not rows:
            raise CbirError(f"{path} has no rows", _ONE_KEY)
        return _joined(rows)
    except _LineError as error:
        raise CbirError(f"{path}:{error.line}: {error.problem}", error.hint) from error
    except OSError as error:
        raise CbirError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CbirError(f"{path} is not UTF-8 text", "save it as UTF-8") from error


def read_metadata_files(files: Path | str | Sequence[Path | str] | None) -> list[Metadata]:
    """The metadata of one file, of several, or of none; see `read_metadata`."""
    if isinstance(files, (str, Path)):
        files = [files]
    return [read_metadata(Path(file)) for file in files or ()]


def label_in(metadata: Sequence[Metadata], id: str, path: str, source: str) -> str | None:
    """The label of an image in the last of the `metadata` that has one; see `Metadata.lookup`."""
    rows = [file.lookup(id, path, source) for file in metadata]
    labels = [label for row in rows if (label := row.get(_LABEL)) is not None]
    return str(labels[-1]) if labels else None


def _joined(rows: Sequence[_Row]) -> Metadata:
    key = _key_of(rows[0])
    fields: dict[str, Fields] = {}
    names: dict[str, str] = {}
    for row in rows:
        if _key_of(row) != key:
            raise _LineError(row.line, f"this row has no '{key}', but the first has", _ONE_KEY)
        name = row.fields[key]
        if not isinstance(name, str) or not name or "\0" in name:
            raise _LineError(row.line, f"{key} {name!r} is not text", _ONE_KEY)
        place = name if key == "id" else _place(name)
        if place in names:
            raise _LineError(row.line, f"{key} '{name}' appears twice", "keep one row per image")
        names[place] = name
        fields[place] = {k: value for k, value in row.fields.items() if k not in _KEYS}
        if isinstance(taken := fields[place].get(TAKEN), str):
            fields[place][TAKEN] = iso_date(taken)
    return Metadata(key, fields, names, _alike(names, key))


def _alike(names: Mapping[str, str], key: Key) -> dict[str, str]:
    """Other spellings of the places: composed letters, and absolute paths without links."""
    alike = {_composed(place): place for place in names if not place.isascii()}
    folders: dict[str, str] = {}
    for place, name in names.items():
        if key == "path" and Path(name).is_absolute():
            folder, last = os.path.split(name)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            alike.setdefault(_composed(_place(f"{folders[folder]}/{last}")), place)
    return alike


def _spellings(path: str, source: str) -> Iterator[str]:
    yield path
    yield f"{_place(source)}/{path}"


def _composed(place: str) -> str:
    return place if place.isascii() else normalize("NFC", place)


def _key_of(row: _Row) -> Key:
    keys = [key for key in _KEYS if row.fields.get(key) is not None]
    if len(keys) != 1:
        found = "both 'id' and 'path'" if keys else "neither 'id' nor 'path'"
        raise _LineError(row.line, f"the row has {found}", _ONE_KEY)
    return keys[0]


def _place(name: str) -> str:
    return encode_path(PurePosixPath(name.replace("\\", "/")).as_posix())


def _csv_rows(path: Path) -> Iterator[_Row]:
    lines, cells = _csv_cells(path)
    if not cells:
        return
    header = cells[0]
    _check_header(lines[0], header)
    for line, row in zip(lines, cells, strict=True):
        if len(row) != len(header):
            raise _LineError(line, f"{len(header)} cells expected, found {len(row)}")
    columns = [
        column if name in (*_KEYS, _LABEL, TAKEN) else _typed(column)
        for name, column in zip(header, zip(*cells[1:], strict=True), strict=False)
    ]
    for line, row_values in zip(lines[1:], zip(*columns, strict=True), strict=True):
        named = zip(header, row_values, strict=True)
        yield _Row(line, {name: value if value != "" else None for name, value in named})


def _csv_cells(path: Path) -> tuple[list[int], list[list[str]]]:
    """The non-blank rows and the line on which each starts; cells without outer spaces."""
    lines, cells = [], []
    require_regular(path)
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
            raise _LineError(line, f"not CSV: {error}") from error
    return lines, cells


def _check_header(line: int, header: Sequence[str]) -> None:
    if len({"id", "path"} & set(header)) != 1:
        listed = ", ".join(header)
        raise _LineError(line, f"one column 'id' or 'path' expected, found: {listed}", _ONE_KEY)
    for number, name in enumerate(header):
        if name in header[:number]:
            raise _LineError(line, f"column '{name}' appears twice")
        _check_name(line, name)


def _typed(column: Sequence[str]) -> Sequence[MetadataValue]:
    """The cells as integers, else as floats, else unchanged; empty ones stay."""
    numbers: dict[str, int | float] = {}
    for cell in filter(None, column):
        number = _number(cell)
        if number is None:
            return column
        numbers[cell] = number
    kind = float if any(isinstance(number, float) for number in numbers.values()) else int
    return [kind(numbers[cell]) if cell else "" for cell in column]


def _number(cell: str) -> int | float | None:
    """The number in `cell`; None for text that looks like one (007, or too many digits)."""
    number = as_number(cell)
    if number is None or not math.isfinite(number) or _LEADING_ZERO.match(cell):
        return None
    return None if isinstance(number, float) and cell.lstrip("+-").isdigit() else number


def _json_rows(path: Path) -> Iterator[_Row]:
    require_regular(path)
    with path.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if text.strip():
                yield _Row(line, dict(_json_fields(line, _json_object(line, text))))


def _json_object(line: int, text: str) -> list[tuple[str, Any]]:
    def refuse_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not valid JSON")

    try:
        # Pairs instead of a dict, so that duplicate names are noticed.
        found = json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse_constant)
        json.dumps(found, ensure_ascii=False).encode()  # refuses half a pair of surrogates
    except (ValueError, RecursionError) as error:
        raise _LineError(line, f"not JSON: {error}", "write one object per line") from error
    if not isinstance(found, _Pairs):
        raise _LineError(line, "not a JSON object", "write one object per line")
    return found


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, distinguishable from a JSON array."""


def _json_fields(line: int, pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            raise _LineError(line, f"'{name}' appears twice")
        seen.add(name)
        _check_name(line, name)
        if value is None:
            yield name, None
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _LineError(line, f"'{name}' is neither text nor a number", "use flat fields")
        if not isinstance(value, str) and not abs(value) <= _LARGEST_INTEGER:
            raise _LineError(line, f"'{name}' is too large a number", "write it as text")
        yield name, str(value) if name == _LABEL else value


def _check_name(line: int, name: str) -> None:
    if name in FIELDS and name not in (*_KEYS, _LABEL):
        raise _LineError(line, f"'{name}' is a reserved name", "rename the column")
    if not name or name != name.strip() or _OPERATORS.search(name):
        raise _LineError(
            line, f"'{name}' is not a valid column name", "avoid outer spaces and =!<>"
        )
