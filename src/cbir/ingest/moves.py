"""Matches images of known content with the records that have it: moved files and copies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from cbir.images.ids import encode_path, make_id
from cbir.images.sources import file_path, is_away
from cbir.index.base import Index, Tombstone


class Scan(Protocol):
    """What a run saw of a source, or of a part of it."""

    name: str

    def covers(self, record_id: str) -> bool:
        """Whether the source yields the image of this id, if it is there."""

    def is_there(self, record_id: str) -> bool:
        """Whether an image that the source covers is, or may be, where it was."""

    def is_replaced(self, record_id: str) -> bool:
        """Whether the file of an image shows something else now."""

    def absent(self) -> tuple[list[str], int]:
        """The ids of the known images that are gone, and how many there were."""


@dataclass
class Whereabouts:
    """Where the images of an index are now, in the sources of this run and outside of them."""

    index: Index
    scans: Sequence[Scan]
    buried: Mapping[str, Tombstone]

    def is_vacated(self, record_id: str, unless_gone_from: Container[str] = ()) -> bool:
        """Whether an image is no longer where it was.

        `unless_gone_from`: sources of which only images whose places have other content count.
        """
        covering = [scan for scan in self.scans if scan.covers(record_id)]
        if any(scan.is_replaced(record_id) for scan in covering):
            return True
        if source_of(record_id) in unless_gone_from:
            return False
        if covering:
            return not any(scan.is_there(record_id) for scan in covering)
        return self._is_gone(record_id)

    def gone(self, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """For the sources of `ids`: how many of their images are gone, and of how many.

        Not for a source that this run does not read but whose folder is there.
        """
        found = {}
        for name in {source_of(record_id) for record_id in ids}:
            counts = [scan.absent() for scan in self.scans if scan.name == name]
            if counts:
                found[name] = sum(len(gone) for gone, _ in counts), sum(n for _, n in counts)
            elif name not in self._uris or is_away(self._uris[name]):
                held = len(self.index.stamps(name))
                found[name] = held, held
        return found

    @cached_property
    def _uris(self) -> dict[str, str]:
        return self.index.sources()

    def _is_gone(self, record_id: str) -> bool:
        """Whether the file of an image of another source is gone."""
        uri = self._uris.get(source_of(record_id))
        if uri is None:
            return True
        known = self.buried.get(record_id) or self.index.records([record_id])[0]
        path = file_path(uri, known.location)
        if path is None:
            return is_away(uri)
        return not Path(path).exists() or self._is_taken_over(path, source_of(record_id))

    def _is_taken_over(self, path: str, source: str) -> bool:
        """Whether the file is in a linked folder, and is new in another source that has it."""
        folder, name = os.path.split(path)
        file = Path(os.path.realpath(folder), name)
        for scan, root in self._folders:
            if scan.name != source and file.is_relative_to(root):
                target = make_id(scan.name, encode_path(file.relative_to(root).as_posix()))
                if scan.covers(target) and scan.is_replaced(target):
                    return True
        return False

    @cached_property
    def _folders(self) -> list[tuple[Scan, str]]:
        """The scans of folders that are indexed as a whole, and where these are."""
        runs = self.index.runs()
        return [
            (scan, os.path.realpath(self._uris[scan.name]))
            for scan in self.scans
            if scan.name in runs and Path(self._uris[scan.name]).is_dir()
        ]


@dataclass
class Plan:
    """What becomes of images whose content the index knows.

    `moves`: old id -> new id. `copies`: new id -> an id whose record will have its content once the
    moves are done. `rest`: new ids whose content no record has any more.
    """

    moves: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def plan_moves(
    waiting: Mapping[str, str],
    contents: Mapping[str, Iterable[str]],
    is_vacated: Callable[[str], bool],
) -> Plan:
    """Match every new id in `waiting` (id -> content hash) with the records of its content.

    `contents`: content hash -> ids of records. `is_vacated(id)`: whether the image of a record is
    no longer where it was; such a record moves, to a file of the same name if there is one. Any
    other image of known content is a copy.
    """
    plan = Plan()
    by_content: dict[str, list[str]] = {}
    for record_id, content in waiting.items():
        by_content.setdefault(content, []).append(record_id)
    for content, new in by_content.items():
        holders = list(contents.get(content, ()))
        moves = _pairs([i for i in holders if is_vacated(i)], new)
        plan.moves.update(moves)
        places = [moves.get(i, i) for i in holders]
        for record_id in new:
            if record_id in moves.values():
                continue
            if places:
                plan.copies[record_id] = places[0]
            else:
                plan.rest.append(record_id)
    return plan


def unbelievable(moves: Iterable[str], gone: Mapping[str, tuple[int, int]]) -> set[str]:
    """The sources that are more likely away than emptied by moves.

    `moves`: ids that would move. `gone`: source -> how many of its images are gone, and of how
    many. A drive that is not mounted looks like a folder whose images all moved; so if most images
    of a source are gone, most of these must have turned up elsewhere.
    """
    found = Counter(source_of(record_id) for record_id in moves)
    return {
        source
        for source, (lost, held) in gone.items()
        if lost > held / 2 and found[source] < lost / 2
    }


def source_of(record_id: str) -> str:
    """The name of the source in an id."""
    return record_id.partition("/")[0]


def _pairs(old: list[str], new: list[str]) -> dict[str, str]:
    """Old id -> new id: first those with the same file name, then the others in order."""
    by_name: dict[str, list[str]] = {}
    for record_id in reversed(new):
        by_name.setdefault(_name(record_id), []).append(record_id)
    pairs: dict[str, str] = {}
    for record_id in old:
        if same := by_name.get(_name(record_id)):
            pairs[record_id] = same.pop()
    taken = set(pairs.values())
    others = (record_id for record_id in new if record_id not in taken)
    pairs.update(zip((i for i in old if i not in pairs), others, strict=False))
    return pairs


def _name(record_id: str) -> str:
    return record_id.rpartition("/")[2]
