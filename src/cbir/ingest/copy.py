"""Copies an index into another, of any engine, without describing a picture again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

import numpy as np

from cbir.descriptors.models import descriptor_of, files_of
from cbir.errors import CbirError, IndexStateError, QueryError, RecordsRefusedError
from cbir.index.base import SCORE_TOLERANCE, Entry, Index
from cbir.index.compare import difference
from cbir.index.open import create_index, open_index
from cbir.ingest.indexing import keep_model_of
from cbir.types import OnDone

AT_ONCE = 1000
COMPARED_QUERIES = 50
COMPARED_HITS = 10
SAMPLE_SEED = 0


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did: records in the end, copied now, there before; queries that were compared.

    `exact` says whether both indexes answered them exactly; else the vectors were compared.
    """

    records: int
    copied: int
    unchanged: int
    compared: int
    exact: bool
    seconds: float


def copy_index(
    source: str, target: str, *, fast_load: bool = False, on_done: OnDone = lambda _d, _t: None
) -> CopyReport:
    """Copy the index at `source` to `target`, which is made if need be: all but failed pictures.

    What the target has already is not copied again, so that a copy that was broken off goes on. In
    the end the counts must agree, and the exact answers to a sample of its own vectors. Raises
    `CbirError` where they do not, and where the target holds other records or another spec.
    `fast_load`: see `index.open.create_index`.
    """
    started = time.perf_counter()
    with closing(open_index(source)) as old:
        files = _model_of(old)
        with closing(create_index(target, old.spec, files, fast_load=fast_load)) as new:
            keep_model_of(new, files)
            _copy_sources(old, new)
            ids = list(old.ids())
            _require_no_others(old, new, ids)
            wanted = _wanted(old, new, ids)
            copied = _copy_records(old, new, ids, wanted, on_done)
            for name in old.sources():
                new.set_failures(name, [f for f in old.failures() if f.source == name])
            new.refresh()
            compared, exact = _compare(old, new)
            count = new.count()
    seconds = time.perf_counter() - started
    return CopyReport(count, copied, len(ids) - len(wanted), compared, exact, seconds)


def _model_of(index: Index) -> Mapping[str, bytes]:
    """The files of the index's model, from the index or from the model store."""
    kept = index.model_files()
    if not kept:
        # A descriptor that is no model has no files, and one that is not at hand none to copy.
        with suppress(CbirError):
            return files_of(descriptor_of(index.spec, {}))
    return kept


def _copy_sources(old: Index, new: Index) -> None:
    there = new.sources()
    for name, uri in old.sources().items():
        if name in there:
            if there[name] != uri:
                new.move_source(name, uri)
        elif new.register_source(name, uri) != name:
            raise IndexStateError(
                f"{new.url} knows {uri} by another name than '{name}'", "copy into a new place"
            )


def _require_no_others(old: Index, new: Index, ids: Sequence[str]) -> None:
    others = sorted(set(new.ids()).difference(ids))
    if others:
        raise IndexStateError(
            f"{new.url} holds {len(others)} records that {old.url} has not, '{others[0]}' for one",
            "copy into a new place, or remove them: cbir remove",
        )


def _wanted(old: Index, new: Index, ids: Sequence[str]) -> set[str]:
    """The ids whose records the new index has not, or not as they are now."""
    wanted = set(ids)
    for name in old.sources():
        there = new.stamps(name)
        for record_id, stamp in old.stamps(name).items():
            if there.get(record_id) == stamp:
                wanted.discard(record_id)
    return wanted


def _copy_records(
    old: Index, new: Index, ids: Sequence[str], wanted: set[str], on_done: OnDone
) -> int:
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
    return len(wanted)


def _entries(old: Index, ids: Sequence[str], wanted: set[str]) -> Iterator[Entry]:
    first = next((number for number, i in enumerate(ids) if i in wanted), None)
    if first is not None:
        for entry in old.entries(after=ids[first - 1] if first else ""):
            if entry.record.id in wanted:
                yield entry


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
