"""Plans the renaming of records one by one, so that none replaces a record still to be renamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def in_groups(renamed: Mapping[str, str]) -> Iterator[list[str]]:
    """The old ids of `renamed` (old id -> new id), in groups to rename one after another.

    The new ids of a group belong to no record of a later group. A group has several ids only if
    they swap places.
    """
    waiting = dict.fromkeys(renamed)
    while waiting:
        chain = [next(iter(waiting))]
        del waiting[chain[0]]
        while (target := renamed[chain[-1]]) in waiting:
            del waiting[target]
            chain.append(target)
        if target == chain[0]:
            yield chain
        else:  # the last one of a chain has a free place
            yield from ([old] for old in reversed(chain))
