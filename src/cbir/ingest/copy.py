"""Copies an index into another, of any engine, without describing its images again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol, TypeVar

import numpy as np

from cbir.descriptors.models import descriptor_of, files_of, keep_model_of
from cbir.errors import CbirError, IndexStateError, QueryError, RecordsRefusedError
from cbir.images.ids import make_id
from cbir.index.base import (
    SCORE_TOLERANCE,
    Entry,
    Index,
    SourceRun,
    Stamp,
    Tombstone,
    difference,
)
from cbir.index.confirmed import confirm_as, confirmed
from cbir.index.open import create_index, open_index, same_place
from cbir.types import LABEL, Failure, MetadataValue, ModelFile, OnDone
from cbir.wording import counted

AT_ONCE = 1000
COMPARED_QUERIES = 50
COMPARED_HITS = 10
SAMPLE_SEED = 0

_Value = TypeVar("_Value")
Conflicts = Literal["refuse", "overwrite", "keep"]
"""What to do if both indexes have different values; see `copy_index`."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did.

    `records`: in the target at the end; `copied`: written by this copy; `unchanged`: there before.
    `conflicts`: values that differed. `compared`: queries with the same answers in both indexes;
    `exact`: whether exact search gave them (otherwise only vectors were compared).
    """

    records: int
    copied: int
    unchanged: int
    conflicts: int
    compared: int
    exact: bool
    seconds: float


def copy_index(
    source: str,
    target: str,
    *,
    conflicts: Conflicts = "refuse",
    fast_load: bool = False,
    on_done: OnDone = lambda _d, _t: None,
) -> CopyReport:
    """Copy the index at `source` to `target`, which is created if it does not exist.

    Records that the target already has are not copied again, so an interrupted copy resumes.
    Labels, metadata and failures are merged: an empty value never replaces one. A conflict is a
    label, a metadata field or a source's location for which the two indexes have different values:
    "overwrite" takes the source's value, "keep" the target's, and "refuse" raises `CbirError`
    before anything is written.

    At the end both indexes must have the same number of records and give the same results for a
    sample of the source's vectors. Raises `CbirError` if they do not, and if the target holds
    other records or another spec. `fast_load`: see `index.open.create_index`.
    """
    started = time.perf_counter()
    if same_place(source, target):
        raise CbirError(f"{target} is the index to copy", "choose a new place")
    with closing(open_index(source)) as old:
        files = _model_of(old)
        with closing(create_index(target, old.spec, files, fast_load=fast_load)) as new:
            copy = Copying(old, new, conflicts)
            keep_model_of(new, files)
            copy.write(on_done)
            confirm_as(new, confirmed(old))
            new.refresh()
            compared, exact = _compare(old, new)
            count = new.count()
    return CopyReport(
        records=count,
        copied=copy.written,
        unchanged=len(copy.ids) - len(copy.wanted),
        conflicts=copy.merging.conflicts,
        compared=compared,
        exact=exact,
        seconds=time.perf_counter() - started,
    )


def _model_of(index: Index) -> Mapping[str, ModelFile]:
    """The files of the index's model, from the index or from the model store."""
    kept = index.model_files()
    if not kept:
        # A descriptor that is not a model has no files; one that is not installed has none to copy.
        with suppress(CbirError):
            return files_of(descriptor_of(index.spec, {}))
    return kept


class Origin(Protocol):
    """What `Copying` copies: an index, or several as one. See `index.base.Index`."""

    url: str

    def ids(self) -> Iterator[str]: ...

    def sources(self) -> dict[str, str]: ...

    def stamps(self, source: str) -> dict[str, Stamp]: ...

    def entries(self, after: str = "") -> Iterator[Entry]: ...

    def failures(self) -> list[Failure]: ...

    def runs(self) -> dict[str, SourceRun]: ...

    def tombstones(self) -> dict[str, Tombstone]: ...


class Merging:
    """Merges the values of two indexes; an empty value never replaces one.

    If both have different values, the first index's counts, or with `keep` the second's.
    `conflicts` counts these values, and `example` shows the first.
    """

    def __init__(self, keep: bool = False) -> None:
        self._keep = keep
        self.conflicts = 0
        self.example = ""

    def stamp(self, record_id: str, mine: Stamp, theirs: Stamp) -> Stamp:
        """The stamp of the first index with the label and metadata of both.

        A value that either index says was given stays so.
        """
        label = theirs.label
        if mine.label is not None:
            label = self.value(f"label of '{record_id}'", mine.label, label)
        metadata = {
            name: self.value(f"{name} of '{record_id}'", value, theirs.metadata.get(name))
            for name, value in mine.metadata.items()
        }
        merged = replace(mine, label=label, metadata={**theirs.metadata, **metadata})
        given = {
            name
            for one in (mine, theirs)
            for name in one.given
            if _fact(one, name) == _fact(merged, name)
        }
        return replace(merged, given=frozenset(given))

    def uri(self, name: str, mine: str, theirs: str | None) -> str:
        """The location of the source `name`."""
        return self.value(f"location of source '{name}'", mine, theirs)

    def value(self, name: str, mine: _Value, theirs: _Value | None) -> _Value:
        """The first index's value, or the second's if it is to be kept."""
        if theirs is None or mine == theirs:
            return mine
        self.example = self.example or f"{name}: {mine!r} and {theirs!r}"
        self.conflicts += 1
        return theirs if self._keep else mine


def _fact(stamp: Stamp, name: str) -> MetadataValue | None:
    return stamp.label if name == LABEL else stamp.metadata.get(name)


