"""Images that a source reaches through a link into another source, to which their records belong.

A link may come to lead into another source after its images were indexed: then they have records
of its own source, which have to go. `elsewhere`: id of such a record -> its id in the other source.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cbir.images.folders import FolderSource
from cbir.images.items import ImageSource
from cbir.ingest.details import handed_over
from cbir.ingest.moves import source_of
from cbir.ingest.run_state import RunState
from cbir.wording import listed

log = logging.getLogger(__name__)


def find_elsewhere(run: RunState, source: ImageSource, name: str) -> dict[str, str]:
    """The records of images that are, or may be, found in another source from now on.

    Not what is neither there nor known there: its drive may not be mounted. `name`: that of
    `source`, which has been read.
    """
    found: dict[str, str] = {}
    if not isinstance(source, FolderSource) or not source.elsewhere:
        return found
    for record_id in run.stamps(name):
        key = record_id[len(name) + 1 :]
        other = source.id_elsewhere(key)
        if other and (other in run.stamps(source_of(other)) or Path(source.path_of(key)).exists()):
            found[record_id] = other
    return found


def is_awaited(run: RunState, other: str) -> bool:
    """Whether the image `other` is found in its source only when that is indexed next."""
    if source_of(other) in run.whole:
        return False
    return other not in run.stamps(source_of(other)) and other not in run.buried


def hand_over(run: RunState, name: str, elsewhere: Mapping[str, str]) -> None:
    """Give what metadata files gave images of the source `name` to the records in other sources."""
    stamps = run.stamps(name)
    given = {i: other for i, other in elsewhere.items() if stamps[i].given}
    now = {source: run.index.stamps(source) for source in set(map(source_of, given.values()))}
    details, lost = {}, []
    for record_id, other in given.items():
        stamp = now[source_of(other)].get(other)
        detail, whole = handed_over(stamps[record_id], stamp) if stamp else (None, False)
        if stamp and detail:
            details[other] = detail
            # The scan of the other source may yet write this record.
            run.stamps(source_of(other))[other] = replace(stamp, **detail._asdict())
        if not whole:
            lost.append(record_id)
    if details:
        run.index.set_details(details)
    if lost:
        log.warning(
            "source %s: metadata that files gave was dropped for %s, because the source that a "
            "link leads to has no record of the same file, or has other values",
            name,
            listed(lost),
        )
