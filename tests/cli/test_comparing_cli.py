"""`cbir evaluate` with several runs or indexes, and every query's values."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.measures.significance import compare_runs
from cbir.measures.trec import read_qrels, read_run, write_qrels, write_run
from cbir.measures.trec_eval import evaluate_run
from tests.cli.support_cli import call
from tests.descriptors.local.support_textures import write_textures
from tests.descriptors.support_photos import write_photos

NAMES = ("P@1", "P@5", "nAP@5")
ASKED = [word for name in NAMES for word in ("-m", name)]
CLASSES = ("cat", "dog", "fish")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with qrels of 60 queries and three runs, of which `lucky` is as good as `plain`."""
    folder = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(11)
    documents = [f"p/{n}" for n in range(40)]
    relevant = {
        f"photos/new%20{CLASSES[n % 3]}/{n:02}": set(random.choice(documents, 8, replace=False))
        for n in range(60)
    }
    write_qrels(
        folder / "q.qrels",
        ((query, document, 1) for query, of in relevant.items() for document in sorted(of)),
    )
    for name, knowledge, left_out in (("plain", 1.0, 0), ("lucky", 1.0, 0), ("good", 2.0, 2)):
        rankings = []
        for query, of in list(relevant.items())[left_out:]:
            scores = random.normal(size=40) + [knowledge * (d in of) for d in documents]
            order = np.argsort(-scores)
            rankings.append((query, [documents[o] for o in order], np.float32(scores[order])))
        write_run(folder / f"{name}.run", rankings, name)
    return folder


def per_query(files: Path, run: str) -> dict[str, dict[str, float]]:
    qrels = read_qrels(files / "q.qrels")
    return evaluate_run(qrels, read_run(files / run), NAMES).per_query


def judged(files: Path, *arguments: object) -> Any:
    return call("evaluate", "--qrels", files / "q.qrels", *arguments, *ASKED, "--json").json


def test_two_runs_are_compared_in_every_measure(files: Path) -> None:
    answer = judged(files, files / "plain.run", files / "good.run")
    assert [one["measure"] for one in answer["comparisons"]] == ["P@1", "P@5", "nAP@5", "AP@5"]
    one = answer["comparisons"][1]
    a, b = per_query(files, "plain.run")["P@5"], per_query(files, "good.run")["P@5"]
    assert list(a) == list(b)
    runs = [(name, {"P@5": np.array(list(of.values()))}) for name, of in (("a", a), ("b", b))]
    (expected,) = compare_runs(runs)
    assert {key: one[key] for key in ("a", "b", "n_queries", "wins", "ties", "losses")} == {
        "a": "plain.run",
        "b": "good.run",
        "n_queries": 60,
        "wins": expected.wins,
        "ties": expected.ties,
        "losses": expected.losses,
    }
    assert (one["p"], one["p_adjusted"]) == (expected.p, expected.p)
    assert one["interval"] == pytest.approx(list(expected.interval))
    assert one["difference"] == pytest.approx(one["mean_b"] - one["mean_a"])
    assert one["mean_b"] == pytest.approx(answer["runs"][1]["measures"]["P@5"])
    assert one["significant"] and one["in_words"].startswith("good.run is better than plain.run")
    assert one["classes"] == {}


def test_missing_queries_count_as_zero_in_comparisons_and_are_listed(files: Path) -> None:
    answer = judged(files, files / "good.run", files / "plain.run")
    first, second = read_qrels(files / "q.qrels").keys() - read_run(files / "good.run").keys()
    assert set(answer["runs"][0]["missing_queries"]) == {first, second}
    assert answer["runs"][1]["missing_queries"] == []
    assert answer["comparisons"][0]["n_queries"] == 60
    said = call("evaluate", "--qrels", files / "q.qrels", files / "good.run", files / "plain.run")
    listed = "photos/new%20cat/00, photos/new%20dog/01"
    assert f"good.run: 2 queries not answered, counted as 0 ({listed}).\n" in said.err


