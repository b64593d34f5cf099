"""One retrieval experiment: queries -> run -> measures, as `cbir evaluate --in` does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.cards import Model
from cbir.descriptors.models import card_of
from cbir.errors import QueryError
from cbir.evaluation.measures import DEFAULT_MEASURES, depth, with_pairs
from cbir.evaluation.relevance import PADDING, class_measures, encode_labels, relevant_counts
from cbir.images.ids import make_id
from cbir.images.items import ImageSource, SourceItem
from cbir.index.base import Index, Matches
from cbir.index.exact import Space, nearest
from cbir.pipeline import Described, Unreadable, describe_items
from cbir.rerank import expanded_query
from cbir.search import Searcher
from cbir.types import Failure, Vectors

OnDone = Callable[[int, int | None], None]
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Queries:
    """Query images: ids, labels, vectors (q, dim), encoded thumbnails; and those that failed."""

    ids: list[str]
    labels: list[str | None]
    vectors: Vectors
    thumbnails: list[bytes] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Means over all queries, and where they come from.

    `measures`: the usual protocol, queries against the index. `unseen_index`: the queries searched
    among each other, each left out of its own answer (None for a sample, whose few relevant images
    would make it another experiment). `accuracy`: of the descriptor's own classifier on
    "training_images" (those indexed from the source that it was trained on, the tenth it held out
    included) and on the "queries"; None where there are none of its classes.
    `training_images_indexed`: whether the index holds what the descriptor was trained on, so that
    `measures` are partly memory. `per_query` as `measures`, float64 (n_queries,). `queries` and
    `matches`: what was asked, and what the usual protocol answered, best first.
    """

    n_queries: int
    n_indexed: int
    descriptor: str
    measures: dict[str, float]
    per_query: dict[str, NDArray[np.float64]]
    unseen_index: dict[str, float] | None
    accuracy: dict[str, float | None] | None
    trained_on: str
    training_images_indexed: bool
    failures: list[Failure]
    seconds: dict[str, float]
    queries: Queries
    matches: list[Matches]

    def to_json(self) -> dict[str, Any]:
        """What `cbir evaluate --json` prints for one run."""
        return {
            "n_queries": self.n_queries,
            "n_indexed": self.n_indexed,
            "descriptor": self.descriptor,
            "measures": self.measures,
            "unseen_index": self.unseen_index,
            "accuracy": self.accuracy,
            "trained_on": self.trained_on,
            "training_images_indexed": self.training_images_indexed,
            "failed": len(self.failures),
            "seconds": self.seconds,
        }


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


def rank(searcher: Searcher, queries: Queries, k: int, expand: int = 0) -> list[Matches]:
    """The exact k best records for each query; a query that is indexed is left out of its own."""
    indexed = searcher.index.labels()
    exclude = [i if i in indexed else None for i in queries.ids]
    return searcher.match(queries.vectors, k, exclude=exclude, exact=True, expand=expand)


def evaluate(
    searcher: Searcher,
    source: ImageSource,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    sample: int | None = None,
    expand: int = 0,
    on_done: OnDone = lambda _done, _total: None,
) -> Evaluation:
    """Search every image of `source` in the index, relevant = same label, and measure the answers.

    `measures` in ir_measures notation; AP@k and nAP@k always come together. Search is exact.
    Raises `QueryError` when queries have no labels.
    """
    names = with_pairs(measures)
    _require_labels_in(searcher, source)
    started = time.perf_counter()
    queries = describe_queries(searcher, source, sample, on_done)
    _require_labels(source, queries.labels)
    described = time.perf_counter()
    matches = rank(searcher, queries, _depth(names, searcher.index.count()), expand)
    searched = time.perf_counter()
    per_query = _usual(searcher, queries, matches, names)
    measured = time.perf_counter()
    card = card_of(searcher.descriptor)
    whole = sample is None and len(queries.ids) > 1
    return Evaluation(
        n_queries=len(queries.ids),
        n_indexed=searcher.index.count(),
        descriptor=searcher.index.spec.short,
        measures=_means(per_query),
        per_query=per_query,
        unseen_index=_means(unseen_index(queries, names, expand)) if whole else None,
        accuracy=_accuracies(searcher, queries) if card else None,
        trained_on=searcher.index.spec.trained_on,
        training_images_indexed=card is not None
        and any(i.startswith(card.training_prefix) for i in searcher.index.ids()),
        failures=queries.failures,
        seconds={
            "describe": round(described - started, 3),
            "search": round(searched - described, 3),
            "measure": round(measured - searched, 3),
        },
        queries=queries,
        matches=matches,
    )


