"""The conditions of a filter as SQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.index.filters import FIELDS, TEXT_FIELDS, Condition
from cbir.types import MetadataValue

_MATCHES = "cbir_matches"
_Clause: TypeAlias = tuple[str, list[MetadataValue]]


def matching_keys(
    connection: sqlite3.Connection, conditions: Sequence[Condition]
) -> NDArray[np.int64]:
    """The keys of the records that meet every condition, ascending."""
    rows = matching(connection, "key", conditions).fetchall()
    return np.array(rows, dtype=np.int64).reshape(-1)


def matching(
    connection: sqlite3.Connection, column: str, conditions: Sequence[Condition]
) -> sqlite3.Cursor:
    """Selects a column of the records that meet every condition, ascending."""
    if any(condition.pattern for condition in conditions):
        connection.create_function(_MATCHES, 2, _matches, deterministic=True)
    clauses = [_clause(condition) for condition in conditions]
    holds = " AND ".join(sql for sql, _ in clauses) or "true"
    values = [value for _, given in clauses for value in given]
    query = f"SELECT {column} FROM records WHERE {holds} ORDER BY {column}"
    return connection.execute(query, values)


def _clause(condition: Condition) -> _Clause:
    if condition.field in FIELDS:
        return _compared(condition.field, condition, mixed=False)
    sql, values = _compared("value", condition, mixed=True)
    return f"key IN (SELECT record FROM metadata WHERE name = ? AND {sql})", [
        condition.field,
        *values,
    ]


def _compared(column: str, condition: Condition, mixed: bool) -> _Clause:
    """`column OP value`. A `mixed` column holds numbers and text; NULL never matches."""
    texts: list[MetadataValue] = list(condition.texts)
    numbers: list[MetadataValue] = list(condition.numbers())
    plain = texts if condition.field in TEXT_FIELDS else numbers
    if condition.operator in ("=", "!="):
        sql, values = _among(column, condition, texts + numbers if mixed else plain)
        return f"{'NOT ' if condition.operator == '!=' else ''}({sql})", values
    if not mixed:
        return f"{column} {condition.operator} ?", plain
    as_text = f"typeof({column}) = 'text' AND {column} {condition.operator} ?"
    if not numbers:
        return f"({as_text})", texts
    as_number = f"typeof({column}) != 'text' AND {column} {condition.operator} ?"
    return f"(({as_text}) OR ({as_number}))", texts + numbers


def _among(column: str, condition: Condition, values: list[MetadataValue]) -> _Clause:
    """Whether `column` is one of `values`, or a text in the condition's spans or pattern."""
    if condition.pattern:
        return f"{_MATCHES}({column}, ?)", [condition.pattern]
    sql = [f"{column} IN ({', '.join('?' * len(values))})"]
    sql += [f"({column} >= ? AND {column} < ?)" for _ in condition.spans]
    while len(sql) > 1:  # SQLite limits the depth, so the clauses become a tree
        sql = [f"({' OR '.join(sql[at : at + 2])})" for at in range(0, len(sql), 2)]
    return sql[0], [*values, *(text for span in condition.spans for text in span)]


def _matches(value: MetadataValue | None, pattern: str) -> bool | None:
    """Whether `value` is text that `pattern` matches as a whole; NULL for NULL."""
    if value is None:
        return None
    return isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None
