"""The queries of an evaluation: the described images of a source, with their ids in the index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count

import numpy as np

from cbir.errors import QueryError, RecordGoneError
from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.index.base import Index
from cbir.ingest.describe import Described, Unreadable, describe_items
from cbir.ingest.metadata import Metadata, label_in
from cbir.measures.by_class import class_names
from cbir.search.searcher import Searcher
from cbir.types import Failure, OnDone, RgbImage, Vectors

SAMPLE_SEED = 0


@dataclass(frozen=True)
class Queries:
    """Query images: ids, labels, vectors (q, dim), encoded thumbnails, content hashes; failures.

    `unlabelled`: ids of images that were left out because they have no label.
    """

    ids: list[str]
    labels: list[str | None]
    vectors: Vectors
    thumbnails: list[bytes] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def chosen(self, wanted: Sequence[int]) -> Queries:
        """The queries with these numbers; failures and unlabelled ids are kept."""
        return Queries(
            [self.ids[number] for number in wanted],
            [self.labels[number] for number in wanted],
            self.vectors[list(wanted)],
            [self.thumbnails[number] for number in wanted] if self.thumbnails else [],
            [self.hashes[number] for number in wanted] if self.hashes else [],
            self.failures,
            self.unlabelled,
        )


def describe_queries(
    searcher: Searcher,
    source: ImageSource,
    sample: int | None = None,
    on_done: OnDone = lambda _done, _total: None,
    metadata: Sequence[Metadata] = (),
) -> Queries:
    """Vectors of the images of `source`, or of a seeded random `sample` of them, in its order.

    An image whose content is indexed has the stored vector; only the others are described. Labels
    come from the last of `metadata` that has one, else from the source, else from the index. If an
    archive holds several images with the same name, the last one is the query, as ingest keeps that
    one.
    """
    name = _registered_name(searcher.index, source)
    items = source.items() if sample is None else _sampled(source, sample)
    total = source.count if sample is None else sample
    label_of = _labels(searcher.index, metadata, source.uri)
    # The items themselves are not kept: they may hold their bytes.
    found: dict[str, tuple[str | None, Vectors, bytes, str]] = {}
    failures: list[Failure] = []
    done = 0
    indexed = _IndexedContent(searcher.index)
    for outcomes in describe_items(items, searcher.descriptor, only_hash=indexed.take):
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                failures.append(Failure(name, outcome.item.location, outcome.reason))
                continue
            vector, small = (
                (outcome.vectors[0], outcome.thumbnail)
                if isinstance(outcome, Described)
                else indexed.taken[outcome.content_hash]
            )
            query = make_id(name, outcome.item.key)
            found[query] = (label_of(query, outcome.item), vector, small, outcome.content_hash)
        done += len(outcomes)
        on_done(done, total)
    if not found:
        raise _no_images(source)
    labels, vectors, thumbnails, hashes = map(list, zip(*found.values(), strict=True))
    return Queries(list(found), labels, np.stack(vectors), thumbnails, hashes, failures)


class _IndexedContent:
    """Takes the vector and the thumbnail of an image from a record of the same content hash."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._ids = {
            stamp.content_hash: record_id
            for source in index.sources()
            for record_id, stamp in index.stamps(source).items()
        }
        self.taken: dict[str, tuple[Vectors, bytes]] = {}

    def take(self, _item: SourceItem, _data: bytes | RgbImage, content_hash: str) -> bool:
        """Whether `taken` now holds what the index has of this content; called by threads."""
        record_id = self._ids.get(content_hash)
        if record_id is None:
            return False
        try:
            (record,) = self._index.records([record_id])
            vectors, small = self._index.vectors(record_id), self._index.thumbnail(record_id)
        except RecordGoneError:  # a writer has removed it since
            return False
        if small is None or record.content_hash != content_hash:
            return False
        self.taken[content_hash] = (vectors[0], small)
        return True


def query_labels(
    index: Index, source: ImageSource, metadata: Sequence[Metadata] = ()
) -> list[tuple[str, str | None]]:
    """Ids and labels of the images of `source` as queries to `index`, without describing them.

    Labels as in `describe_queries`; if an archive repeats a name, the last image counts.
    Raises `QueryError` if there is no image.
    """
    found = dict(_labelled_ids(index, source, metadata))
    if not found:
        raise _no_images(source)
    return list(found.items())


