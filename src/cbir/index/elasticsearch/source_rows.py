"""The rows of the document that registers sources: pairs of a name and where it lies."""

from __future__ import annotations

from cbir.errors import QueryError

Rows = list[list[str]]


def registered_name(rows: Rows, name: str, uri: str) -> str:
    """The name of the source at `uri`: the one it has, else `name`, `name-2`, ..."""
    for known, at in rows:
        if at == uri:
            return known
    taken = {known for known, _ in rows}
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def with_source(rows: Rows, name: str, uri: str) -> Rows:
    """The rows with the source at `uri` among them."""
    if any(at == uri for _, at in rows):
        return rows
    return [*rows, [registered_name(rows, name, uri), uri]]


def with_moved(rows: Rows, name: str, uri: str) -> Rows:
    """The rows with the source `name` at `uri`; raises `QueryError` if that cannot be."""
    if all(known != name for known, _ in rows):
        known = ", ".join(sorted(known for known, _ in rows)) or "none"
        raise QueryError(f"no source is called '{name}'", f"registered sources: {known}")
    other = next((known for known, at in rows if at == uri and known != name), None)
    if other is not None:
        raise QueryError(f"{uri} is registered as '{other}' already", f"index it without '{name}'")
    return [[known, uri if known == name else at] for known, at in rows]
