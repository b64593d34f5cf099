"""Removes images from an index for a person, so that later runs keep them out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import translate

from cbir.errors import QueryError
from cbir.index.base import Index, Tombstone
from cbir.index.filters import spellings
from cbir.index.open import open_index


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
        passing = dict.fromkeys(opened.ids(where))
        known = dict.fromkeys(opened.ids()) if where else passing
        matches = {name: _matching(name, known) for name in names}
        named = {i for found in matches.values() for i in found} if names else known
        chosen = [i for i in passing if i in named]
        if chosen:
            opened.bury(_tombstones(opened, chosen))
            opened.refresh()
    return RemoveReport(chosen, [name for name, found in matches.items() if not found])


def is_pattern(name: str) -> bool:
    """Whether a name may match several ids."""
    return any(sign in name for sign in "*?[")


def _matching(name: str, ids: Mapping[str, None]) -> list[str]:
    """The id `name`, or if there is none, the ids that it matches as a pattern."""
    forms = spellings(name)
    if exact := [form for form in forms if form in ids]:
        return exact
    if not is_pattern(name):
        return []
    return list(filter(re.compile("|".join(map(translate, forms))).match, ids))


def _tombstones(index: Index, ids: Sequence[str]) -> list[Tombstone]:
    now = int(time.time())
    return [
        Tombstone(
            *(record.id, record.source, record.location, record.content_hash),
            *(record.file_size, record.mtime_ns, record.stamp, now),
        )
        for record in index.records(ids)
    ]