def test_three_runs_are_corrected_for_three_pairs(files: Path) -> None:
    answer = judged(files, *(files / f"{name}.run" for name in ("plain", "lucky", "good")))
    of_measure = [one for one in answer["comparisons"] if one["measure"] == "nAP@5"]
    assert [(one["a"], one["b"]) for one in of_measure] == [
        ("plain.run", "lucky.run"),
        ("plain.run", "good.run"),
        ("lucky.run", "good.run"),
    ]
    assert [one["significant"] for one in of_measure] == [False, True, True]
    assert "cannot be told apart" in of_measure[0]["in_words"]
    assert all(one["p_adjusted"] > one["p"] for one in of_measure[1:])
    assert min(one["p_adjusted"] / one["p"] for one in of_measure) >= 1


def test_tables_hold_the_figures_and_the_sentences(files: Path) -> None:
    runs = [files / "plain.run", files / "good.run"]
    asked = ["--qrels", files / "q.qrels", *runs, *ASKED, "--label-from-folder"]
    table = call("evaluate", *asked).out
    answer = call("evaluate", *asked, "--json").json
    for one in answer["comparisons"]:
        assert (one["in_words"] in table.splitlines()) == (one["measure"] == "nAP@5")
        (row,) = [
            line.split()
            for line in table.splitlines()
            if line.split()[:2] == [one["measure"], f"{one['difference']:+.4f}"]
        ]
        assert f"{one['p']:.4f}" in row and ("*" in row) == one["significant"]
    by_class = answer["comparisons"][-2]["classes"]  # of nAP@5
    assert list(by_class) == ["new cat", "new dog", "new fish"]
    for label, of in by_class.items():
        row = next(line for line in table.splitlines() if line.startswith(label))
        expected = ["20", f"{of['mean_a']:.4f}", f"{of['mean_b']:.4f}", f"{of['difference']:+.4f}"]
        assert row.removeprefix(label).split() == expected
    three = call("evaluate", *asked, files / "lucky.run").out
    assert "p corrected" in three and three.count(" in nAP@5") == 3 and " in P@1" not in three


def test_one_run_has_intervals_and_classes(files: Path) -> None:
    answer = judged(files, files / "plain.run", "--label-from-folder")
    for name, mean in answer["measures"].items():
        low, high = answer["intervals"][name]
        assert low < mean < high
    values = per_query(files, "plain.run")["P@5"]
    cats = [value for query, value in values.items() if "cat" in query]
    assert answer["classes"]["new cat"]["measures"]["P@5"] == pytest.approx(np.mean(cats))
    assert answer["classes"]["new cat"]["n_queries"] == 20
    table = call(
        "evaluate", "--qrels", files / "q.qrels", files / "plain.run", "--label-from-folder"
    )
    assert [line.split()[:3] for line in table.out.splitlines()[-3:]] == [
        ["new", name, "20"] for name in CLASSES
    ]
    assert "95% interval" in table.out


def test_queries_without_folders_have_no_classes(tmp_path: Path) -> None:
    write_qrels(tmp_path / "q", [("one", "d", 1)])
    write_run(tmp_path / "r", [("one", ["d"], np.ones(1, np.float32))], "t")
    answer = call("evaluate", "--qrels", tmp_path / "q", tmp_path / "r", "--label-from-folder")
    assert answer.error == (
        f"no query id of {tmp_path / 'q'} names a folder, so there are no classes",
        "omit --label-from-folder",
    )


def test_runs_of_the_same_name_are_called_by_their_places(files: Path, tmp_path: Path) -> None:
    other = tmp_path / "plain.run"
    other.write_bytes((files / "good.run").read_bytes())
    answer = judged(files, files / "plain.run", other)
    assert [one["name"] for one in answer["runs"]] == [str(files / "plain.run"), str(other)]


