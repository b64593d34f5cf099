"""The second look: the first hits of a search, compared with the query point by point."""

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
from cbir.search.originals import Originals
from cbir.types import Hit, ImageRecord, OnDone, RgbImage

if TYPE_CHECKING:
    from cbir.descriptors.local.geometry import Keypoints, Verdict

LOOKED_AT = 200
"""How many first hits are compared; all k where k is more."""

KEPT = 1000
"""Pictures whose keypoints stay in memory (at most about 70 KB each) for the next query."""


class SecondLook:
    """Compares queries with the originals of an index, on all cores. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Keypoints] = OrderedDict()

    def ordered(
        self, image: RgbImage, hits: Sequence[Hit], on_done: OnDone = lambda _d, _t: None
    ) -> list[Hit]:
        """`hits` in their new order: inliers first, then score, then as they were; ranks from 1.

        `image`: the query's pixels. A hit whose original cannot be opened, or is no longer the
        picture that was indexed, has `inliers` None and `verified` False. `on_done(done, total)`
        is called after each hit. Only one picture a core is in memory at a time.
        """
        from cbir.descriptors.local.geometry import (  # OpenCV takes a while to load
            query_keypoints,
            verdict,
        )

        query = query_keypoints(image)
        opened = Originals(self._index)

        def look(hit: Hit) -> Verdict | None:
            found = self._keypoints(hit.record, opened)
            return None if found is None else verdict(query, found)

        verdicts = list(_on_all_cores(look, hits, on_done))
        judged = [_judged(hit, one) for hit, one in zip(hits, verdicts, strict=True)]
        judged.sort(key=lambda hit: (-(hit.inliers or 0), -hit.score))  # stable: ties stay by id
        return [replace(hit, rank=rank) for rank, hit in enumerate(judged, 1)]

    def _keypoints(self, record: ImageRecord, originals: Originals) -> Keypoints | None:
        """The keypoints of an indexed picture, None where its original cannot be had."""
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
            return None  # the hit says so
        with self._lock:
            self._kept[record.content_hash] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


def _on_all_cores(
    look: Callable[[Hit], Verdict | None], hits: Sequence[Hit], on_done: OnDone
) -> Iterable[Verdict | None]:
    """`look` at each of `hits`, in their order; nothing goes on when the caller is interrupted."""
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="cbir-verify") as pool:
        pending: list[Future[Verdict | None]] = [pool.submit(look, hit) for hit in hits]
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
