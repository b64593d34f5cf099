"""Images in, vectors out: reading, decoding and inference overlapped on all cores, in order.

Used by indexing and by evaluation. Each worker takes a small batch through all of it (read, hash,
decode, shrink, describe), so that one worker's decoding overlaps another's inference and nothing
larger than a few batches is ever in memory: a batch is described in portions of about VIEW_BYTES
of pixels, because a descriptor need not be able to shrink pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cbir.descriptors.contract import Descriptor, describe_each, prepare
from cbir.errors import CbirError, ImageError
from cbir.images.decode import decode
from cbir.images.items import SourceItem, content_hash
from cbir.images.regions import crop
from cbir.images.thumbnails import thumbnail
from cbir.machine import usable_cores
from cbir.types import WHOLE, Box, RgbImage, Vectors

BATCH = 64
BATCH_BYTES = 16 * 2**20
VIEW_BYTES = 64 * 2**20
IN_FLIGHT_PER_WORKER = 3


@dataclass(frozen=True, slots=True)
class Described:
    """One image of a source, read: pixels gone, vectors (parts, dim) and thumbnail kept."""

    item: SourceItem
    content_hash: str
    width: int
    height: int
    thumbnail: bytes
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An image whose content hash is the one that was expected; it was not described."""

    item: SourceItem


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be read, decoded or described, and why not (one line)."""

    item: SourceItem
    reason: str


Outcome = Described | Unchanged | Unreadable


@dataclass(frozen=True, slots=True)
class _Opened:
    item: SourceItem
    content_hash: str
    width: int
    height: int
    thumbnail: bytes
    views: list[RgbImage]


def describe_items(
    items: Iterable[SourceItem],
    descriptor: Descriptor,
    boxes: Sequence[Box] = (WHOLE,),
    known_hash: Callable[[SourceItem], str | None] = lambda _: None,
) -> Iterator[list[Outcome]]:
    """Describe every item; yields lists of outcomes, in the order of `items`.

    `boxes`: the parts of each picture to describe. `known_hash(item)`: the content hash that makes
    describing unnecessary. Stopping the iteration stops the workers after their current batch.
    """
    workers = usable_cores()
    batches = _batched(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="cbir-describe") as pool:
        pending: deque[Future[list[Outcome]]] = deque()
        try:
            for batch in batches:
                pending.append(pool.submit(_process, batch, descriptor, boxes, known_hash))
                if len(pending) >= workers * IN_FLIGHT_PER_WORKER:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _process(
    batch: Sequence[SourceItem],
    descriptor: Descriptor,
    boxes: Sequence[Box],
    known_hash: Callable[[SourceItem], str | None],
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    waiting: list[_Opened | Unchanged | Unreadable] = []
    held = 0
    for item in batch:
        one = _open(item, descriptor, boxes, known_hash)
        waiting.append(one)
        held += sum(view.nbytes for view in one.views) if isinstance(one, _Opened) else 0
        if held >= VIEW_BYTES:
            outcomes += _describe(waiting, descriptor, len(boxes))
            waiting, held = [], 0
    return outcomes + _describe(waiting, descriptor, len(boxes))


def _describe(
    opened: Sequence[_Opened | Unchanged | Unreadable], descriptor: Descriptor, parts: int
) -> list[Outcome]:
    views = [view for one in opened if isinstance(one, _Opened) for view in one.views]
    results = iter(describe_each(descriptor, views))
    return [
        _with_vectors(one, list(islice(results, parts))) if isinstance(one, _Opened) else one
        for one in opened
    ]


def _open(
    item: SourceItem,
    descriptor: Descriptor,
    boxes: Sequence[Box],
    known_hash: Callable[[SourceItem], str | None],
) -> _Opened | Unchanged | Unreadable:
    try:
        data = item.read()
        digest = content_hash(data)
        if digest == known_hash(item):
            return Unchanged(item)
        image = decode(data) if isinstance(data, bytes) else data
        return _Opened(
            item=item,
            content_hash=digest,
            width=image.shape[1],
            height=image.shape[0],
            thumbnail=thumbnail(data if isinstance(data, bytes) else None, image),
            views=_views(image, descriptor, boxes),
        )
    except ImageError as error:
        return Unreadable(item, error.message)
    except OSError as error:
        return Unreadable(item, f"cannot be read: {error.strerror or error}")
    except MemoryError:
        return Unreadable(item, "needs more memory than there is")


def _views(image: RgbImage, descriptor: Descriptor, boxes: Sequence[Box]) -> list[RgbImage]:
    try:
        return [prepare(descriptor, crop(image, box)) for box in boxes]
    except Exception as error:
        # A user's descriptor may raise anything; it costs this image, not the run.
        raise ImageError(f"cannot be described: {error}") from error


def _with_vectors(opened: _Opened, results: list[Vectors | Exception]) -> Outcome:
    vectors = [result for result in results if isinstance(result, np.ndarray)]
    if len(vectors) < len(results):
        errors = [result for result in results if isinstance(result, Exception)]
        reason = errors[0].message if isinstance(errors[0], CbirError) else str(errors[0])
        return Unreadable(opened.item, f"cannot be described: {reason}")
    return Described(
        item=opened.item,
        content_hash=opened.content_hash,
        width=opened.width,
        height=opened.height,
        thumbnail=opened.thumbnail,
        vectors=np.stack(vectors),
    )


def _batched(items: Iterable[SourceItem]) -> Iterator[list[SourceItem]]:
    """Batches of at most BATCH items and, as far as sizes are known, BATCH_BYTES bytes."""
    batch: list[SourceItem] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.file_size or 0
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
