"""Removes images from an index for a person, so that later runs keep them out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import translate

from cbir.errors import QueryError
from cbir.index.base import Index, Tombstone
from cbir.index.open import open_index

_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """`removed`: the ids that were removed, in byte order. `absent`: names that matched nothing."""

    removed: list[str]
    absent: list[str]


def remove_images(
    index: str | os.PathLike[str], names: Sequence[str] = (), *, where: Sequence[str] = ()
) -> RemoveReport:
    """Remove images from the index at `index`; their files stay, and later runs keep them out.

    `names`: ids, and patterns with `*`, `?` and `[...]` that match whole ids (`*` also matches
    "/"). `where`: filters (see `index.filters`) that the images must pass, too; without names, all
    that pass are removed. A later `index_images` adds them again with `again=True`, or if their
    content has changed. Raises `QueryError` if neither names nor filters are given.
    """
    if not names and not where:
        raise QueryError("nothing to remove is named", "give ids, patterns or --where filters")
    with closing(open_index(index, write=True)) as opened:
        ids = list(opened.ids(where))
        chosen = list(_named(ids, names)) if names else ids
        known = set(ids)
        absent = [
            name
            for name in dict.fromkeys(names)
            if name not in known and not any(map(_pattern(name).match, chosen))
        ]
        if chosen:
            opened.bury(_tombstones(opened, chosen))
            opened.refresh()
    return RemoveReport(chosen, absent)


def _named(ids: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Those of `ids` that a name is, or that a pattern matches."""
    exact = set(names)
    patterns = [_pattern(name) for name in names if _GLOB.search(name)]
    for record_id in ids:
        if record_id in exact or any(pattern.match(record_id) for pattern in patterns):
            yield record_id


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(translate(name) if _GLOB.search(name) else re.escape(name) + r"\Z")


def _tombstones(index: Index, ids: Sequence[str]) -> list[Tombstone]:
    now = int(time.time())
    return [
        Tombstone(
            *(record.id, record.source, record.location, record.content_hash),
            *(record.file_size, record.mtime_ns, record.stamp, now),
        )
        for record in index.records(ids)
    ]
