"""The queries of an experiment: images of a source, described, with ids as the index knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np

from cbir.errors import QueryError
from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.index.base import Index
from cbir.pipeline import Described, Unreadable, describe_items
from cbir.search import Searcher
from cbir.types import Failure, OnDone, Vectors

SAMPLE_SEED = 0


@dataclass(frozen=True)
class Queries:
    """Query images: ids, labels, vectors (q, dim), encoded thumbnails; and those that failed."""

    ids: list[str]
    labels: list[str | None]
    vectors: Vectors
    thumbnails: list[bytes] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def chosen(self, wanted: Sequence[int]) -> Queries:
        """The queries of these numbers; the failures stay."""
        return Queries(
            [self.ids[number] for number in wanted],
            [self.labels[number] for number in wanted],
            self.vectors[list(wanted)],
            [self.thumbnails[number] for number in wanted] if self.thumbnails else [],
            self.failures,
        )


def describe_queries(
    searcher: Searcher,
    source: ImageSource,
    sample: int | None = None,
    on_done: OnDone = lambda _done, _total: None,
) -> Queries:
    """Vectors of the images of `source`, or of a seeded random `sample` of them, in its order."""
    name = _registered_name(searcher.index, source)
    items = source.items() if sample is None else _sampled(source, sample)
    total = source.count if sample is None else sample
    ids: list[str] = []
    labels: list[str | None] = []
    vectors: list[Vectors] = []
    thumbnails: list[bytes] = []
    failures: list[Failure] = []
    for outcomes in describe_items(items, searcher.descriptor):
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                failures.append(Failure(name, outcome.item.location, outcome.reason))
            elif isinstance(outcome, Described):
                ids.append(make_id(name, outcome.item.key))
                labels.append(outcome.item.label)
                vectors.append(outcome.vectors[0])
                thumbnails.append(outcome.thumbnail)
        on_done(len(ids) + len(failures), total)
    if not ids:
        raise QueryError(f"{source.uri} has no image that can be a query")
    return Queries(ids, labels, np.stack(vectors), thumbnails, failures)


def query_labels(index: Index, source: ImageSource) -> list[tuple[str, str | None]]:
    """Ids and labels of the images of `source`, as queries to `index`; nothing is described."""
    name = _registered_name(index, source)
    return [(make_id(name, item.key), item.label) for item in source.items()]


def require_labels_in(searcher: Searcher, source: ImageSource) -> None:
    """Raise `QueryError` where nothing can be relevant, before anything is described."""
    if not any(searcher.index.labels().values()):
        raise QueryError(
            f"{searcher.index.url} has no labels, so nothing is relevant to any query",
            "index again with --label-from-folder, or with --metadata that has a label column",
        )
    first = next(source.items(), None)
    require_labels(source, [first.label] if first else [])


def require_labels(source: ImageSource, labels: Sequence[str | None]) -> None:
    """Raise `QueryError` where one of the `labels` of `source` is None."""
    if None in labels:
        raise QueryError(
            f"queries of {source.uri} have no label, so nothing is relevant to them",
            "--label-from-folder takes each image's folder as its label",
        )


def _registered_name(index: Index, source: ImageSource) -> str:
    """The name that `source` has in the index, so that a query finds its own record.

    One that is not registered gets a name of its own, as `register_source` would give it, so that
    its images are not taken for those of another folder of the same name.
    """
    names = index.sources()
    known = {uri: name for name, uri in names.items()}
    if source.uri in known:
        return known[source.uri]
    candidates = (f"{source.name}-{number}" for number in count(2))
    return next(n for n in chain([source.name], candidates) if n not in names)


def _sampled(source: ImageSource, sample: int) -> list[SourceItem]:
    """`sample` items of `source`, chosen by a fixed seed, in the order of the source.

    One pass that never holds more than the sample (Vitter 1985, algorithm R), because the items of
    an archive carry their bytes.
    """
    if sample < 1:
        raise QueryError(f"a sample of {sample} queries", "choose 1 or more")
    random = np.random.default_rng(SAMPLE_SEED)
    chosen: list[tuple[int, SourceItem]] = []
    for number, item in enumerate(source.items()):
        if number < sample:
            chosen.append((number, item))
        elif (place := int(random.integers(number + 1))) < sample:
            chosen[place] = (number, item)
    return [item for _, item in sorted(chosen, key=lambda pair: pair[0])]
