"""One indexing run: reads all sources, lets records follow moved files, describes the rest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from cbir.errors import CbirError
from cbir.images.items import ImageSource
from cbir.images.sources import is_away
from cbir.index.base import Index
from cbir.ingest.moves import Whereabouts, plan_moves, source_of, unbelievable
from cbir.ingest.run_state import RunState
from cbir.ingest.source_scan import Prune, SourceScan, is_in
from cbir.types import AddReport


class PruneRefusedError(CbirError):
    """Pruning was refused for sources that lost more than half of their indexed images.

    `found`: by source, the number of images found and the number indexed. `report`: what the run
    did; it removed no record of these sources.
    """

    def __init__(self, found: Mapping[str, tuple[int, int]], report: AddReport) -> None:
        sources = [f"{name} ({n} of {of} indexed images found)" for name, (n, of) in found.items()]
        super().__init__(
            f"refused to prune {', '.join(sources)}",
            "check that the folder or drive is available; --force-prune prunes anyway",
        )
        self.report = report


def add_sources(run: RunState, sources: Sequence[ImageSource], prune: Prune) -> None:
    """Add every image of `sources`; after Ctrl-C the report says that it was interrupted.

    All sources are read first: new images are described, and images whose content the index
    knows are set aside, as are files that changed, because the vectors of what they showed
    before may be wanted elsewhere. Then records follow their files, and the rest is described.
    """
    began, broken = int(time.time()), None
    scans: list[SourceScan] = []
    try:
        # A folder is counted by a walk of its own, so not before there is anything to read.
        run.total, run.uncounted = _indexed(run, sources), sources
        for source in sources:
            try:
                scan = SourceScan(run, source, began)
                scan.read()
            except CbirError as error:  # the sources before it are completed
                broken = error
                break
            scans.append(scan)
        _follow(run, scans)
        for scan in scans:
            scan.finish(prune)
        if broken is None:
            run.total = run.done
        run.tell()
    except KeyboardInterrupt:
        run.report.interrupted = True
    if broken is not None:
        raise broken


def _indexed(run: RunState, sources: Sequence[ImageSource]) -> int:
    """How many images of `sources` the index knows: as many as there are, if nothing changed."""
    names = {uri: name for name, uri in run.index.sources().items()}
    return sum(
        is_in(source, name, i)
        for source in sources
        if (name := names.get(source.uri))
        for i in [*run.stamps(name), *run.buried]
    )


def _follow(run: RunState, scans: Sequence[SourceScan]) -> None:
    """Decide what the images of known content are: moved, removed before, or copies."""
    owners = {record_id: scan for scan in scans for record_id in scan.known}
    if not owners:
        return
    waiting = {i: scan.known[i][1] for i, scan in owners.items()}
    replaced = {record_id for scan in scans for record_id in scan.described}
    contents = {
        content: [i for i in run.contents.get(content, ()) if i not in replaced]
        for content in set(waiting.values())
    }
    where = Whereabouts(run.index, scans, run.buried)
    plan = plan_moves(waiting, contents, where.is_vacated)
    if away := unbelievable(plan.moves, where.gone(plan.moves)):
        plan = plan_moves(waiting, contents, lambda i: where.is_vacated(i, unless_gone_from=away))
    removed = {
        new
        for new in [*plan.copies, *plan.rest]
        if any(where.is_vacated(i) for i in run.buried_contents.get(waiting[new], ()))
    }
    if plan.moves:
        _move(run, plan.moves, owners, scans)
    if removed:
        run.index.bury([owners[new].tombstone(new) for new in sorted(removed)])
        run.report.kept_out += len(removed)
    for new, same in plan.copies.items():
        if new not in removed:
            owners[new].copy(new, same)
            run.report.copies += 1
    for new in plan.rest:
        if new not in removed:
            owners[new].put_off(new)
    for scan in scans:
        scan.commit()
    _drop_empty(run.index, {source_of(old) for old in plan.moves} - {scan.name for scan in scans})


def _drop_empty(index: Index, names: Iterable[str]) -> None:
    """Drop the sources that are gone and whose images have all moved elsewhere."""
    uris, counts = index.sources(), index.source_counts()
    for name in names:
        if name in uris and name not in counts and is_away(uris[name]):
            index.remove_source(name)


def _move(
    run: RunState,
    moves: Mapping[str, str],
    owners: Mapping[str, SourceScan],
    scans: Sequence[SourceScan],
) -> None:
    records = dict(zip(moves, run.index.records(list(moves)), strict=True))
    run.index.rename(
        {old: owners[new].record(new, records[old], records[old]) for old, new in moves.items()}
    )
    for scan in scans:
        scan.forget(moves)
    run.done += len(moves)
    run.report.moved += len(moves)
