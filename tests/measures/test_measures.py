"""Measures: their names, and class relevance against trec_eval itself."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.errors import CbirError, MissingExtraError
from cbir.measures.by_class import (
    PADDING,
    UNLABELLED,
    class_measures,
    class_names,
    class_qrels,
    encode_labels,
    relevant_counts,
    require_class_measures,
)
from cbir.measures.names import DEFAULT_MEASURES, depth, parse_measures, with_pairs
from cbir.measures.trec import write_qrels
from cbir.measures.trec_eval import evaluate_run

TREC_NAMES = {
    "AP": "map",
    "RR": "recip_rank",
    "AP@1": "map_cut_1",
    "AP@3": "map_cut_3",
    "AP@50": "map_cut_50",
    "P@1": "P_1",
    "P@3": "P_3",
    "P@50": "P_50",
    "R@3": "recall_3",
    "R@50": "recall_50",
    "nDCG": "ndcg",
    "nDCG@1": "ndcg_cut_1",
    "nDCG@3": "ndcg_cut_3",
    "nDCG@50": "ndcg_cut_50",
    "Rprec": "Rprec",
    "Success@1": "success_1",
    "Success@3": "success_3",
    "Success@50": "success_50",
    "SetP": "set_P",
    "SetR": "set_recall",
    "SetF": "set_F",
    "SetAP": "set_map",
}
MANY = 5_000
labels = st.sampled_from(["cat", "dog", "ship", None])


@st.composite
def experiments(draw: st.DrawFn) -> tuple[dict[str, str | None], dict[str, str | None], Any]:
    """Indexed ids with labels, query ids with labels (some of them indexed), ranked ids."""
    indexed = {f"d{n}": label for n, label in enumerate(draw(st.lists(labels, min_size=1)))}
    queries = {f"q{n}": label for n, label in enumerate(draw(st.lists(labels, max_size=3)))}
    queries |= {f"d{n}": draw(labels) for n in range(len(indexed)) if n < draw(st.integers(0, 2))}
    queries |= {"q": draw(labels)}
    ranked = {}
    for query in queries:
        others = [document for document in indexed if document != query]
        length = draw(st.integers(0, len(others)))
        ranked[query] = draw(st.permutations(others))[:length]
    return indexed, queries, ranked


def measured(
    indexed: dict[str, str | None],
    queries: dict[str, str | None],
    ranked: dict[str, list[str]],
    names: list[str],
) -> dict[str, dict[str, float]]:
    """Query -> measure -> value, by `class_measures`."""
    classes = class_names(indexed.values(), queries.values())
    index_codes = encode_labels(list(indexed.values()), classes)
    query_codes = encode_labels(list(queries.values()), classes)
    codes = dict(zip(indexed, index_codes, strict=True))
    width = max(len(documents) for documents in ranked.values())
    rankings = np.full((len(queries), width), PADDING)
    for row, query in enumerate(queries):
        rankings[row, : len(ranked[query])] = [codes[document] for document in ranked[query]]
    counts_itself = np.array([q in indexed and indexed[q] == queries[q] for q in queries])
    relevant = relevant_counts(index_codes, query_codes, counts_itself)
    values = class_measures(rankings, query_codes, relevant, names)
    return {q: {name: values[name][row] for name in names} for row, q in enumerate(queries)}


@settings(deadline=None)
@given(experiments())
def test_class_measures_are_those_of_trec_eval(experiment: Any) -> None:
    check_class_measures(experiment)


@pytest.mark.slow
@settings(deadline=None, max_examples=MANY)
@given(experiments())
def test_class_measures_are_those_of_trec_eval_thousands_of_times(experiment: Any) -> None:
    check_class_measures(experiment)


def check_class_measures(experiment: Any) -> None:
    import pytrec_eval

    indexed, queries, ranked = experiment
    ours = measured(indexed, queries, ranked, [*TREC_NAMES, "nAP@3", "nAP@50", "RR@2"])
    shallow = ["nDCG@3", "AP@3", "R@3"]  # alone, so that only the first ranks are read
    for query, values in measured(indexed, queries, ranked, shallow).items():
        assert values == {name: ours[query][name] for name in shallow}
    qrels: dict[str, dict[str, int]] = {}
    for query, document, relevance in class_qrels(queries.items(), indexed):
        qrels.setdefault(query, {})[document] = relevance
    assert set(qrels) == {query for query, label in queries.items() if label is not None}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(TREC_NAMES.values()))
    run = {query: {d: -float(n) for n, d in enumerate(ids)} for query, ids in ranked.items()}
    theirs = evaluator.evaluate(run)
    for query, values in ours.items():
        expected = theirs.get(query, dict.fromkeys(TREC_NAMES.values(), 0.0))
        for name, trec_name in TREC_NAMES.items():
            assert values[name] == pytest.approx(expected[trec_name], abs=1e-9), name
        relevant = sum(qrels.get(query, {}).values())
        for k in (3, 50):
            scale = relevant / min(k, relevant) if relevant else 0.0
            assert values[f"nAP@{k}"] == pytest.approx(values[f"AP@{k}"] * scale, abs=1e-12)
        assert values["RR@2"] == (values["RR"] if values["RR"] >= 0.5 else 0.0)


judgements = st.dictionaries(
    st.sampled_from("pqrst"),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-2, 3), min_size=1),
    min_size=1,
)
# Few scores, two of which only a float64 tells apart; queries and documents without judgements.
answers = st.dictionaries(
    st.sampled_from("pqrstuv"),
    st.dictionaries(
        st.sampled_from("abcdefghijk"), st.sampled_from([0.5, 0.5 + 1e-9, 0.25, -0.125])
    ),
)


@settings(deadline=None)
@given(judgements, answers)
def test_a_run_has_the_measures_of_trec_eval(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]
) -> None:
    check_run(qrels, run)


@pytest.mark.slow
@settings(deadline=None, max_examples=MANY)
@given(judgements, answers)
def test_a_run_has_the_measures_of_trec_eval_thousands_of_times(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]
) -> None:
    check_run(qrels, run)


def check_run(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> None:
    import pytrec_eval

    names = [*TREC_NAMES, "AP(rel=2)@3", "P(rel=3)@1", "nAP@3", "nAP(rel=2)@3", "RR@2"]
    evaluation = evaluate_run(qrels, {q: list(ranked.items()) for q, ranked in run.items()}, names)
    assert set(evaluation.missing) == {query for query in qrels if not run.get(query)}
    assert set(evaluation.unjudged) == set(run) - set(qrels)
    # trec_eval itself is asked only what it can answer: queries with a relevant document.
    for rel, trec_names in ((1, TREC_NAMES), (2, {"AP(rel=2)@3": "map_cut_3"})):
        known = {q: judged for q, judged in qrels.items() if max(judged.values()) >= rel}
        evaluator = pytrec_eval.RelevanceEvaluator(known, set(trec_names.values()), rel)
        theirs = evaluator.evaluate({q: ranked for q, ranked in run.items() if q in known})
        for name, trec_name in trec_names.items():
            expected = {query: theirs.get(query, {}).get(trec_name, 0.0) for query in qrels}
            assert evaluation.per_query[name] == pytest.approx(expected, abs=1e-9)
            mean = sum(expected.values()) / len(qrels)
            assert evaluation.means[name] == pytest.approx(mean, abs=1e-9)
    for query, judged in qrels.items():
        for rel, name in ((1, "AP@3"), (2, "AP(rel=2)@3")):
            relevant = sum(value >= rel for value in judged.values())
            expected_nap = evaluation.per_query[name][query] * relevant / min(3, relevant or 1)
            assert evaluation.per_query[f"n{name}"][query] == pytest.approx(expected_nap)
        reciprocal = evaluation.per_query["RR"][query]
        assert evaluation.per_query["RR@2"][query] == (reciprocal if reciprocal >= 0.5 else 0.0)


def test_nap_can_reach_one_where_ap_cannot() -> None:
    ranked = np.zeros((1, 100), dtype=np.int64)
    values = class_measures(ranked, np.array([0]), np.array([5000]), ["AP@100", "nAP@100"])
    assert values["AP@100"][0] == pytest.approx(0.02)
    assert values["nAP@100"][0] == pytest.approx(1.0)


def test_labels_are_encoded_as_places_among_the_sorted_classes() -> None:
    classes = class_names(["dog", None, "cat"], iter(["dog", "ant"]))
    assert classes == ("ant", "cat", "dog")
    codes = encode_labels(["dog", None, "ant"], classes)
    assert (codes.tolist(), codes.dtype) == ([2, UNLABELLED, 0], np.int32)
    assert class_names([None]) == () and encode_labels([], ()).tolist() == []


def test_what_has_no_label_is_relevant_to_nothing() -> None:
    ranked = np.array([[UNLABELLED, UNLABELLED], [UNLABELLED, 0]])
    queries = np.array([UNLABELLED, 0])
    relevant = relevant_counts(np.array([UNLABELLED, 0, UNLABELLED]), queries, np.zeros(2, bool))
    assert relevant.tolist() == [0, 1]
    values = class_measures(ranked, queries, relevant, ["AP@2", "nAP@2", "P@2", "R@2", "RR"])
    assert {name: value.tolist() for name, value in values.items()} == {
        "AP@2": [0, 0.5],
        "nAP@2": [0, 0.5],
        "P@2": [0, 0.5],
        "R@2": [0, 1],
        "RR": [0, 0.5],
    }


def test_many_queries_and_long_rankings_are_measured_in_parts() -> None:
    rng = np.random.default_rng(0)
    ranked = rng.integers(0, 10, (300, 20_000))
    queries, relevant = rng.integers(0, 10, 300), np.full(300, 5000)
    names = ["AP", "RR", "nDCG@20000", "P@20", "R@10000", "Success@20", "SetR", "Rprec", "SetP"]
    values = class_measures(ranked, queries, relevant, names)
    assert np.array_equal(values["Success@20"], values["P@20"] > 0)
    assert np.allclose(values["SetR"] * 5000, values["SetP"] * 20_000)
    for row in range(0, 300, 7):
        alone = class_measures(ranked[row : row + 1], queries[row : row + 1], relevant[:1], names)
        assert {name: value[row] for name, value in values.items()} == {
            name: value[0] for name, value in alone.items()
        }


def test_no_queries_and_empty_rankings_are_measured() -> None:
    none = np.zeros((0, 5), dtype=np.int64)
    empty = np.zeros(0, dtype=np.int64)
    assert class_measures(none, empty, empty, ["AP@5"])["AP@5"].shape == (0,)
    values = class_measures(
        np.zeros((2, 0), int), np.zeros(2, int), np.ones(2, int), DEFAULT_MEASURES
    )
    assert all(value.tolist() == [0, 0] for value in values.values())


def test_arrays_that_contradict_each_other_are_refused() -> None:
    ranked = np.zeros((2, 3), dtype=np.int64)
    with pytest.raises(CbirError, match="query 1 has 3 relevant images in its ranking but only 2"):
        class_measures(ranked, np.zeros(2, int), np.array([3, 2]), ["P@1"])
    with pytest.raises(CbirError, match=r"rankings of shape \(2, 3\) do not match"):
        class_measures(ranked, np.zeros(3, int), np.array([3, 3]), ["P@1"])


def test_qrels_leave_the_query_out_and_keep_a_query_without_relevant_images() -> None:
    indexed = {"a": "cat", "b": "cat", "c": "dog", "d": None}
    queries = [("a", "cat"), ("x", "dog"), ("c", "dog"), ("y", "ship"), ("z", None)]
    assert list(class_qrels(queries, indexed)) == [
        ("a", "b", 1),
        ("x", "c", 1),
        ("c", "c", 0),
        ("y", "y", 0),
    ]


def test_qrels_are_streamed_so_that_more_of_them_take_no_more_memory(tmp_path: Path) -> None:
    indexed = {f"photos/{n:04}": "cat" for n in range(1_000)}

    def peak(count: int) -> int:
        queries = ((f"query/{n:04}", "cat") for n in range(count))
        tracemalloc.start()
        try:
            written = write_qrels(tmp_path / "a.gz", class_qrels(queries, indexed))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert written == count * len(indexed)
        return most

    few, many = peak(20), peak(400)
    # 400,000 lines are 11 MB; what may grow are the queries' ids.
    assert many < few + 200 * 400


def test_large_qrels_are_judged_in_parts_with_the_same_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(3)
    documents = [f"d{number}" for number in range(60)]
    qrels = {
        f"q{n}": dict(zip(documents, random.integers(0, 3, 60).tolist(), strict=True))
        for n in range(20)
    }
    run = {
        f"q{n}": [(d, -float(rank)) for rank, d in enumerate(random.permutation(documents)[:30])]
        for n in range(1, 22)
    }
    names = ["AP@10", "nDCG@10", "Rprec(rel=2)"]
    whole = evaluate_run(qrels, run, names)
    monkeypatch.setattr("cbir.measures.trec_eval._JUDGEMENTS_AT_ONCE", 150)
    told: list[tuple[int, int | None]] = []
    assert evaluate_run(qrels, run, names, lambda *done: told.append(done)) == whole
    assert told == sorted(told) and len(told) > 10
    assert told[0][0] > 0 and told[-1] == (40, 40)  # 20 queries, two levels of relevance


def test_a_run_against_empty_qrels_is_refused() -> None:
    with pytest.raises(CbirError, match="the qrels contain no queries"):
        evaluate_run({}, {"q": [("d", 1.0)]}, ["P@1"])


def test_names_are_read_once_each_and_made_canonical() -> None:
    names = ["P@10", "RR", "AP(rel=1)@5", "AP@05", "nDCG@10", "nAP(rel=2)@5", "SetF"]
    measures = parse_measures([*names, "P@10"])
    assert [measure.name for measure in measures] == [
        *("P@10", "RR", "AP@5", "nDCG@10", "nAP(rel=2)@5", "SetF")
    ]
    assert [measure.cutoff for measure in measures] == [10, None, 5, 10, 5, None]
    assert [measure.rel for measure in measures] == [1, 1, 1, 1, 2, 1]


def test_ap_and_nap_are_never_alone_and_nap_leads() -> None:
    assert with_pairs(["AP@100", "P@1"]) == ("AP@100", "nAP@100", "P@1")
    assert with_pairs(["P@1", "nAP@100"]) == ("P@1", "nAP@100", "AP@100")
    assert with_pairs(["nAP@5", "AP@5", "AP"]) == ("nAP@5", "AP@5", "AP")
    assert with_pairs(["AP(rel=2)@5"]) == ("AP(rel=2)@5", "nAP(rel=2)@5")
    assert with_pairs(DEFAULT_MEASURES) == DEFAULT_MEASURES


def test_depth_is_the_deepest_cut_off_or_the_whole_ranking() -> None:
    assert depth(["P@10", "nAP@100", "nDCG@20"]) == 100
    assert depth(DEFAULT_MEASURES) == 100
    assert depth(["P@10", "RR"]) is None
    assert depth(["Rprec"]) is None
    assert depth([]) == 0


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ap@100", "did you mean 'AP@100'?"),
        ("map_cut_100", "did you mean 'AP@100'?"),
        ("MAP@100", "did you mean 'AP@100'?"),
        ("P_10", "did you mean 'P@10'?"),
        ("recall_100", "did you mean 'R@100'?"),
        ("ndcg10", "did you mean 'nDCG@10'?"),
        ("nDGC@5", "did you mean 'nDCG@5'?"),
        ("recip_rank", "did you mean 'RR'?"),
        ("precision", "did you mean 'P@10'?"),
        ("P", "write 'P@10'"),
        ("nAP", "write 'nAP@10'"),
        ("P@0", "write 'P@10'"),
        ("quality", "known measures: AP, nAP, P, R, RR, nDCG"),
        ("nope@5", "known measures: AP, nAP, P, R, RR, nDCG"),
        ("", "known measures: AP"),
        ("AP@", "did you mean 'AP'?"),
        ("AP@0", "a cut-off must be at least 1"),
        ("Rprec@5", "write 'Rprec'"),
        ("Bpref@5", "write 'Bpref'"),
        ("SetP@x", "did you mean 'SetP'?"),
        ("P@1234567890123", "known measures: AP, nAP"),
        ("AP(foo=2)", "did you mean 'AP'?"),
        ("nDCG(judged_only=True)@5", "only rel can"),
        ("AP(rel=0)@5", "rel must be between 1 and 1000"),
    ],
)
def test_a_wrong_name_is_one_line_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(CbirError) as error:
        parse_measures([name])
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ["ir_measures", "pytrec_eval"])
def test_class_measures_need_no_extra_and_others_name_theirs(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ranked, queries, relevant = np.zeros((1, 3), int), np.zeros(1, int), np.array([3])
    names = [*DEFAULT_MEASURES, *TREC_NAMES, "nAP@3", "RR@2"]
    assert set(class_measures(ranked, queries, relevant, names)) == set(names)
    with pytest.raises(MissingExtraError, match=r"nDCG\(rel=2\)@10 needs the 'evaluation' extra"):
        parse_measures(["nDCG(rel=2)@10"])
    with pytest.raises(MissingExtraError, match="evaluation"):
        evaluate_run({"q": {"d": 1}}, {"q": [("d", 1.0)]}, ["P@1"])
    with pytest.raises(CbirError, match=r"did you mean 'nDCG@10'\?"):
        parse_measures(["ndcg@10"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Bpref", "measure 'Bpref' is for incomplete judgements: by class, every image is judged"),
        ("infAP", "measure 'infAP' is for incomplete judgements: by class, every image is judged"),
        (
            "AP(rel=2)@5",
            "measure 'AP(rel=2)@5' is for graded judgements: by class, relevance is binary",
        ),
    ],
)
def test_measures_that_mean_nothing_by_class_are_refused(name: str, message: str) -> None:
    ranked, queries, relevant = np.zeros((1, 3), int), np.zeros(1, int), np.array([3])
    for refused in (
        lambda: require_class_measures(["P@1", name]),
        lambda: class_measures(ranked, queries, relevant, ["P@1", name]),
    ):
        with pytest.raises(CbirError) as error:
            refused()
        assert error.value.message == message
        assert error.value.hint == "evaluate a run file with --qrels, or omit the measure"


def test_measures_by_class_are_returned_as_they_were_read() -> None:
    assert require_class_measures(["P@1", "AP(rel=1)@5", "P@1"]) == parse_measures(["P@1", "AP@5"])
    with pytest.raises(CbirError, match="unknown measure 'map'"):
        require_class_measures(["map"])


def test_importing_the_measures_loads_no_evaluation_package() -> None:
    program = (
        "import sys, cbir.measures.by_class, cbir.measures.trec;"
        "print({'ir_measures', 'pytrec_eval'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
