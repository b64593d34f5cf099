"""`cbir run`, `qrels` and `evaluate --qrels`: what may be a mistake is said, or refused."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from cbir.errors import how_to_install
from cbir.measures.trec import read_qrels, read_run, write_qrels, write_run
from cbir.wording import counted, listed
from tests.cli.support_cli import call
from tests.descriptors.support_photos import write_photos


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled index of twelve photos, which no test changes."""
    folder = tmp_path_factory.mktemp("trec-cli")
    photos = write_photos(folder / "photos", per_colour=4)
    place = folder / "made.cbir"
    assert call("index", photos, "--into", place, "--label-from-folder").code == 0
    return place


def files(
    folder: Path, qrels: Mapping[str, Sequence[str]], run: Mapping[str, Sequence[str]]
) -> tuple[Path, Path]:
    """Qrels by relevant documents, and a run by documents best first."""
    rows = [(query, document, 1) for query, of in qrels.items() for document in of]
    write_qrels(folder / "q.qrels", rows)
    scores = {query: -np.arange(len(of), dtype=np.float32) for query, of in run.items()}
    write_run(folder / "a.run", [(query, of, scores[query]) for query, of in run.items()], "t")
    return folder / "q.qrels", folder / "a.run"


# --- evaluate --qrels ------------------------------------------------------------------------


def test_a_run_that_answers_no_query_of_the_qrels_is_refused(tmp_path: Path) -> None:
    asked = {f"photos/{colour}/0": ["d"] for colour in ("blue", "green", "red")}
    qrels, run = files(tmp_path, asked, {"photos-2/green/0": ["d"], "photos-2/red/0": ["d"]})
    answer = call("evaluate", "--qrels", qrels, run)
    assert answer.error == (
        f"{run} answers none of the queries of {qrels}",
        "the run has 'photos-2/green/0', the qrels have 'photos/green/0': "
        "write both for the same SOURCE and INDEX",
    )
    qrels, run = files(tmp_path, {"301": ["d"]}, {"photos/a": ["d"]})
    hint = call("evaluate", "--qrels", qrels, run).error[1]
    assert hint.startswith("the run has 'photos/a', the qrels have '301'")


def test_queries_that_only_one_side_knows_are_counted_and_listed(tmp_path: Path) -> None:
    judged = {f"q/{number:02}": ["d"] for number in range(13)}
    qrels, run = files(tmp_path, judged, {f"q/{number:02}": ["d"] for number in range(12, 17)})
    asked = ["evaluate", "--qrels", qrels, run, "-m", "P@1"]
    answer = call(*asked)
    ten = ", ".join(f"q/{number:02}" for number in range(10))
    assert answer.err.splitlines() == [
        f"a.run: 12 queries not answered, counted as 0 ({ten} ...).",
        "a.run: 4 queries unknown to the qrels, not counted (q/13, q/14, q/15 ...).",
    ]
    figures = call(*asked, "--json").json
    assert figures["missing_queries"] == list(judged)[:12]
    assert figures["unjudged_queries"] == ["q/13", "q/14", "q/15", "q/16"]
    assert figures["measures"]["P@1"] == pytest.approx(1 / 13)
    qrels, run = files(tmp_path, {"a": ["d"], "b": ["d"]}, {"a": ["d"], "c": ["d"]})
    assert call("evaluate", "--qrels", qrels, run, "-m", "P@1").err.splitlines() == [
        "a.run: 1 query not answered, counted as 0 (b).",
        "a.run: 1 query unknown to the qrels, not counted (c).",
    ]


def test_a_run_that_is_too_short_for_a_measure_says_so(tmp_path: Path) -> None:
    documents = [f"d{number}" for number in range(9)]
    qrels, run = files(tmp_path, {"a": documents, "b": ["d0"]}, {"a": documents[:5], "b": ["d0"]})
    asked = ["evaluate", "--qrels", qrels, run]
    assert call(*asked, "-m", "P@5", "-m", "AP", "-m", "RR").err == ""
    told = call(*asked, "-m", "P@5", "-m", "P@6").err
    assert told == "a.run: rankings have 5 ranks at most; P@6 counts the missing ranks as wrong.\n"
    told = call(*asked, "-m", "P@10", "-m", "R@10").err
    assert told == (
        "a.run: rankings have 5 ranks at most; P@10, R@10 count the missing ranks as wrong.\n"
    )
    assert call(*asked, "-m", "P(rel=2)@10").err == ""  # nothing is that relevant
    qrels, run = files(tmp_path, {"a": documents, "b": ["d0"]}, {"a": documents, "b": ["d0"]})
    assert call("evaluate", "--qrels", qrels, run, "-m", "P@10").err == ""  # there is no more


def test_documents_that_the_qrels_do_not_know_are_told(tmp_path: Path) -> None:
    qrels, run = files(tmp_path, {"a": ["p/1", "p/2"]}, {"a": ["p-2/1", "p-2/2"]})
    told = call("evaluate", "--qrels", qrels, run, "-m", "P@1").err
    assert told == "a.run: no document is in the qrels; it ranks 'p-2/1', they have 'p/1'.\n"


