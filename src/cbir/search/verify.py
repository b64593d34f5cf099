"""Geometric verification: compares the first hits with the query by matching keypoints."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from cbir.errors import ImageError
from cbir.images.decode import decode_file
from cbir.images.limits import Limits
from cbir.index.base import Index
from cbir.machine import usable_cores
from cbir.search.asking import Asking
from cbir.search.keypoint_cache import KeypointCache
from cbir.search.originals import Originals, tell_unconfirmed
from cbir.search.query import SearchOptions
from cbir.types import Hit, ImageRecord, OnDone, Verification

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
        self._cache = KeypointCache(index)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Keypoints] = OrderedDict()

    def needs(self, options: SearchOptions) -> int:
        return LOOKED_AT if options.verify else 0

    def apply(self, hits: list[Hit], asking: Asking) -> list[Hit]:
        """`hits` ordered by inliers, then score, then previous order; ranks from 1.

        A hit has `inliers` None and `verified` False if its keypoints are not kept and its original
        cannot be opened or has changed since indexing. Hits are compared in their order while
        `asking.go_on()`; those that are not reached have `inliers` and `verified` None.
        `asking.on_done(done, total)` is called after each hit, `asking.on_verified` at the end. At
        most one picture per core is in memory at a time.
        """
        if not asking.options.verify:
            return hits
        from cbir.descriptors.local import geometry  # OpenCV takes a while to load

        query = geometry.query_keypoints(asking.pixels)
        originals = Originals(self._index)
        tell_unconfirmed(self._index)

        def compare(hit: Hit) -> Hit:
            found = self._keypoints(hit.record, originals)
            return _judged(hit, None if found is None else geometry.verdict(query, found))

        judged = _on_all_cores(compare, hits, asking.go_on, asking.on_done)
        asking.on_verified(_counts(judged, len(hits)))
        ordered = judged + hits[len(judged) :]
        ordered.sort(key=lambda hit: (-(hit.inliers or 0), -hit.score))  # stable: ties stay by id
        return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, 1)]

    def _keypoints(self, record: ImageRecord, originals: Originals) -> Keypoints | None:
        """The keypoints of an indexed picture, None if they are not kept and cannot be computed."""
        name = record.content_hash
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        found = self._cache.get(name)
        if found is None:
            found = _computed(record, originals)
            if found is None:
                return None
            self._cache.put(name, found)
        with self._lock:
            self._kept[name] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


def _computed(record: ImageRecord, originals: Originals) -> Keypoints | None:
    """The keypoints of an original, None if it cannot be opened or has changed."""
    from cbir.descriptors.local.geometry import SIDE, keypoints

    try:
        data = originals.open(record)
        # Twice the compared size: scaling down by an uneven factor needs pixels to average.
        pixels = (
            decode_file(data, Limits(side=2 * SIDE)).pixels if isinstance(data, bytes) else data
        )
    except ImageError:
        return None  # the hit is marked as unverified
    return keypoints(pixels)


def _on_all_cores(
    compare: Callable[[Hit], Hit], hits: Sequence[Hit], go_on: Callable[[], bool], on_done: OnDone
) -> list[Hit]:
    """The first of `hits`, compared: all of them, or as many as were begun while `go_on()`.

    An interruption cancels comparisons that have not begun.
    """
    lock = threading.Lock()
    judged: dict[int, Hit] = {}
    positions = iter(range(len(hits)))

    def compare_next() -> bool:
        with lock:  # a position is taken only if it is compared, so there are no gaps
            position = next(positions) if go_on() else None
        if position is None:
            return False
        judged[position] = compare(hits[position])
        return True

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="cbir-verify") as pool:
        pending = [pool.submit(compare_next) for _ in hits]
        try:
            for done, future in enumerate(pending, 1):
                if future.result():
                    on_done(done, len(hits))
        finally:
            for future in pending:
                future.cancel()
    return [judged[position] for position in range(len(judged))]


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


def _counts(judged: Sequence[Hit], looked_at: int) -> Verification:
    compared = sum(hit.inliers is not None for hit in judged)
    agreed = sum(bool(hit.inliers) for hit in judged)
    return Verification(
        looked_at, compared, agreed, len(judged) - compared, looked_at - len(judged)
    )
