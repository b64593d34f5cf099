"""Which records the conditions of a query let through, as SQL over the truth."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.index.filters import FIELDS, TEXT_FIELDS, Condition

_Value: TypeAlias = str | int | float
_Clause: TypeAlias = tuple[str, list[_Value]]


def matching_keys(
    connection: sqlite3.Connection, conditions: Sequence[Condition]
) -> NDArray[np.int64]:
    """Keys of the records that every condition holds for, ascending."""
    clauses = [_clause(condition) for condition in conditions]
    query = "SELECT key FROM records WHERE " + " AND ".join(sql for sql, _ in clauses)
    values = [value for _, given in clauses for value in given]
    rows = connection.execute(query + " ORDER BY key", values).fetchall()
    return np.array(rows, dtype=np.int64).reshape(-1)


def _clause(condition: Condition) -> _Clause:
    if condition.field not in FIELDS:
        sql, values = _compared("value", condition, mixed=True)
        query = f"key IN (SELECT record FROM metadata WHERE name = ? AND {sql})"
        return query, [condition.field, *values]
    column = "location" if condition.field == "path" else condition.field
    return _compared(column, condition, mixed=False)


def _compared(column: str, condition: Condition, mixed: bool) -> _Clause:
    """`column OP value`. A `mixed` column holds numbers and text; SQL never lets NULL through."""
    texts: list[_Value] = list(condition.values)
    numbers: list[_Value] = [number for number in condition.numbers() if number is not None]
    if condition.operator in ("=", "!="):
        values = texts + numbers if mixed else texts if _is_text(condition.field) else numbers
        negated = "NOT " if condition.operator == "!=" else ""
        return f"{column} {negated}IN ({', '.join('?' * len(values))})", values
    if not mixed:
        return f"{column} {condition.operator} ?", texts if _is_text(condition.field) else numbers
    as_text = f"typeof({column}) = 'text' AND {column} {condition.operator} ?"
    if not numbers:
        return f"({as_text})", texts
    as_number = f"typeof({column}) != 'text' AND {column} {condition.operator} ?"
    return f"(({as_text}) OR ({as_number}))", texts + numbers


def _is_text(field: str) -> bool:
    return field in TEXT_FIELDS
