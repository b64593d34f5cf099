"""Our measures against trec_eval's own test files.

The files (`qrels.test`, `results.test` and `out.test.aq`, the answer of `trec_eval -m all_trec -q`)
come with trec_eval, from the National Institute of Standards and Technology (NIST), which is
acknowledged as their source: https://github.com/usnistgov/trec_eval.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cbir.measures.by_class import PADDING, class_measures
from cbir.measures.trec import read_qrels, read_run
from cbir.measures.trec_eval import evaluate_run

CUTOFFS = (5, 10, 15, 20, 30, 100, 200, 500, 1000)
NAMES = {
    **{f"AP@{k}": f"map_cut_{k}" for k in CUTOFFS},
    **{f"P@{k}": f"P_{k}" for k in CUTOFFS},
    **{f"R@{k}": f"recall_{k}" for k in CUTOFFS},
    **{f"nDCG@{k}": f"ndcg_cut_{k}" for k in CUTOFFS},
    **{f"Success@{k}": f"success_{k}" for k in (1, 5, 10)},
    "AP": "map",
    "RR": "recip_rank",
    "nDCG": "ndcg",
    "Rprec": "Rprec",
    "Bpref": "bpref",
    "infAP": "infAP",
    "SetP": "set_P",
    "SetR": "set_recall",
    "SetF": "set_F",
    "SetAP": "set_map",
}


@pytest.fixture(scope="module")
def folder() -> Path:
    path = Path(os.environ.get("CBIR_DATA", "")) / "trec_eval"
    if "CBIR_DATA" not in os.environ or not path.is_dir():
        reason = "CBIR_DATA does not name a folder that holds trec_eval's test files (trec_eval/)"
        if os.environ.get("CBIR_TEST_STRICT") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[tuple[str, str], str]:
    """(measure, query or "all") -> the value as trec_eval printed it."""
    rows = (line.split() for line in (folder / "out.test.aq").read_text().splitlines())
    return {(row[0], row[1]): row[2] for row in rows if len(row) == 3}


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_what_trec_eval_prints(
    folder: Path, answers: dict[tuple[str, str], str], name: str
) -> None:
    qrels, run = read_qrels(folder / "qrels.test"), read_run(folder / "results.test")
    evaluation = evaluate_run(qrels, run, [name])
    ours = {**evaluation.per_query[name], "all": evaluation.means[name]}
    assert {query: f"{value:.4f}" for query, value in ours.items()} == {
        query: value for (measure, query), value in answers.items() if measure == NAMES[name]
    }
    assert evaluation.missing == evaluation.unjudged == []


def test_the_measures_that_trec_eval_lacks_follow_from_its_answers(
    folder: Path, answers: dict[tuple[str, str], str]
) -> None:
    qrels, run = read_qrels(folder / "qrels.test"), read_run(folder / "results.test")
    per_query = evaluate_run(qrels, run, ["nAP@100", "RR@1", "RR@5", "RR@10"]).per_query
    for query in qrels:
        relevant = int(answers["num_rel", query])
        factor = relevant / min(100, relevant)
        expected = float(answers["map_cut_100", query]) * factor
        assert per_query["nAP@100"][query] == pytest.approx(expected, abs=5e-5 * factor)
        first = round(1 / float(answers["recip_rank", query]))
        for k in (1, 5, 10):
            assert per_query[f"RR@{k}"][query] == (1 / first if first <= k else 0)


def test_class_measures_are_what_trec_eval_prints(
    folder: Path, answers: dict[tuple[str, str], str]
) -> None:
    qrels, run = read_qrels(folder / "qrels.test"), read_run(folder / "results.test")
    names = [name for name in NAMES if name not in ("Bpref", "infAP")]
    ranked = np.full((len(qrels), 1000), PADDING)
    for row, (query, judged) in enumerate(qrels.items()):
        # Label 1 is relevance; a document that was not judged has another label than the query.
        labels = [judged.get(document, 0) for document, _ in run[query]]
        ranked[row, : len(labels)] = labels
    relevant = np.array([sum(judged.values()) for judged in qrels.values()])
    ours = class_measures(ranked, np.ones(len(qrels), dtype=np.int64), relevant, names)
    for name, values in ours.items():
        assert [f"{value:.4f}" for value in values] == [answers[NAMES[name], q] for q in qrels]
        assert f"{values.mean():.4f}" == answers[NAMES[name], "all"]
