"""Copies an index into another, of any engine, without describing a picture again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from cbir.descriptors.models import descriptor_of, files_of, keep_model_of
from cbir.errors import CbirError, IndexStateError, QueryError, RecordsRefusedError
from cbir.images.ids import make_id
from cbir.index.base import SCORE_TOLERANCE, Entry, Index, Stamp
from cbir.index.compare import difference
from cbir.index.open import create_index, open_index
from cbir.types import OnDone
from cbir.wording import counted

AT_ONCE = 1000
COMPARED_QUERIES = 50
COMPARED_HITS = 10
SAMPLE_SEED = 0

_Value = TypeVar("_Value")
Conflicts = Literal["refuse", "overwrite", "keep"]
"""What happens where both indexes have a value and they differ; see `copy_index`."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did.

    `records`: in the target at the end; `copied`: written by this copy; `unchanged`: there before.
    `conflicts`: values that both indexes had, and that differed. `compared`: queries that both
    answered alike; `exact`: whether by exact search (otherwise only their vectors were compared).
    """

    records: int
    copied: int
    unchanged: int
    conflicts: int
    compared: int
    exact: bool
    seconds: float


@dataclass
class _Merging:
    """Chooses between the values of two indexes and counts their conflicts."""

    keep: bool
    conflicts: int = 0
    first: str = ""

    def value(self, name: str, mine: _Value, theirs: _Value | None) -> _Value:
        """The source's value (`mine`), or the target's (`theirs`) if that is to be kept."""
        if theirs is None or mine == theirs:
            return mine
        self.first = self.first or f"{name}: {mine!r} and {theirs!r}"
        self.conflicts += 1
        return theirs if self.keep else mine

    def stamp(self, record_id: str, mine: Stamp, theirs: Stamp) -> Stamp:
        """The source's stamp with the label and metadata of both."""
        label = theirs.label
        if mine.label is not None:
            label = self.value(f"label of '{record_id}'", mine.label, label)
        metadata = {
            name: self.value(f"{name} of '{record_id}'", value, theirs.metadata.get(name))
            for name, value in mine.metadata.items()
        }
        return replace(mine, label=label, metadata={**theirs.metadata, **metadata})


def copy_index(
    source: str,
    target: str,
    *,
    conflicts: Conflicts = "refuse",
    fast_load: bool = False,
    on_done: OnDone = lambda _d, _t: None,
) -> CopyReport:
    """Copy the index at `source` to `target`, which is created if it does not exist.

    Records that the target has are not copied again, so that an interrupted copy resumes. Labels,
    metadata and failures merge: a value is never replaced by nothing. A conflict is a label, a
    metadata field or the location of a source for which both indexes have values that differ:
    "overwrite" takes the source's value, "keep" the target's, and "refuse" raises `CbirError`
    before anything is written.

    At the end both must hold as many records and answer a sample of the source's own vectors
    alike. Raises `CbirError` if they do not, and if the target holds other records or another
    spec. `fast_load`: see `index.open.create_index`.
    """
    started = time.perf_counter()
    with closing(open_index(source)) as old:
        files = _model_of(old)
        with closing(create_index(target, old.spec, files, fast_load=fast_load)) as new:
            ids = list(old.ids())
            _require_no_others(old, new, ids)
            merging = _Merging(keep=conflicts == "keep")
            sources = _merged_sources(old, new, merging)
            wanted = _wanted(old, new, ids, merging)
            if merging.conflicts and conflicts == "refuse":
                raise _in_conflict(old, new, merging)
            keep_model_of(new, files)
            _copy_sources(new, sources)
            _copy_records(old, new, ids, wanted, on_done)
            _copy_failures(old, new, ids)
            new.refresh()
            compared, exact = _compare(old, new)
            count = new.count()
    return CopyReport(
        records=count,
        copied=len(wanted),
        unchanged=len(ids) - len(wanted),
        conflicts=merging.conflicts,
        compared=compared,
        exact=exact,
        seconds=time.perf_counter() - started,
    )


def _model_of(index: Index) -> Mapping[str, bytes]:
    """The files of the index's model, from the index or from the model store."""
    kept = index.model_files()
    if not kept:
        # A descriptor that is no model has no files, and one that is not at hand none to copy.
        with suppress(CbirError):
            return files_of(descriptor_of(index.spec, {}))
    return kept