def test_every_querys_values_are_written(files: Path, tmp_path: Path) -> None:
    judged(files, files / "good.run", "--per-query", tmp_path / "one.csv")
    with (tmp_path / "one.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["query", "P@1", "P@5", "nAP@5", "AP@5"]
    expected = per_query(files, "good.run")
    assert [row["query"] for row in rows] == list(expected["P@5"])
    for name in NAMES:
        assert {row["query"]: float(row[name]) for row in rows} == expected[name]
    judged(files, files / "good.run", files / "plain.run", "--per-query", tmp_path / "two.csv")
    with (tmp_path / "two.csv").open(newline="") as file:
        both = list(csv.DictReader(file))
    assert list(both[0]) == ["run", "query", "P@1", "P@5", "nAP@5", "AP@5"]
    assert [row["run"] for row in both] == ["good.run"] * 60 + ["plain.run"] * 60
    assert [{**row, "run": None} for row in both[:60]] == [{**row, "run": None} for row in rows]
    nowhere = call(
        "evaluate", "--qrels", files / "q.qrels", files / "good.run",
        "--per-query", tmp_path / "no" / "x.csv",
    )  # fmt: skip
    assert nowhere.error[0].startswith(f"cannot write {tmp_path / 'no' / 'x.csv'}: ")


# --- indexes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Two indexes of the same photos and queries for them, which a folder's name misleads."""
    folder = tmp_path_factory.mktemp("indexes")
    photos = write_photos(folder / "photos", per_colour=4)
    queries = write_photos(folder / "more" / "photos", per_colour=3)
    (queries / "red" / "0.png").rename(queries / "blue" / "9.png")
    places = []
    for name, sources, descriptor in (
        ("a", [photos], "cifar10-cnn:embedding"),
        ("b", [photos, queries], "cifar10-cnn"),
    ):
        places.append(folder / f"{name}.cbir")
        made = call(
            "index", *sources, "--into", places[-1], "--descriptor", descriptor,
            "--label-from-folder",
        )  # fmt: skip
        assert made.code == 0, made.err
    return places, queries


def asked_of(places: list[Path], queries: Path, *options: object) -> list[object]:
    named = [word for place in places for word in ("--in", place)]
    return ["evaluate", *named, "--queries", queries, "--label-from-folder", *ASKED, *options]


def test_indexes_are_asked_the_same_and_compared(
    indexes: tuple[list[Path], Path], tmp_path: Path
) -> None:
    places, queries = indexes
    table = tmp_path / "values.csv"
    answer = call(*asked_of(places, queries, "--json", "--per-query", table)).json
    assert [one["name"] for one in answer["runs"]] == ["a.cbir", "b.cbir"]
    alone = [call(*asked_of([place], queries, "--json")).json for place in places]
    for one, of_index in zip(answer["runs"], alone, strict=True):
        assert {**one, "seconds": 0} == {"name": one["name"], **of_index, "seconds": 0}
        for name, (low, high) in of_index["intervals"].items():
            assert low <= of_index["measures"][name] <= high
    # Their ids differ: one index knows the queries' folder by another name than their own.
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["query"].split("/")[0] == "photos-2"
    assert len(rows) == 36 and {row["run"] for row in rows} == {"a.cbir", "b.cbir"}
    assert [row["protocol"] for row in rows] == (["usual"] * 9 + ["unseen"] * 9) * 2
    for number, (protocol, key) in enumerate((("usual", "measures"), ("unseen", "unseen_index"))):
        some = rows[9 * number : 9 * number + 9]
        mean = sum(float(row["nAP@5"]) for row in some) / 9
        assert mean == pytest.approx(answer["runs"][0][key]["nAP@5"])
        found = [one for one in answer["comparisons"] if one["protocol"] == protocol]
        assert [one["measure"] for one in found] == list(answer["runs"][0][key])
        for one in found:
            assert one["mean_a"] == pytest.approx(alone[0][key][one["measure"]])
            assert one["mean_b"] == pytest.approx(alone[1][key][one["measure"]])
            assert ("(leave-one-out)" in one["in_words"]) == (protocol == "unseen")
    for one in answer["comparisons"]:
        assert one["n_queries"] == 9
        assert {label: of["n_queries"] for label, of in one["classes"].items()} == {
            "blue": 4,
            "green": 3,
            "red": 2,
        }


def test_indexes_are_shown_beside_each_other(indexes: tuple[list[Path], Path]) -> None:
    places, queries = indexes
    shown = call(*asked_of(places, queries))
    assert shown.code == 0
    assert shown.err.splitlines() == [
        "9 of 9 queries find their own file under another id, which is an easy match.",
        "b.cbir: 9 of 9 queries are indexed, each left out of its own results.",
        "The indexes hold different numbers of images, which by itself changes figures.",
    ]
    answer = call(*asked_of(places, queries, "--json")).json
    lines = shown.out.splitlines()
    header = ["measure", "a.cbir", "b.cbir"]
    for title in ("All measures, usual protocol", "All measures, leave-one-out"):
        assert lines[lines.index(title) + 1].split() == header
    means = [f"{one['measures']['nAP@5']:.4f}" for one in answer["runs"]]
    assert ["nAP@5", *means] in [line.split() for line in lines]
    for one in answer["comparisons"]:
        assert (one["in_words"] in lines) == (one["measure"] == "nAP@5")
    for name, of in answer["comparisons"][-1]["classes"].items():
        assert [name, str(of["n_queries"])] in [line.split()[:2] for line in lines]


def test_all_that_was_asked_for_is_shown_of_several_indexes(
    indexes: tuple[list[Path], Path],
) -> None:
    places, queries = indexes
    asked = ("--hamming", 8, "--shuffle-ids", 3)
    shown = call(*asked_of(places, queries, *asked))
    answer = call(*asked_of(places, queries, *asked, "--json")).json
    lines = [line.split() for line in shown.out.splitlines()]
    for key in ("measures", "unseen_index"):
        means = [f"{one['hamming'][key]['AP']:.4f}" for one in answer["runs"]]
        assert ["AP", *means] in lines
    assert "Ties are broken at random by seed 3, not by id." in shown.err


def test_near_duplicates_are_counted_for_each_of_several_indexes(
    indexes: tuple[list[Path], Path], tmp_path: Path
) -> None:
    places, _ = indexes
    others = write_textures(tmp_path / "others" / "red", 9)
    shutil.copy(places[0].parent / "photos" / "red" / "0.png", others / "copy.png")
    shutil.copytree(places[0], tmp_path / "z.cbir")
    two = [places[0], tmp_path / "z.cbir"]
    shown = call(*asked_of(two, others.parent, "--without-near-duplicates"))
    assert shown.code == 0, shown.err
    told = "Left out: 1 of 10 queries (10.00%) with a near-duplicate in the index."
    assert shown.err.splitlines() == [told]  # true of both


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--sample", 5), ("--expand", 3), ("--protocol", "unseen"), ("--hamming", 8),
        ("--shuffle-ids", 3), ("--without-near-duplicates", None), ("--descriptor", "classic"),
        ("--queries", "x"), ("--in", "x.cbir"),
    ],
)  # fmt: skip
def test_what_means_nothing_for_run_files_is_refused(
    files: Path, option: str, value: object
) -> None:
    given = [option] if value is None else [option, value]
    answer = call("evaluate", "--qrels", files / "q.qrels", files / "good.run", *given)
    assert answer.code == 2
    assert f"{option} cannot be used with --qrels" in answer.err


@pytest.mark.parametrize("option", ["-m", "--expand", "--hamming", "--report", "--per-query"])
def test_what_means_nothing_for_recall_is_refused(
    indexes: tuple[list[Path], Path], option: str
) -> None:
    (place, _), queries = indexes
    asked = ("evaluate", "--in", place, "--queries", queries, "--recall", 5)
    answer = call(*asked, option, "P@1" if option == "-m" else 3)
    assert answer.code == 2
    assert "cannot be used with --recall" in answer.err


def test_a_mistyped_place_is_told_before_anything_is_measured(
    indexes: tuple[list[Path], Path], tmp_path: Path
) -> None:
    (place, _), queries = indexes
    report = tmp_path / "report"
    answer = call(*asked_of([place, tmp_path / "typo.cbir"], queries, "--report", report))
    assert answer.code == 1 and "typo.cbir" in answer.error[0]
    nowhere = call(*asked_of([place], queries, "--per-query", tmp_path / "no" / "x.csv"))
    assert nowhere.error[0].startswith(f"cannot write {tmp_path / 'no' / 'x.csv'}: ")
    assert not report.exists()