def require_labels_in(
    searcher: Searcher, source: ImageSource, metadata: Sequence[Metadata] = ()
) -> None:
    """Raise `QueryError` if nothing can be relevant, before anything is described."""
    _require_indexed_labels(searcher.index, searcher.index.labels())
    some = False
    for _, label in _labelled_ids(searcher.index, source, metadata):
        if label is not None:
            return
        some = True
    raise _no_labels(source) if some else _no_images(source)


def labelled(source: ImageSource, queries: Queries) -> Queries:
    """The queries that have a label; the others are listed in `unlabelled`.

    Raises `QueryError` if no query has a label.
    """
    parts: tuple[list[int], list[int]] = [], []
    for number, label in enumerate(queries.labels):
        parts[label is None].append(number)
    with_label, without = parts
    if not with_label:
        raise _no_labels(source)
    unlabelled = [*queries.unlabelled, *(queries.ids[number] for number in without)]
    return replace(queries.chosen(with_label), unlabelled=unlabelled)


def require_relevant(index: Index, source: ImageSource, labels: Iterable[str | None]) -> list[str]:
    """The distinct `labels` of queries from `source` that no indexed image has, sorted.

    Nothing is relevant to their queries. Raises `QueryError` if this holds for all queries.
    """
    indexed = index.labels()
    _require_indexed_labels(index, indexed)
    known, asked = class_names(indexed.values()), class_names(labels)
    if not asked:
        raise _no_labels(source)
    absent = sorted(set(asked).difference(known))
    if len(absent) == len(asked):
        raise QueryError(
            f"no image of {index.url} has a label of {source.uri}, "
            "so nothing is relevant to any query",
            f"the queries have {_examples(absent)}, the index has {_examples(known)}",
        )
    return absent


def _require_indexed_labels(index: Index, labels: Mapping[str, str | None]) -> None:
    if not any(label is not None for label in labels.values()):
        raise QueryError(
            f"{index.url} has no labels, so nothing is relevant to any query",
            "index again with --label-from-folder, or with --metadata that has a label column",
        )


def _examples(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels[:3])


def _labelled_ids(
    index: Index, source: ImageSource, metadata: Sequence[Metadata]
) -> Iterator[tuple[str, str | None]]:
    name = _registered_name(index, source)
    label_of = _labels(index, metadata, source.uri)
    for item in source.items():
        query = make_id(name, item.key)
        yield query, label_of(query, item)


def _labels(
    index: Index, metadata: Sequence[Metadata], uri: str
) -> Callable[[str, SourceItem], str | None]:
    """A function that returns a query's label: from metadata, else the source, else the index."""
    indexed = index.labels()

    def label_of(query: str, item: SourceItem) -> str | None:
        told = label_in(metadata, query, item.location, uri)
        if told is not None:
            return told
        return indexed.get(query) if item.label is None else item.label

    return label_of


def _no_images(source: ImageSource) -> QueryError:
    return QueryError(f"{source.uri} has no image that can be a query")


def _no_labels(source: ImageSource) -> QueryError:
    return QueryError(
        f"queries of {source.uri} have no label, so nothing is relevant to them",
        "use --label-from-folder, or --metadata with a label column",
    )


def _registered_name(index: Index, source: ImageSource) -> str:
    """The name of `source` in the index, so that a query finds its own record.

    A source that is not registered gets the name that `register_source` would give it, so that its
    images are not mistaken for those of another folder of the same name.
    """
    names = index.sources()
    known = {uri: name for name, uri in names.items()}
    if source.uri in known:
        return known[source.uri]
    candidates = (f"{source.name}-{number}" for number in count(2))
    return next(n for n in chain([source.name], candidates) if n not in names)


def _sampled(source: ImageSource, sample: int) -> list[SourceItem]:
    """`sample` items of `source`, drawn with a fixed seed, in the order of the source.

    One pass that never holds more than the sample (Vitter 1985, algorithm R), because items of an
    archive carry their bytes. A later item replaces an earlier one with the same key.
    """
    if sample < 1:
        raise QueryError(f"a sample of {sample} queries is not possible", "use 1 or more")
    random = np.random.default_rng(SAMPLE_SEED)
    numbers: dict[str, int] = {}
    chosen: dict[int, SourceItem] = {}
    places: list[int] = []
    for item in source.items():
        number = numbers.setdefault(item.key, len(numbers))
        if number in chosen:
            chosen[number] = item
        elif number < len(numbers) - 1:
            continue
        elif number < sample:
            chosen[number] = item
            places.append(number)
        elif (place := int(random.integers(number + 1))) < sample:
            del chosen[places[place]]
            chosen[number] = item
            places[place] = number
    return [item for _, item in sorted(chosen.items())]
