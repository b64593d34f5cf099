"""Labelled queries -> measures, under the protocols that are asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cbir.descriptors.models import card_of
from cbir.errors import QueryError
from cbir.evaluation.accuracy import accuracies
from cbir.evaluation.hamming import SEED, hamming, require_bits
from cbir.evaluation.overlap import overlap_of
from cbir.evaluation.protocols import (
    Protocol,
    rank,
    ranked_measures,
    require_whole_images,
    unseen_trial,
    usual_trial,
)
from cbir.evaluation.queries import (
    describe_queries,
    labelled,
    require_labels_in,
    require_relevant,
)
from cbir.evaluation.rankings import answers, kept, trial_measures
from cbir.evaluation.result import Evaluation
from cbir.images.items import ImageSource
from cbir.index.base import Index
from cbir.ingest.metadata import read_metadata
from cbir.measures.by_class import require_class_measures
from cbir.measures.names import DEFAULT_MEASURES, with_pairs
from cbir.search.searcher import Searcher
from cbir.types import OnStage

if TYPE_CHECKING:
    pass


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
    metadata: Path | None = None,
    on_stage: OnStage = lambda _stage, _done, _total: None,
) -> Evaluation:
    """Search every image of `source` in the index, relevant = same label, and measure the answers.

    `measures` in ir_measures notation; AP@k and nAP@k always come together. Search is exact.
    `protocol`: "usual" (against the index), "unseen" (among each other) or both. `bits`: also by
    binary codes of that length. `shuffle`: equal scores are ordered by this seed, not by id.
    `without_near_duplicates`: queries that are nearly the same as an indexed picture are left out.
    `metadata`: a file as `index_images` takes it, for the queries' labels. `on_stage` is told what
    is being done. Raises `QueryError` when queries have no labels.
    """
    names = with_pairs(measures)
    if sample is not None and source.count is not None and sample >= source.count:
        sample = None  # all of them are asked, and can be an unseen index
    _require_possible(searcher.index, names, protocol, sample, expand, bits, shuffle)
    told = read_metadata(metadata) if metadata else None
    require_labels_in(searcher, source, told)
    started = time.perf_counter()
    on_described = partial(on_stage, "describing")
    queries = describe_queries(searcher, source, sample, on_described, told)
    queries = labelled(source, queries)
    absent = []
    if protocol != "unseen":
        absent = require_relevant(searcher.index, source, queries.labels)
    described = time.perf_counter()
    left_out = None
    if without_near_duplicates:
        from cbir.evaluation.near_duplicates import leave_out  # loads OpenCV

        queries, left_out = leave_out(
            searcher.index, queries, partial(on_stage, "comparing pictures")
        )
    compared = time.perf_counter()
    on_stage("searching", 0, len(queries.ids))
    k = kept(names, searcher.index.count())
    trial = None
    if protocol == "unseen":
        trial = unseen_trial(queries, expand, shuffle)
    elif shuffle is not None:
        trial = usual_trial(searcher, queries, expand, shuffle)
    matches = answers(trial, k) if trial else rank(searcher, queries, k, expand)
    searched = time.perf_counter()
    on_measured = partial(on_stage, "measuring")
    if trial:
        per_query = trial_measures(trial, names, on_measured)
    else:
        per_query = ranked_measures(searcher, queries, matches, names, expand, on_measured)
    measured = time.perf_counter()
    unseen = per_query if protocol == "unseen" else None
    if protocol == "both" and sample is None and len(queries.ids) > 1:
        on_stage("unseen index", 0, len(queries.ids))
        among_each_other = unseen_trial(queries, expand, shuffle)
        unseen = trial_measures(among_each_other, names, partial(on_stage, "unseen index"))
    coded = None
    if bits is not None:
        seed = SEED if shuffle is None else shuffle
        only: Protocol = "usual" if unseen is None else protocol
        coded = hamming(
            searcher,
            queries,
            names,
            bits,
            seed=seed,
            expand=expand,
            protocol=only,
            on_done=partial(on_stage, "binary codes"),
        )
    card = card_of(searcher.descriptor)
    return Evaluation(
        source=_as_typed(source),
        n_queries=len(queries.ids),
        n_indexed=searcher.index.count(),
        descriptor=searcher.index.spec.short,
        protocol=protocol,
        measures=_means(per_query),
        per_query=per_query,
        unseen_index=None if unseen is None else _means(unseen),
        unseen_per_query=unseen,
        hamming=coded,
        accuracy=accuracies(searcher, queries) if card else None,
        trained_on=searcher.index.spec.trained_on,
        training_images_indexed=card is not None
        and any(i.startswith(card.training_prefix) for i in searcher.index.ids()),
        sample=sample,
        expand=expand,
        shuffle=shuffle,
        near_duplicates=left_out,
        absent_labels=absent,
        overlap=overlap_of(searcher.index, queries, matches),
        failures=queries.failures,
        seconds={
            "describe": round(described - started, 3),
            **({} if left_out is None else {"near_duplicates": round(compared - described, 3)}),
            "search": round(searched - compared, 3),
            "measure": round(measured - searched, 3),
        },
        queries=queries,
        matches=matches,
    )


def _means(per_query: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in per_query.items()}


def _as_typed(source: ImageSource) -> str:
    """`cifar10:test`, a folder, an archive, one file of a folder."""
    if source.scope.endswith("/"):
        return f"{source.uri}:{source.scope[:-1]}"
    return f"{source.uri}/{source.scope}" if source.scope else source.uri


def _require_possible(
    index: Index,
    names: Sequence[str],
    protocol: Protocol,
    sample: int | None,
    expand: int,
    bits: int | None,
    shuffle: int | None,
) -> None:
    """Raise `CbirError` for what cannot be measured, before anything is described."""
    require_class_measures(names)
    if bits is not None:
        require_bits(index, bits)
    if protocol != "unseen" and (bits is not None or shuffle is not None):
        require_whole_images(index)
    if expand < 0:
        raise QueryError(f"expand is {expand}", "choose 0 or more")
    if protocol == "unseen" and sample is not None:
        raise QueryError(
            "a sample has no unseen index: too few images are relevant to a query",
            "leave the sample out, or use the usual protocol",
        )