def unseen_index(
    queries: Queries, names: Sequence[str], expand: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Measures of the queries searched among each other, each left out of its own answer.

    None of the indexed images was then seen in training, which the usual protocol cannot say.
    """
    codes, _ = encode_labels(queries.labels, ())
    order = np.argsort(np.array([i.encode() for i in queries.ids], dtype=object), kind="stable")
    space = Space(np.ascontiguousarray(queries.vectors[order]), np.arange(len(order) + 1))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    vectors = queries.vectors
    if expand:
        first = nearest(space, vectors, min(expand, len(order) - 1), excluded=place)
        expansions = zip(vectors, first.records, first.scores, strict=True)
        vectors = np.stack([expanded_query(v, space.matrix[r], s) for v, r, s in expansions])
    found = nearest(space, vectors, _depth(names, len(order) - 1), excluded=place)
    ranked = np.where(np.isfinite(found.scores), codes[order][found.records], PADDING)
    relevant = relevant_counts(codes, codes, np.ones(len(codes), dtype=np.bool_))
    return class_measures(ranked, codes, relevant, names)


def _usual(
    searcher: Searcher, queries: Queries, matches: Sequence[Matches], names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    labels = searcher.index.labels()
    indexed, asked = encode_labels(list(labels.values()), queries.labels)
    code_of = dict(zip(labels, indexed.tolist(), strict=True))
    width = max((len(found.ids) for found in matches), default=0)
    ranked = np.full((len(matches), width), PADDING, dtype=np.int32)
    for row, found in enumerate(matches):
        ranked[row, : len(found.ids)] = [code_of[i] for i in found.ids]
    pairs = zip(queries.ids, asked.tolist(), strict=True)
    itself = np.array([code_of.get(record_id) == code for record_id, code in pairs])
    return class_measures(ranked, asked, relevant_counts(indexed, asked, itself), names)


def _accuracies(searcher: Searcher, queries: Queries) -> dict[str, float | None]:
    """Share of images whose label the model's own classifier finds, of those with a known class."""
    descriptor = searcher.descriptor
    if not isinstance(descriptor, Model):
        return {"training_images": None, "queries": None}
    labels = searcher.index.labels()
    ids, matrix = searcher.index.matrix()
    prefix = descriptor.card.training_prefix
    trained = [row for row, record_id in enumerate(ids) if record_id.startswith(prefix)]
    return {
        "training_images": _accuracy(
            descriptor, matrix[trained], [labels[ids[row]] for row in trained]
        ),
        "queries": _accuracy(descriptor, queries.vectors, queries.labels),
    }


def _accuracy(descriptor: Model, vectors: Vectors, labels: Sequence[str | None]) -> float | None:
    predicted = descriptor.predicted(vectors)
    classes = descriptor.card.classes
    known = np.array([label in classes for label in labels], dtype=np.bool_)
    if predicted is None or not known.any():
        return None
    right = np.array([classes[p] == label for p, label in zip(predicted, labels, strict=True)])
    return float(right[known].mean())


def _means(per_query: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in per_query.items()}


def _depth(names: Sequence[str], available: int) -> int:
    wanted = depth(names)
    return max(1, available if wanted is None else min(wanted, available))


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


def _require_labels_in(searcher: Searcher, source: ImageSource) -> None:
    """Raise `QueryError` where nothing can be relevant, before anything is described."""
    if not any(searcher.index.labels().values()):
        raise QueryError(
            f"{searcher.index.url} has no labels, so nothing is relevant to any query",
            "index again with --label-from-folder, or with --metadata that has a label column",
        )
    first = next(source.items(), None)
    _require_labels(source, [first.label] if first else [])


def _require_labels(source: ImageSource, labels: Sequence[str | None]) -> None:
    if None in labels:
        raise QueryError(
            f"queries of {source.uri} have no label, so nothing is relevant to them",
            "--label-from-folder takes each image's folder as its label",
        )
