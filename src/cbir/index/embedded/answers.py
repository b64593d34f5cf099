"""Answers of a view: the best of the cached and of the newer records, with ids and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cbir.index.base import Matches
from cbir.index.embedded.block import Block
from cbir.index.embedded.view import Target, View
from cbir.index.exact import Top, nearest
from cbir.types import Box, Vectors


def answer(
    view: View,
    targets: tuple[Target, Target],
    queries: Vectors,
    k: int,
    exclude: Sequence[str | None] | None,
) -> list[Matches]:
    """The k best records for each row of `queries`, float32 (q, dim), in the defined order."""
    base = _search(view.base, targets[0], queries, k, exclude)
    newer = _search(view.newer, targets[1], queries, k, exclude)
    top = _merged(view, base, newer, k) if newer.scores.shape[1] else base
    return _matches(view, top)


def _search(
    block: Block,
    target: Target,
    queries: Vectors,
    k: int,
    exclude: Sequence[str | None] | None,
) -> Top:
    """The best of one target, with the record and row numbers of its block."""
    excluded = None if exclude is None else _numbers(block, target, exclude)
    top = nearest(target.space, queries, k, target.hidden, excluded)
    if target.numbers is None or not len(target.numbers):
        return top
    # Rows move with their record: what a row is counted from is where the record starts.
    part = top.rows - target.space.starts[top.records]
    records = target.numbers[top.records]
    return Top(top.scores, records, block.starts[records] + part)


def _numbers(block: Block, target: Target, ids: Sequence[str | None]) -> NDArray[np.int64]:
    """The number in the target of each id, -1 for one that is not in it."""
    found = np.array(
        [-1 if wanted is None else block.ids.find(wanted) for wanted in ids], dtype=np.int64
    )
    if target.numbers is None:
        return found
    if not len(target.numbers):
        return np.full(len(ids), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(target.numbers, found), len(target.numbers) - 1)
    return np.where(target.numbers[at] == found, at, -1)


def _merged(view: View, base: Top, newer: Top, k: int) -> Top:
    """Both answers in one; newer records and rows are numbered on after those of the base."""
    scores = np.concatenate((base.scores, newer.scores), axis=1)
    records = np.concatenate((base.records, newer.records + len(view.base)), axis=1)
    rows = np.concatenate((base.rows, newer.rows + len(view.base.matrix)), axis=1)
    order = np.lexsort((view.order[records], -scores), axis=-1)[:, :k]
    return Top(scores, records, rows).ordered(order)


def _matches(view: View, top: Top) -> list[Matches]:
    there = top.scores > -np.inf
    scores, records, rows = top.scores[there], top.records[there], top.rows[there]
    numbers, places = np.unique(records, return_inverse=True)
    ids = np.array([_id(view, number) for number in numbers.tolist()], dtype=object)[
        places
    ].tolist()
    boxes: list[Box | None] = [None] * len(ids)
    if len(view.base.boxes) or len(view.newer.boxes):
        boxes = [_box(view, *at) for at in zip(records.tolist(), rows.tolist(), strict=True)]
    ends = np.cumsum(np.count_nonzero(there, axis=1)).tolist()
    return [
        Matches(ids[start:end], scores[start:end].copy(), boxes[start:end])
        for start, end in pairwise([0, *ends])
    ]


def _id(view: View, number: int) -> str:
    base = len(view.base)
    return view.base.ids[number] if number < base else view.newer.ids[number - base]


def _box(view: View, number: int, row: int) -> Box | None:
    base = len(view.base)
    if number < base:
        return view.base.box(number, row)
    return view.newer.box(number - base, row - len(view.base.matrix))