def test_a_class_is_the_folder_that_a_querys_id_names(tmp_path: Path) -> None:
    asked = {query: ["d"] for query in ("p/red.jpg", "p/cats/1.jpg", "p/x/cats/2.jpg")}
    qrels, run = files(tmp_path, asked, asked)
    answer = call("evaluate", "--qrels", qrels, run, "--label-from-folder", "--json").json
    assert {label: of["n_queries"] for label, of in answer["classes"].items()} == {
        "cats": 2,
        "p": 1,
    }


# --- qrels and run ---------------------------------------------------------------------------


def test_qrels_without_any_relevant_image_are_refused(made: Path, tmp_path: Path) -> None:
    zoo = write_photos(tmp_path / "zoo", per_colour=1)
    for colour, animal in (("red", "ape"), ("green", "bear"), ("blue", "cow")):
        (zoo / colour).rename(zoo / animal)
    asked = ["qrels", zoo, "--label-from-folder", "-o", tmp_path / "q"]
    assert call(*asked, "--in", made).error == (
        f"no image of {made} has a label of {zoo}, so nothing is relevant to any query",
        "the queries have 'ape', 'bear', 'cow', the index has 'blue', 'green', 'red'",
    )
    bare = tmp_path / "bare.cbir"
    assert call("index", zoo, "--into", bare, "--descriptor", "cifar10-cnn").code == 0
    assert call(*asked, "--in", bare).error == (
        f"{bare} has no labels, so nothing is relevant to any query",
        "index again with --label-from-folder, or with --metadata that has a label column",
    )
    assert not (tmp_path / "q").exists()


def test_queries_that_cannot_be_relevant_to_anything_are_counted(
    made: Path, tmp_path: Path
) -> None:
    mixed = write_photos(tmp_path / "mixed", per_colour=2)
    (mixed / "red").rename(mixed / "zebra")
    (mixed / "blue" / "0.png").rename(mixed / "0.png")
    answer = call("qrels", mixed, "--in", made, "--label-from-folder", "-o", tmp_path / "q")
    assert answer.code == 0
    assert answer.err.splitlines() == [
        "6 queries, 15 lines",
        f"not in {made}: 2 labels of the queries, so nothing is relevant to them: mixed, zebra",
    ]
    assert read_qrels(tmp_path / "q")["mixed/0.png"] == {"mixed/0.png": 0}


def test_an_archive_that_holds_an_image_twice_makes_a_run(made: Path, tmp_path: Path) -> None:
    photo = (made.parent / "photos" / "red" / "0.png").read_bytes()
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for name in ("red/a.png", "red/b.png", "red/a.png"):
            info = tarfile.TarInfo(name)
            info.size = len(photo)
            archive.addfile(info, io.BytesIO(photo))
    ran = call("run", tmp_path / "t.tar", "--in", made, "-k", 2, "-o", tmp_path / "a.run")
    assert (ran.code, ran.err) == (0, "2 queries, 4 lines\n")
    judged = call(
        "qrels", tmp_path / "t.tar", "--in", made, "--label-from-folder", "-o", tmp_path / "q"
    )
    assert (judged.code, judged.err) == (0, "2 queries, 8 lines\n")
    assert list(read_run(tmp_path / "a.run")) == list(read_qrels(tmp_path / "q"))


def test_an_output_that_cannot_be_written_is_told_before_anything_is_described(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("cbir.images.sources.open_source", never)
    for command in ("run", "qrels"):
        for target, why in (
            (tmp_path / "no" / "x", "No such file or directory"),
            (tmp_path, "Is a directory"),
        ):
            answer = call(command, made.parent / "photos", "--in", made, "-o", target)
            assert answer.error == (f"cannot write {target}: {why}", "choose another place")


def test_words_are_counted_and_listed() -> None:
    assert [counted(1, "query"), counted(2, "query")] == ["1 query", "2 queries"]
    assert [counted(1, "line"), counted(2000, "line")] == ["1 line", "2,000 lines"]
    assert [listed(["a", "b"], 2), listed(["a", "b", "c"], 2)] == ["a, b", "a, b ..."]


def test_a_missing_extra_is_told_before_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    answer = call("evaluate", "--qrels", tmp_path / "none", tmp_path / "none")
    assert answer.error == (
        "evaluating a run against qrels needs the 'evaluation' extra",
        how_to_install("evaluation"),
    )


def test_what_is_given_twice_is_refused(made: Path, tmp_path: Path) -> None:
    both = ["--in", made, "--in", made, "--queries", made.parent / "photos"]
    for arguments in (both, ["--qrels", tmp_path / "q", tmp_path / "r", tmp_path / "r"]):
        answer = call("evaluate", *arguments)
        assert answer.code == 2 and "is given twice" in answer.err