def _require_no_others(old: Index, new: Index, ids: Sequence[str]) -> None:
    others = sorted(set(new.ids()).difference(ids))
    if others:
        raise IndexStateError(
            f"{new.url} holds {len(others)} records that {old.url} has not, '{others[0]}' for one",
            "copy into a new place, or remove them: cbir remove",
        )


def _in_conflict(old: Index, new: Index, merging: _Merging) -> CbirError:
    return CbirError(
        f"{old.url} and {new.url} disagree on {counted(merging.conflicts, 'value')}, "
        f"for example the {merging.first}",
        f"--overwrite takes the values of {old.url}, --keep those of {new.url}",
    )


def _merged_sources(old: Index, new: Index, merging: _Merging) -> dict[str, str]:
    """Where each source of `old` lies, according to both indexes."""
    there = new.sources()
    return {
        name: merging.value(f"location of source '{name}'", uri, there.get(name))
        for name, uri in old.sources().items()
    }


def _wanted(
    old: Index, new: Index, ids: Sequence[str], merging: _Merging
) -> dict[str, Stamp | None]:
    """The ids to write, each with the merged stamp if the target has a record of that id."""
    wanted: dict[str, Stamp | None] = dict.fromkeys(ids)
    for name in old.sources():
        there = new.stamps(name)
        for record_id, stamp in old.stamps(name).items():
            if record_id in there:
                wanted[record_id] = merged = merging.stamp(record_id, stamp, there[record_id])
                if merged == there[record_id]:
                    del wanted[record_id]
    return wanted


def _copy_sources(new: Index, sources: Mapping[str, str]) -> None:
    there = new.sources()
    for name, uri in sources.items():
        if name in there:
            if there[name] != uri:
                new.move_source(name, uri)
        elif new.register_source(name, uri) != name:
            raise IndexStateError(
                f"{new.url} knows {uri} by another name than '{name}'", "copy into a new place"
            )


def _copy_failures(old: Index, new: Index, ids: Sequence[str]) -> None:
    """Add the failures of `old`; those of the target stay unless the image is a record now."""
    indexed = set(ids)
    for name in old.sources():
        failures = {
            failure.location: failure
            for index in (new, old)
            for failure in index.failures()
            if failure.source == name and make_id(name, failure.location) not in indexed
        }
        new.set_failures(name, list(failures.values()))


def _copy_records(
    old: Index,
    new: Index,
    ids: Sequence[str],
    wanted: Mapping[str, Stamp | None],
    on_done: OnDone,
) -> None:
    """Copy the records of the ids `wanted`, out of all `ids` in byte order."""
    refused: dict[str, str] = {}
    done = len(ids) - len(wanted)
    on_done(done, len(ids))
    for entries in _batches(_entries(old, ids, wanted)):
        try:
            new.add(entries)
        except RecordsRefusedError as error:
            refused.update(error.reasons)
        done += len(entries)
        on_done(done, len(ids))
    if refused:
        raise RecordsRefusedError(refused)


def _entries(old: Index, ids: Sequence[str], wanted: Mapping[str, Stamp | None]) -> Iterator[Entry]:
    first = next((number for number, i in enumerate(ids) if i in wanted), None)
    if first is None:
        return
    for entry in old.entries(after=ids[first - 1] if first else ""):
        record = entry.record
        if record.id in wanted:
            merged = wanted[record.id]
            if merged:
                record = replace(record, label=merged.label, metadata=merged.metadata)
            yield replace(entry, record=record)


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _compare(old: Index, new: Index) -> tuple[int, bool]:
    """Check that both hold the same; how many queries were compared, and whether exactly."""
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
    except QueryError:  # a server without scripts, and vectors that are not `flat`
        for record_id in sample:
            gap = np.abs(old.vectors(record_id) - new.vectors(record_id)).max()
            if gap > SCORE_TOLERANCE:
                raise _unequal(old, new, f"vectors of '{record_id}'") from None
        return len(sample), False
    for record_id, mine, theirs in zip(sample, *answers, strict=True):
        if told := difference(mine, theirs):
            raise _unequal(old, new, f"searched with '{record_id}': {told}")
    return len(sample), True


def _unequal(old: Index, new: Index, what: str) -> IndexStateError:
    return IndexStateError(
        f"{new.url} is not the same as {old.url}: {what}",
        "was one of them written to meanwhile? Run the same command again",
    )