class Copying:
    """A copy from `old` to `new`: planned first, then written.

    `ids`: those of `old`. `wanted`: the ids to write, each with its merged stamp if `new` has a
    record of that id. `written`: how many records were written so far.
    """

    def __init__(self, old: Origin, new: Index, conflicts: Conflicts) -> None:
        self._old, self._new = old, new
        self.merging = Merging(keep=conflicts == "keep")
        self.written = 0
        self.ids = list(old.ids())
        self._require_no_others()
        self._sources = self._merged_sources()
        self.wanted = self._merged_records()
        if self.merging.conflicts and conflicts == "refuse":
            raise CbirError(
                f"{old.url} and {new.url} disagree on {counted(self.merging.conflicts, 'value')}, "
                f"for example the {self.merging.example}",
                f"--overwrite takes the values of {old.url}, --keep those of {new.url}",
            )

    def _require_no_others(self) -> None:
        others = sorted(set(self._new.ids()).difference(self.ids))
        if others:
            raise IndexStateError(
                f"{self._new.url} holds {counted(len(others), 'record')} that {self._old.url} "
                f"lacks, for example '{others[0]}'",
                "choose a new place, or remove them: cbir remove",
            )

    def _merged_sources(self) -> dict[str, str]:
        """Names and locations of the sources."""
        there = self._new.sources()
        return {
            name: self.merging.uri(name, uri, there.get(name))
            for name, uri in self._old.sources().items()
        }

    def _merged_records(self) -> dict[str, Stamp | None]:
        wanted: dict[str, Stamp | None] = dict.fromkeys(self.ids)
        for name in self._sources:
            there = self._new.stamps(name)
            for record_id, stamp in self._old.stamps(name).items():
                if record_id in there:
                    wanted[record_id] = self.merging.stamp(record_id, stamp, there[record_id])
                    if wanted[record_id] == there[record_id]:
                        del wanted[record_id]
        return wanted

    def write(self, on_done: OnDone) -> None:
        """Write the wanted records, sources, failures and tombstones to the new index."""
        self._write_sources()
        self._write_records(on_done)
        self._write_failures()
        self._write_tombstones()

    def _write_sources(self) -> None:
        there = self._new.sources()
        for name, uri in self._sources.items():
            if name in there:
                if there[name] != uri:
                    self._new.move_source(name, uri)
            elif self._new.register_source(name, uri) != name:
                raise IndexStateError(
                    f"{self._new.url} has {uri} under another name than '{name}'",
                    "copy to a new place",
                )
        known = self._new.runs()
        for name, run in self._old.runs().items():
            if name in self._sources and run.at > (known[name].at if name in known else 0):
                self._new.set_run(name, run)

    def _write_records(self, on_done: OnDone) -> None:
        refused: dict[str, str] = {}
        done = len(self.ids) - len(self.wanted)
        on_done(done, len(self.ids))
        entries = self._entries()
        while batch := list(islice(entries, AT_ONCE)):
            try:
                self._new.add(batch)
            except RecordsRefusedError as error:
                refused.update(error.reasons)
            done += len(batch)
            self.written += len(batch)
            on_done(done, len(self.ids))
        if refused:
            raise RecordsRefusedError(refused)

    def _entries(self) -> Iterator[Entry]:
        """The wanted entries in byte order of their ids."""
        first = next((number for number, i in enumerate(self.ids) if i in self.wanted), None)
        if first is None:
            return
        for entry in self._old.entries(after=self.ids[first - 1] if first else ""):
            record = entry.record
            if record.id in self.wanted:
                merged = self.wanted[record.id]
                if merged:
                    record = replace(
                        record, label=merged.label, metadata=merged.metadata, given=merged.given
                    )
                yield replace(entry, record=record)

    def _write_failures(self) -> None:
        """Add the old index's failures; keep the new one's unless the image now has a record."""
        indexed = set(self.ids)
        stale = [f for f in self._new.failures() if make_id(f.source, f.location) in indexed]
        failures = [f for f in self._new.failures() if f not in stale] + self._old.failures()
        for name in self._sources:
            kept = {failure.location: failure for failure in failures if failure.source == name}
            self._new.set_failures(name, list(kept.values()))

    def _write_tombstones(self) -> None:
        """Add the old index's tombstones, except those of images that have a record."""
        indexed = set(self.ids)
        self._new.bury([t for i, t in self._old.tombstones().items() if i not in indexed])


def _compare(old: Index, new: Index) -> tuple[int, bool]:
    """Check that both are equal; returns the number of queries compared, and whether by search."""
    counts = old.count(), new.count()
    if counts[0] != counts[1]:
        raise _unequal(old, new, f"{counts[0]} and {counts[1]} records")
    ids = list(old.ids())
    draw = np.random.default_rng(SAMPLE_SEED)
    sample = [ids[n] for n in draw.permutation(len(ids))[:COMPARED_QUERIES]]
    if not sample:
        return 0, True
    queries = np.stack([old.vectors(i)[0] for i in sample])
    try:
        answers = [index.search(queries, COMPARED_HITS, exact=True) for index in (old, new)]
    except QueryError:  # a server without scripts whose vectors are not `flat`
        for record_id in sample:
            gap = np.abs(old.vectors(record_id) - new.vectors(record_id)).max()
            if gap > SCORE_TOLERANCE:
                raise _unequal(old, new, f"vectors of '{record_id}'") from None
        return len(sample), False
    for record_id, mine, theirs in zip(sample, *answers, strict=True):
        if found := difference(mine, theirs):
            raise _unequal(old, new, f"answers to '{record_id}': {found}")
    return len(sample), True


def _unequal(old: Index, new: Index, what: str) -> IndexStateError:
    return IndexStateError(
        f"{new.url} differs from {old.url}: {what}",
        "if another process changed one of them in the meantime, run the same command again",
    )
