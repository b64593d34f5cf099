"""The queries of an experiment: images of a source, described, with ids as the index knows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """Query images: ids, labels, vectors (q, dim), encoded thumbnails; and those that failed.

    `unlabelled`: ids of images that were left out because they have no label.
    """

    ids: list[str]
    labels: list[str | None]
    vectors: Vectors
    thumbnails: list[bytes] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def chosen(self, wanted: Sequence[int]) -> Queries:
        """The queries of these numbers; what is said of others stays."""
        return Queries(
            [self.ids[number] for number in wanted],
            [self.labels[number] for number in wanted],
            self.vectors[list(wanted)],
            [self.thumbnails[number] for number in wanted] if self.thumbnails else [],
            self.failures,
            self.unlabelled,
        )


def describe_queries(
    searcher: Searcher,
    source: ImageSource,
    sample: int | None = None,
    on_done: OnDone = lambda _done, _total: None,
) -> Queries:
    """Vectors of the images of `source`, or of a seeded random `sample` of them, in its order.

    Of an archive's images of one name the last is the query, as it is the one that ingest keeps.
    """
    name = _registered_name(searcher.index, source)
    items = source.items() if sample is None else _sampled(source, sample)
    total = source.count if sample is None else sample
    found: dict[str, tuple[str | None, Vectors, bytes]] = {}  # not items: those hold their bytes
    failures: list[Failure] = []
    done = 0
    for outcomes in describe_items(items, searcher.descriptor):
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                failures.append(Failure(name, outcome.item.location, outcome.reason))
            elif isinstance(outcome, Described):
                item = outcome.item
                kept = (item.label, outcome.vectors[0], outcome.thumbnail)
                found[make_id(name, item.key)] = kept
        done += len(outcomes)
        on_done(done, total)
    if not found:
        raise QueryError(f"{source.uri} has no image that can be a query")
    labels, vectors, thumbnails = zip(*found.values(), strict=True)
    return Queries(list(found), list(labels), np.stack(vectors), list(thumbnails), failures)


def query_labels(index: Index, source: ImageSource) -> list[tuple[str, str | None]]:
    """Ids and labels of the images of `source`, as queries to `index`; nothing is described."""
    name = _registered_name(index, source)
    return list({make_id(name, item.key): item.label for item in source.items()}.items())


def require_labels_in(searcher: Searcher, source: ImageSource) -> None:
    """Raise `QueryError` where nothing can be relevant, before anything is described."""
    _require_indexed_labels(searcher.index, searcher.index.labels())
    if not any(item.label is not None for item in source.items()):
        raise _no_labels(source)


def labelled(source: ImageSource, queries: Queries) -> Queries:
    """`queries` without those that have no label, which are named as `unlabelled`.

    Raises `QueryError` where none has one.
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
    """The `labels` of queries from `source` that no indexed image has, in order, each once.

    Nothing is relevant to those queries. Raises `QueryError` where that is so of every query.
    """
    indexed = index.labels()
    _require_indexed_labels(index, indexed)
    known, asked = ({each for each in of if each is not None} for of in (indexed.values(), labels))
    if not asked:
        raise _no_labels(source)
    absent = sorted(asked - known)
    if len(absent) == len(asked):
        raise QueryError(
            f"no image of {index.url} has a label of {source.uri}, "
            "so nothing is relevant to any query",
            f"the queries have {_examples(absent)}, the index has {_examples(sorted(known))}",
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


def _no_labels(source: ImageSource) -> QueryError:
    return QueryError(
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
    an archive carry their bytes. An item whose key came before takes that one's part.
    """
    if sample < 1:
        raise QueryError(f"a sample of {sample} queries", "choose 1 or more")
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
