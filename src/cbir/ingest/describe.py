"""Describes images on all cores and keeps their order; used by indexing and by evaluation.

Each worker takes a small batch through every stage (read, hash, decode, shrink, describe), so that
one worker decodes while another runs inference. No more than a few batches are in memory; a batch
is described in portions of about VIEW_BYTES of pixels, because not every descriptor shrinks images.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from cbir.descriptors.contract import Descriptor, describe_each, prepare
from cbir.errors import CbirError, ImageError
from cbir.images.decode import decode_file
from cbir.images.decoding_process import Decoded
from cbir.images.exif import exif_fields
from cbir.images.items import SourceItem, content_hash
from cbir.images.limits import DEFAULT, Limits
from cbir.images.regions import crop
from cbir.images.thumbnails import thumbnail
from cbir.machine import LACKS_MEMORY, is_out_of_memory, usable_cores
from cbir.types import WHOLE, Box, MetadataValue, RgbImage, Vectors

BATCH = 64
BATCH_BYTES = 16 * 2**20
VIEW_BYTES = 64 * 2**20
IN_FLIGHT_PER_WORKER = 3

OnlyHash = Callable[[SourceItem, bytes | RgbImage, str], bool]
"""Whether not to describe an image, given its file or pixels and its content hash."""


def describe_all(_item: SourceItem, _data: bytes | RgbImage, _content: str) -> bool:
    """No image is known."""
    return False


@dataclass(frozen=True, slots=True)
class Described:
    """An image of a source with its vectors (parts, dim) and thumbnail, without its pixels.

    `notes`: see `images.decode.Decoded`; `exif`: see `images.exif.exif_fields`.
    """

    item: SourceItem
    content_hash: str
    width: int
    height: int
    thumbnail: bytes
    notes: tuple[str, ...]
    exif: Mapping[str, MetadataValue]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Hashed:
    """An image that was read but not described, because of its content hash."""

    item: SourceItem
    content_hash: str
    exif: Mapping[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be read, decoded or described, and the reason (one line)."""

    item: SourceItem
    reason: str


Outcome = Described | Hashed | Unreadable


@dataclass(frozen=True, slots=True)
class _Opened:
    """A decoded image: the views to describe; `described(vectors)` makes its outcome."""

    item: SourceItem
    views: list[RgbImage]
    described: Callable[[Vectors], Described]


def describe_items(
    items: Iterable[SourceItem],
    descriptor: Descriptor,
    boxes: Sequence[Box] = (WHOLE,),
    only_hash: OnlyHash = describe_all,
    limits: Limits = DEFAULT,
    *,
    exif: bool = False,
) -> Iterator[list[Outcome]]:
    """Describe every item; yields lists of outcomes, in the order of `items`.

    `boxes`: the parts of each image to describe. `only_hash` is asked in the workers' threads.
    `limits`: see `images.decode.decode_file`. `exif`: whether to read the EXIF fields. Closing the
    iterator stops the workers after their current image, or at once if it is a slow one.
    """
    workers = usable_cores()
    stopped = threading.Event()
    limits = replace(limits, stopped=stopped)
    worker = _Worker(descriptor, boxes, only_hash, limits, exif)
    with ThreadPoolExecutor(workers, thread_name_prefix="cbir-describe") as pool:
        pending: deque[Future[list[Outcome]]] = deque()
        try:
            for batch in _batched(items):
                pending.append(pool.submit(worker.outcomes, batch))
                if len(pending) >= workers * IN_FLIGHT_PER_WORKER:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stopped.set()
            for future in pending:
                future.cancel()


@dataclass(frozen=True, slots=True)
class _Worker:
    """Takes batches of items through every stage; used by several threads at once."""

    descriptor: Descriptor
    boxes: Sequence[Box]
    only_hash: OnlyHash
    limits: Limits
    exif: bool

    def outcomes(self, batch: Sequence[SourceItem]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        waiting: list[_Opened | Hashed | Unreadable] = []
        held = 0
        for item in batch:
            if self.limits.stopped is not None and self.limits.stopped.is_set():
                break  # nobody waits for the outcomes
            one = self._open(item)
            waiting.append(one)
            held += sum(view.nbytes for view in one.views) if isinstance(one, _Opened) else 0
            if held >= VIEW_BYTES:
                outcomes += self._describe(waiting)
                waiting, held = [], 0
        return outcomes + self._describe(waiting)

    def _open(self, item: SourceItem) -> _Opened | Hashed | Unreadable:
        try:
            data = item.read()
            digest = content_hash(data)
            file = data if isinstance(data, bytes) else None
            fields = exif_fields(file) if self.exif and file else {}
            if self.only_hash(item, data, digest):
                return Hashed(item, digest, fields)
            if isinstance(data, bytes):
                image = decode_file(data, self.limits)
            else:
                image = Decoded(data, data.shape[1], data.shape[0])
            small = thumbnail(file, image.pixels)
            described = partial(
                Described, item, digest, image.width, image.height, small, image.notes, fields
            )
            return _Opened(item, self._views(image.pixels), described)
        except ImageError as error:
            return Unreadable(item, error.message)
        except OSError as error:
            if is_out_of_memory(error):
                return Unreadable(item, LACKS_MEMORY)
            return Unreadable(item, f"cannot be read: {error.strerror or error}")
        except MemoryError:
            return Unreadable(item, LACKS_MEMORY)

    def _views(self, image: RgbImage) -> list[RgbImage]:
        try:
            return [prepare(self.descriptor, crop(image, box)) for box in self.boxes]
        except Exception as error:
            # A user's descriptor may raise anything; it costs this image, not the run.
            if is_out_of_memory(error):
                raise MemoryError from error
            raise ImageError(f"cannot be described: {error}") from error

    def _describe(self, opened: Sequence[_Opened | Hashed | Unreadable]) -> list[Outcome]:
        views = [view for one in opened if isinstance(one, _Opened) for view in one.views]
        results = iter(describe_each(self.descriptor, views))
        return [
            _outcome(one, list(islice(results, len(self.boxes))))
            if isinstance(one, _Opened)
            else one
            for one in opened
        ]


def _outcome(opened: _Opened, results: list[Vectors | Exception]) -> Outcome:
    vectors = []
    for result in results:
        if isinstance(result, Exception):
            if is_out_of_memory(result):
                return Unreadable(opened.item, LACKS_MEMORY)
            reason = result.message if isinstance(result, CbirError) else str(result)
            return Unreadable(opened.item, f"cannot be described: {reason}")
        vectors.append(result)
    return opened.described(np.stack(vectors))


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
