"""Geometric verification: compares the first hits with the query by matching keypoints."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from cbir.errors import ImageError
from cbir.images.decode import load_pixels
from cbir.images.items import content_hash
from cbir.index.base import Index
from cbir.machine import usable_cores
from cbir.search.asking import Asking
from cbir.search.originals import Originals
from cbir.search.query import SearchOptions
from cbir.types import Hit, ImageRecord, OnDone

if TYPE_CHECKING:
    from cbir.descriptors.local.geometry import Keypoints, Verdict

LOOKED_AT = 200
"""How many first hits are compared; all k if k is larger."""

KEPT = 1000
"""Pictures whose keypoints stay in memory (at most about 70 KB each) for the next query."""


class Verify:
    """Re-ranks hits by how many keypoints agree with the query. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Keypoints] = OrderedDict()

    def needs(self, options: SearchOptions) -> int:
        return LOOKED_AT if options.verify else 0

    def apply(self, hits: list[Hit], asking: Asking) -> list[Hit]:
        """`hits` ordered by inliers, then score, then previous order; ranks from 1.

        A hit whose original cannot be opened, or has changed since indexing, has `inliers` None
        and `verified` False. `asking.on_done(done, total)` is called after each hit. At most one
        picture per core is in memory at a time.
        """
        if not asking.options.verify:
            return hits
        from cbir.descriptors.local import geometry  # OpenCV takes a while to load

        query = geometry.query_keypoints(asking.pixels)
        originals = Originals(self._index)

        def compare(hit: Hit) -> Verdict | None:
            found = self._keypoints(hit.record, originals)
            return None if found is None else geometry.verdict(query, found)

        verdicts = list(_on_all_cores(compare, hits, asking.on_done))
        judged = [_judged(hit, one) for hit, one in zip(hits, verdicts, strict=True)]
        judged.sort(key=lambda hit: (-(hit.inliers or 0), -hit.score))  # stable: ties stay by id
        return [replace(hit, rank=rank) for rank, hit in enumerate(judged, 1)]

    def _keypoints(self, record: ImageRecord, originals: Originals) -> Keypoints | None:
        """The keypoints of an indexed picture, None if its original is not available."""
        with self._lock:
            if record.content_hash in self._kept:
                self._kept.move_to_end(record.content_hash)
                return self._kept[record.content_hash]
        from cbir.descriptors.local.geometry import keypoints

        try:
            data = originals.open(record)
            if content_hash(data) != record.content_hash:
                return None
            found = keypoints(load_pixels(data))
        except ImageError:
            return None  # the hit is marked as unverified
        with self._lock:
            self._kept[record.content_hash] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


def _on_all_cores(
    compare: Callable[[Hit], Verdict | None], hits: Sequence[Hit], on_done: OnDone
) -> Iterable[Verdict | None]:
    """`compare` each of `hits`, in order; an interruption cancels comparisons not yet started."""
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="cbir-verify") as pool:
        pending: list[Future[Verdict | None]] = [pool.submit(compare, hit) for hit in hits]
        try:
            for done, future in enumerate(pending, 1):
                yield future.result()
                on_done(done, len(hits))
        finally:
            for future in pending:
                future.cancel()


def _judged(hit: Hit, found: Verdict | None) -> Hit:
    if found is None:
        return replace(hit, verified=False)
    return replace(
        hit,
        inliers=found.inliers,
        verified=found.inliers > 0,
        mirrored=found.mirrored if found.inliers else None,
        matches=found.points,
    )
