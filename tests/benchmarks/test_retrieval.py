"""Searches in arrays against a plain computation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.retrieval import finds_original, leave_one_out, usual
from cbir.descriptors.fusion import unit_rows


def vectors(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    rows = random.normal(size=(count, 4)) + np.eye(4)[labels]
    return unit_rows(rows.astype(np.float32)), labels


def average_precision(found: np.ndarray, depth: int, relevant: int) -> float:
    found = found[:depth]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float((precision * found).sum() / relevant)


@pytest.mark.parametrize("alone", [True, False])
def test_measures_are_those_of_a_plain_search(alone: bool) -> None:
    indexed = vectors(60, 0)
    queries = indexed if alone else vectors(7, 1)
    names = ["nAP@10", "P@10", "AP@12"]
    got = leave_one_out(indexed, names) if alone else usual(indexed, queries, names)
    scores = queries[0].astype(np.float64) @ indexed[0].T.astype(np.float64)
    if alone:
        np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1)
    for number, label in enumerate(queries[1]):
        found = (indexed[1][order[number]] == label).astype(float)
        relevant = int((indexed[1] == label).sum()) - alone
        assert got["nAP@10"][number] == pytest.approx(
            average_precision(found, 10, min(10, relevant))
        )
        assert got["P@10"][number] == pytest.approx(found[:10].mean())
        assert got["AP@12"][number] == pytest.approx(average_precision(found, 12, relevant))


def test_only_the_first_hit_finds_the_original() -> None:
    indexed = unit_rows(np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32))
    copies = unit_rows(np.array([[9, 1], [2, 1], [2, 1]], dtype=np.float32))
    assert finds_original(indexed, copies, np.array([0, 0, 2])).tolist() == [1.0, 0.0, 1.0]
