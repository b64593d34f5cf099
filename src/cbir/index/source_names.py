"""Names new image sources and checks that a source may move."""

from __future__ import annotations

from collections.abc import Mapping

from cbir.errors import QueryError


def source_name(sources: Mapping[str, str], name: str, uri: str) -> str:
    """The registered name of the source at `uri`, else the first free of `name`, `name-2`, ...

    `sources`: registered names and their URIs.
    """
    for known, at in sources.items():
        if at == uri:
            return known
    free, number = name, 1
    while free in sources:
        number += 1
        free = f"{name}-{number}"
    return free


def check_known(sources: Mapping[str, str], name: str) -> None:
    """Raise `QueryError` unless the source `name` is registered."""
    if name not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise QueryError(f"no source is called '{name}'", f"registered sources: {known}")


def check_move(sources: Mapping[str, str], name: str, uri: str) -> None:
    """Raise `QueryError` unless the source `name` is registered and no other one is at `uri`."""
    check_known(sources, name)
    for other, at in sources.items():
        if at == uri and other != name:
            raise QueryError(
                f"{uri} is registered as '{other}' already", f"index it without '{name}'"
            )
