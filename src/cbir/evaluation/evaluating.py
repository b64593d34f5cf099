"""Measures the results of labelled queries under each protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.models import card_of, cards_of
from cbir.errors import QueryError
from cbir.evaluation.caveats import accuracies, overlap_of
from cbir.evaluation.hamming import hamming, require_bits
from cbir.evaluation.protocols import (
    EXACT,
    EvaluationOptions,
    OneProtocol,
    Protocol,
    rank,
    ranked_measures,
    require_whole_images,
    unseen_trial,
    usual_trial,
)
from cbir.evaluation.queries import (
    Queries,
    describe_queries,
    labelled,
    require_labels_in,
    require_relevant,
)
from cbir.evaluation.rankings import Trial, answers, kept, trial_measures
from cbir.evaluation.result import NOT_FOR_A_SAMPLE, Evaluation
from cbir.images.items import ImageSource
from cbir.index.base import Index, Matches
from cbir.ingest.metadata import read_metadata_files
from cbir.measures.by_class import require_class_measures
from cbir.measures.names import DEFAULT_MEASURES, with_pairs
from cbir.search.searcher import Searcher
from cbir.types import OnStage


def evaluate(
    searcher: Searcher,
    source: ImageSource,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    protocol: Protocol = "both",
    sample: int | None = None,
    expand: int = 0,
    bits: int | None = None,
    shuffle: int | None = None,
    without_near_duplicates: bool = False,
    metadata: Path | Sequence[Path] | None = None,
    on_stage: OnStage = lambda _stage, _done, _total: None,
) -> Evaluation:
    """Search for every image of `source` in the index and measure the results by label.

    An indexed image is relevant to a query with the same label. `measures` are in ir_measures'
    notation; AP@k and nAP@k are always reported together. Search is exact. `protocol`: "usual"
    (the queries against the index), "unseen" (leave-one-out: the queries among each other) or
    "both". `sample`: how many queries to draw at random. `expand`: average each query with this
    many first hits. `bits`: also measure binary codes of this length. `shuffle`: break ties at
    random by this seed, not by id. `without_near_duplicates`: leave out queries that have a
    near-duplicate in the index. `metadata`: files with the queries' labels, as for
    `index_images`. `on_stage`: a progress callback. Raises `QueryError` if no query has a label,
    or nothing is relevant.
    """
    names = with_pairs(measures)
    if sample is not None and source.count is not None and sample >= source.count:
        sample = None  # all queries are used, so leave-one-out is possible
    options = EvaluationOptions(protocol, sample, replace(EXACT, expand=expand), bits, shuffle)
    _require_possible(searcher.index, names, options)
    seconds: dict[str, float] = {}
    queries, absent = _described(searcher, source, options, metadata, seconds, on_stage)
    left_out = None
    if without_near_duplicates:
        from cbir.evaluation.near_duplicates import leave_out  # loads OpenCV

        on_compared = partial(on_stage, "comparing pictures")
        with _timed(seconds, "near_duplicates"):
            queries, left_out = leave_out(searcher.index, queries, on_compared)
    values, matches = _measured(searcher, queries, names, options, seconds, on_stage)
    coded = None
    if bits is not None:
        on_coded = partial(on_stage, "binary codes")
        coded = hamming(searcher, queries, names, bits, options, on_coded)
    trained = tuple(card.training_prefix for card in cards_of(searcher.descriptor))
    return Evaluation(
        source=_as_typed(source),
        n_queries=len(queries.ids),
        n_indexed=searcher.index.count(),
        descriptor=searcher.index.spec.short,
        options=options,
        values=values,
        hamming=coded,
        accuracy=accuracies(searcher, queries) if card_of(searcher.descriptor) else None,
        trained_on=searcher.index.spec.trained_on,
        training_images_indexed=any(i.startswith(trained) for i in searcher.index.ids()),
        near_duplicates=left_out,
        absent_labels=absent,
        overlap=overlap_of(searcher.index, queries, matches),
        failures=queries.failures,
        seconds=seconds,
        queries=queries,
        matches=matches,
    )


def _require_possible(index: Index, names: Sequence[str], options: EvaluationOptions) -> None:
    """Raise `CbirError` for impossible options, before anything is described."""
    require_class_measures(names)
    if options.bits is not None:
        require_bits(options.bits, index.spec.dim)
    one_vector = options.bits is not None or options.shuffle is not None
    if options.protocol != "unseen" and one_vector:
        require_whole_images(index)
    if options.protocol == "unseen" and options.sample is not None:
        raise QueryError(NOT_FOR_A_SAMPLE, "use all queries, or the usual protocol")


def _described(
    searcher: Searcher,
    source: ImageSource,
    options: EvaluationOptions,
    metadata: Path | Sequence[Path] | None,
    seconds: dict[str, float],
    on_stage: OnStage,
) -> tuple[Queries, list[str]]:
    """The labelled queries, and those of their labels that no indexed image has."""
    told = read_metadata_files(metadata)
    require_labels_in(searcher, source, told)
    with _timed(seconds, "describe"):
        on_described = partial(on_stage, "describing")
        queries = describe_queries(searcher, source, options.sample, on_described, told)
    queries = labelled(source, queries)
    if options.protocol == "unseen":
        return queries, []
    return queries, require_relevant(searcher.index, source, queries.labels)


def _measured(
    searcher: Searcher,
    queries: Queries,
    names: Sequence[str],
    options: EvaluationOptions,
    seconds: dict[str, float],
    on_stage: OnStage,
) -> tuple[dict[OneProtocol, dict[str, NDArray[np.float64]]], list[Matches]]:
    """The values of every query under each protocol, and the first hits under the main one."""
    main, *others = options.protocols(len(queries.ids))
    on_measured = partial(on_stage, "measuring")
    on_stage("searching", 0, len(queries.ids))
    k = kept(names, searcher.index.count())
    trial: Trial | None = None
    with _timed(seconds, "search"):
        if main == "unseen":
            trial = unseen_trial(queries, options)
        elif options.shuffle is not None:
            trial = usual_trial(searcher, queries, options)
        matches = answers(trial, k) if trial else rank(searcher, queries, k, options.search)
    with _timed(seconds, "measure"):
        if trial:
            found = trial_measures(trial, names, on_measured)
        else:
            found = ranked_measures(searcher, queries, matches, names, options, on_measured)
    values = {main: found}
    if others:
        on_stage("leave-one-out", 0, len(queries.ids))
        among_each_other = unseen_trial(queries, options)
        on_unseen = partial(on_stage, "leave-one-out")
        values["unseen"] = trial_measures(among_each_other, names, on_unseen)
    return values, matches


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - started, 3)


def _as_typed(source: ImageSource) -> str:
    """The source as a user types it: `cifar10:test`, a folder, an archive, one file."""
    if source.scope.endswith("/"):
        return f"{source.uri}:{source.scope[:-1]}"
    return f"{source.uri}/{source.scope}" if source.scope else source.uri
