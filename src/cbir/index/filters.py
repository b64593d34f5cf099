"""The filter grammar `FIELD OP VALUE`, shared by all engines.

Operators: `=`, `!=`, `<`, `<=`, `>`, `>=`. `FIELD=a,b` means any of, `FIELD!=a,b` none of; quote a
value that contains a comma with double quotes. A record without the field never matches. A number
in a record is compared as a number, any other value as text, by code points.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cbir.errors import QueryError
from cbir.wording import did_you_mean

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]

TEXT_FIELDS = ("label", "id", "source", "location", "path")
NUMBER_FIELDS = ("width", "height")
FLAG_FIELDS = ("missing",)
FIELDS = TEXT_FIELDS + NUMBER_FIELDS + FLAG_FIELDS

EXAMPLE = "write FIELD OP VALUE, such as label=cat, label=cat,dog or width>=640"

_GRAMMAR = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(!=|<=|>=|=|<|>)\s*(.*\S)\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FLAGS = {"true": "1", "yes": "1", "1": "1", "false": "0", "no": "0", "0": "0"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter. `values` has one entry, or several for `=` and `!=`."""

    field: str
    operator: Operator
    values: tuple[str, ...]

    def numbers(self) -> list[int | float | None]:
        """Each value as a number, or None."""
        return [as_number(value) for value in self.values]


def parse(where: Sequence[str], metadata_fields: Iterable[str] = ()) -> list[Condition]:
    """Parse the filters in `where`, which are combined with AND.

    `metadata_fields` are the index's metadata keys. Raises `QueryError` for bad syntax, an unknown
    field, or a numeric field compared with text.
    """
    known = [*FIELDS, *metadata_fields]
    return [_parse_one(text, known) for text in where]


def as_number(text: str) -> int | float | None:
    """`text` as a number, or None."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_one(text: str, known: Sequence[str]) -> Condition:
    match = _GRAMMAR.fullmatch(text)
    if match is None or match[3].startswith("="):
        raise QueryError(f"filter '{text}' cannot be read", EXAMPLE)
    field, operator, right = match[1], match[2], match[3]
    if field not in known:
        raise QueryError(
            f"filter '{text}': unknown field '{field}'", did_you_mean(field, sorted(known))
        )
    values = _values(text, right)
    if len(values) > 1 and operator not in ("=", "!="):
        raise QueryError(f"filter '{text}': {operator} takes one value", EXAMPLE)
    if field in FLAG_FIELDS:
        values = _flags(text, operator, values)
    if field in NUMBER_FIELDS and any(as_number(value) is None for value in values):
        raise QueryError(f"filter '{text}': {field} is a number", EXAMPLE)
    return Condition(field, operator, values)  # type: ignore[arg-type]  # the grammar says so


def _values(text: str, right: str) -> tuple[str, ...]:
    try:
        (row,) = csv.reader([right], skipinitialspace=True)
    except csv.Error as error:  # a line break outside quotes
        raise QueryError(f"filter '{text}' cannot be read: {error}", EXAMPLE) from None
    return tuple(value.strip() for value in row)


def _flags(text: str, operator: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if operator not in ("=", "!=") or any(value.lower() not in _FLAGS for value in values):
        raise QueryError(f"filter '{text}' cannot be read", "write missing=true or missing=false")
    return tuple(_FLAGS[value.lower()] for value in values)
