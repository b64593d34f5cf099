"""Reports: what is on the page, for indexes and run files of every shape."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError, MissingExtraError
from cbir.evaluation import Evaluation, compare_evaluations, evaluate
from cbir.measures.trec import write_qrels, write_run
from cbir.report.case import case_of
from cbir.report.one_index import milliseconds
from cbir.report.tables import indexes_table, means_tables
from cbir.report.write import write_report
from cbir.types import RgbImage, Vectors
from tests.cli.support_cli import call
from tests.descriptors.support_photos import COLOURS, MeanColour, picture, write_photos
from tests.report.support_report import Seen, read_markdown, read_page

MEASURES = ("AP@10", "P@1", "RR@10")
SECTIONS = [
    "summary",
    "classes",
    "curves",
    "confusions",
    "scores",
    "queries",
    "timings",
    "reproduce",
]


def write_classes(folder: Path, names: list[str], each: int = 2) -> Path:
    """`folder`/NAME/N.png: pictures whose colours say something of their class, not all."""
    random = np.random.default_rng(4)
    for name in names:
        (folder / name).mkdir(parents=True)
        colour = random.integers(30, 220, 3)
        for number in range(each):
            shade = tuple(int(v) for v in np.clip(colour + random.integers(-40, 41, 3), 0, 255))
            image = picture(shade, seed=int(random.integers(1 << 30)))  # type: ignore[arg-type]
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


def evaluated(folder: Path, queries: Path, **options: object) -> tuple[cbir.Searcher, Evaluation]:
    place = folder / "p.cbir"
    searcher = cbir.Searcher.open(place, MeanColour())
    source = cbir.open_source(str(queries), label_from_folder=True)
    return searcher, evaluate(searcher, source, MEASURES, **options)  # type: ignore[arg-type]


def indexed(folder: Path, photos: Path, labelled: bool = True) -> None:
    cbir.index_images(
        [str(photos)],
        str(folder / "p.cbir"),
        descriptor=MeanColour(),
        label_from_folder=labelled,
    )


def reported(folder: Path, queries: Path, **options: object) -> Seen:
    """The report of queries to the index in `folder`, both forms of it read."""
    searcher, result = evaluated(folder, queries, **options)
    written = write_report(folder / "report", result, searcher, command="cbir evaluate")
    searcher.close()
    assert written[0] == folder / "report" / "index.html" and all(f.is_file() for f in written)
    read_markdown(folder / "report" / "report.md")
    return read_page(folder / "report" / "index.html")


def sections(seen: Seen) -> list[str | None]:
    return [attributes["id"] for attributes in seen.of("section")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of three colours, `p.cbir`, and `queries` that are not all easy."""
    folder = tmp_path_factory.mktemp("report")
    indexed(folder, write_photos(folder / "photos", per_colour=9))
    queries = write_photos(folder / "queries", per_colour=6)
    (queries / "red" / "0.png").rename(queries / "blue" / "9.png")
    return folder


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "home"))


def test_a_report_has_all_its_parts_and_the_figures_of_the_evaluation(own: Path) -> None:
    seen = reported(own, own / "queries")
    assert sections(seen) == SECTIONS
    _, result = evaluated(own, own / "queries")
    assert result.unseen_index is not None
    for name, value in result.measures.items():
        assert f"{name} {value:.4f}" in seen.words
        assert f"{result.unseen_index[name]:.4f}" in seen.words
    text = (own / "report" / "report.md").read_text()
    assert f"| AP@10 | {result.measures['AP@10']:.4f} |" in text
    assert all(f"## {title}" in text for title in ("Summary", "Timings"))
    drawn = [a for _, a in seen.tags if (a.get("class") or "").startswith("plot")]
    assert len(drawn) == 6


def test_hits_are_marked_right_or_wrong_with_their_scores(own: Path) -> None:
    seen = reported(own, own / "queries")
    searcher, result = evaluated(own, own / "queries")
    labels = searcher.index.labels()
    hit = next(
        (query, found)
        for query, label, found in zip(
            result.queries.ids, result.queries.labels, result.matches, strict=True
        )
        if label != labels[found.ids[0]]
    )
    listed = [a.get("title") for a in seen.of("li") if "wrong" in (a.get("class") or "")]
    assert hit[1].ids[0] in listed
    assert hit[0] in seen.words and f"{hit[1].scores[0]:.4f}" in seen.words
    right = [a.get("title") for a in seen.of("li") if "right" in (a.get("class") or "")]
    assert right and listed
    searcher.close()


def test_one_query_is_enough(own: Path, tmp_path: Path) -> None:
    one = tmp_path / "one" / "red"
    one.mkdir(parents=True)
    shutil.copy(own / "queries" / "red" / "1.png", one)
    seen = reported(own, one.parent)
    assert sections(seen) == SECTIONS and "1 query searched among 27" in seen.words


def test_a_sample_has_no_unseen_index_in_its_report(own: Path) -> None:
    assert "Unseen index" not in reported(own, own / "queries", sample=7).words


def test_the_unseen_index_alone(own: Path) -> None:
    seen = reported(own, own / "queries", protocol="unseen")
    searcher, result = evaluated(own, own / "queries", protocol="unseen")
    assert "searched among each other" in seen.words
    assert "usual protocol" not in seen.words
    assert f"P@1 {result.measures['P@1']:.4f}" in seen.words
    shown = {a["title"] for a in seen.of("li") if a.get("title")}
    assert shown <= set(result.queries.ids)
    searcher.close()


def test_expanded_queries_codes_and_shuffled_ids(own: Path) -> None:
    seen = reported(own, own / "queries", expand=2, bits=3, shuffle=5)
    assert "query expansion 2 hits" in seen.words
    assert "Codes of 3 bits" in seen.words and "by seed 5" in seen.words


class Alike(MeanColour):
    """Says the same of every picture, so that only the order among equals ranks."""

    def describe(self, images: Sequence[RgbImage]) -> Vectors:
        return np.eye(1, self.spec.dim, dtype=np.float32).repeat(len(images), axis=0)


def test_equal_scores_have_the_same_order_everywhere_in_a_report(own: Path, tmp_path: Path) -> None:
    shutil.rmtree(own / "p.cbir")
    cbir.index_images([own / "photos"], own / "p.cbir", descriptor=Alike(), label_from_folder=True)
    searcher = cbir.Searcher.open(own / "p.cbir", Alike())
    source = cbir.open_source(str(own / "queries"), label_from_folder=True)
    result = evaluate(searcher, source, ["nAP@5", "P@1"], shuffle=5)
    case = case_of(result, searcher)
    assert case.values.tolist() == result.per_query["nAP@5"].tolist()
    assert case.hits.found[:, 0].tolist() == result.per_query["P@1"].astype(bool).tolist()
    assert result.unseen_index is not None
    among_each_other = case.sides["leave-one-out"]
    assert among_each_other.values.mean() == pytest.approx(result.unseen_index["nAP@5"])
    assert among_each_other.precision[0] == pytest.approx(result.unseen_index["P@1"])
    deep = evaluate(searcher, source, ["P@20"], shuffle=5)
    assert [found.ids[:5] for found in case.matches] == [found.ids[:5] for found in deep.matches]
    searcher.close()


def test_the_measure_that_was_asked_for_is_the_one_that_is_shown(own: Path) -> None:
    searcher = cbir.Searcher.open(own / "p.cbir", MeanColour())
    source = cbir.open_source(str(own / "queries"), label_from_folder=True)
    for asked, shown in (("nAP@3", "nAP@3"), ("AP@4", "nAP@4"), ("P@1", "nAP@27")):
        case = case_of(evaluate(searcher, source, [asked]), searcher)
        assert case.measure == shown
        assert case.hits.labels.shape[1] == 27  # no query is indexed
    searcher.close()


def test_hits_beyond_what_is_relevant_are_no_confusions(tmp_path: Path) -> None:
    colours = ["blue", "green", "red"]
    indexed(tmp_path, write_photos(tmp_path / "photos", per_colour=4))
    seen = reported(tmp_path, write_photos(tmp_path / "queries", per_colour=2))
    assert "None: all of the first 4 hits are right." in seen.words
    assert "On average at most 40.0% of the first ten hits can be right" in seen.words
    assert all(colour in seen.words for colour in colours)


def test_time_is_divided_by_the_queries_that_it_was_spent_on(own: Path, tmp_path: Path) -> None:
    queries = write_classes(tmp_path / "queries", ["red", "green"], each=3)
    for name in ("1.png", "2.png", "3.png"):
        shutil.copy(own / "photos" / "red" / name, queries / "red" / f"copy-{name}")
    searcher, result = evaluated(own, queries, without_near_duplicates=True)
    searcher.close()
    assert result.near_duplicates is not None and len(result.near_duplicates.ids) >= 3
    left_out = len(result.near_duplicates.ids)
    each = milliseconds(result)
    assert each["describe"] == pytest.approx(
        1000 * result.seconds["describe"] / (result.n_queries + left_out)
    )
    assert each["search"] == pytest.approx(1000 * result.seconds["search"] / result.n_queries)


def test_what_was_asked_is_told_with_its_fingerprint(own: Path) -> None:
    first = reported(own, own / "queries", bits=3).words
    assert f"{own / 'queries'}, 18 images" in first and "3 bits, seed 0" in first
    said = re.search(r"contents of the queries sha256 (\w{64})", first)
    again = re.search(
        r"contents of the queries sha256 (\w{64})", reported(own, own / "queries").words
    )
    assert said and again and said[1] == again[1]
    (own / "queries" / "red" / "1.png").unlink()
    other = re.search(
        r"contents of the queries sha256 (\w{64})", reported(own, own / "queries").words
    )
    assert other and other[1] != said[1]


def test_near_duplicates_that_were_left_out_are_counted(own: Path, tmp_path: Path) -> None:
    queries = write_classes(tmp_path / "queries", ["red", "green"], each=3)
    shutil.copy(own / "photos" / "red" / "3.png", queries / "red" / "copy.png")
    seen = reported(own, queries, without_near_duplicates=True)
    assert "6 queries searched among" in seen.words
    assert "Left out: 1 of 7 queries (14.29%) with a near-duplicate" in seen.words


def test_two_classes(tmp_path: Path) -> None:
    indexed(tmp_path, write_classes(tmp_path / "photos", ["day", "night"], each=5))
    seen = reported(tmp_path, write_classes(tmp_path / "queries", ["day", "night"], each=3))
    assert sections(seen) == SECTIONS


def test_a_hundred_classes_are_cut_to_those_worth_a_look(tmp_path: Path) -> None:
    names = [f"class-{number:03}" for number in range(100)]
    indexed(tmp_path, write_classes(tmp_path / "photos", names))
    seen = reported(tmp_path, write_classes(tmp_path / "queries", names, each=1))
    assert "Shown: the 12 best and 12 worst of 100 classes." in seen.words
    assert "classes most often confused, of 100" in seen.words
    assert all(name in seen.words for name in names)  # in the table


def test_labels_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["<b>&\"'", "$x_1^$", "_hidden", "日本", "a|b", "</svg><script>"]
    names = [name.replace("/", "∕") for name in names]
    indexed(tmp_path, write_classes(tmp_path / "photos", names, each=3))
    seen = reported(tmp_path, write_classes(tmp_path / "queries", names))
    assert all(name in seen.words for name in names)
    assert not seen.of("b")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "a\\|b" in text and "\\<b\\>" in text


def test_images_without_labels_are_wrong_hits_with_no_label(tmp_path: Path) -> None:
    photos = write_classes(tmp_path / "photos", ["day", "night"], each=4)
    indexed(tmp_path, photos)
    shutil.copytree(photos, tmp_path / "more")
    indexed(tmp_path, tmp_path / "more", labelled=False)
    seen = reported(tmp_path, write_classes(tmp_path / "queries", ["day", "night"], each=2))
    assert "no label" in seen.words and "(no label)" in seen.words


def test_queries_of_a_class_that_is_not_indexed(own: Path, tmp_path: Path) -> None:
    seen = reported(own, write_classes(tmp_path / "queries", ["violet", "red"], each=2))
    assert "violet (0.000)" in seen.words


def test_queries_that_could_not_be_read_are_listed(own: Path) -> None:
    (own / "queries" / "red" / "broken.jpg").write_text("no picture")
    seen = reported(own, own / "queries")
    assert "1 query that could not be read" in seen.words and "red/broken.jpg" in seen.words


def test_a_deeper_look_than_the_measures_took(own: Path) -> None:
    searcher, _ = evaluated(own, own / "queries")
    source = cbir.open_source(str(own / "queries"), label_from_folder=True)
    shallow = evaluate(searcher, source, ["P@1"])
    assert all(len(found.ids) == 1 for found in shallow.matches)
    write_report(own / "r", shallow, searcher, command="cbir evaluate")
    deep = evaluate(searcher, source, ["P@1", "P@10"])
    page = read_page(own / "r" / "index.html").words
    assert f"{deep.measures['P@10']:.1%}".removesuffix("%") in page
    searcher.close()


def test_the_training_of_a_network_and_what_visual_words_see(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_colour=3)
    for name, expected in (("cifar10-cnn:embedding", "Accuracy and loss"), ("classic", "in words")):
        place = tmp_path / f"{name[:4]}.cbir"
        cbir.index_images([photos], place, descriptor=name, label_from_folder=True)
        with_report = call(
            *("evaluate", "--in", place, "--queries", photos, "--label-from-folder"),
            *("--report", tmp_path / name[:4]),
        )
        assert with_report.code == 0, with_report.err
        seen = read_page(tmp_path / name[:4] / "index.html")
        described = " ".join(a.get("alt") or "" for a in seen.of("img"))
        assert "training" in sections(seen)
        assert expected in seen.words + described or "visual word" in described
        assert ("sees" in sections(seen)) == (name == "classic")
        read_markdown(tmp_path / name[:4] / "report.md")


def test_an_old_report_is_replaced_and_nothing_else_is_touched(own: Path) -> None:
    target = own / "report"
    (target / "plots").mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    (target / "plots" / "mine.png").write_bytes(b"mine")
    (target / "index.html").write_text("old")
    reported(own, own / "queries")
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "plots" / "mine.png").read_bytes() == b"mine"
    assert not [file for file in target.rglob("*") if file.name.startswith(".")]


def test_a_report_cannot_be_a_file(own: Path) -> None:
    (own / "taken").write_text("mine")
    answer = call(
        *("evaluate", "--in", own / "p.cbir", "--queries", own / "queries"),
        *("--label-from-folder", "--report", own / "taken"),
    )
    assert "is a file" in answer.error[0]
    assert (own / "taken").read_text() == "mine"


def test_without_matplotlib_the_extra_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, result = evaluated(own, own / "queries")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="a report needs the 'evaluation' extra"):
        write_report(own / "report", result, searcher, command="cbir evaluate")
    assert not (own / "report").exists()
    searcher.close()


def test_a_folder_that_cannot_be_written_is_named(own: Path) -> None:
    searcher, result = evaluated(own, own / "queries")
    (own / "plain").write_text("a file")
    with pytest.raises(CbirError, match=r"plain is a file"):
        write_report(own / "plain" / "below", result, searcher, command="cbir evaluate")
    searcher.close()


def test_which_of_several_indexes_holds_training_images_is_told(own: Path) -> None:
    searcher, plain = evaluated(own, own / "queries")
    accuracy = {"training_images": 0.98765, "queries": None}
    trained = replace(plain, training_images_indexed=True, accuracy=accuracy)
    compared = compare_evaluations(["trained", "plain"], [trained, plain])
    table = indexes_table(compared)
    assert table.header == [
        "index",
        "descriptor",
        "queries",
        "indexed",
        "accuracy, training images",
    ]
    assert table.rows[0][2:] == ["18", "27 training images", "0.9877"]
    assert table.rows[1][2:] == ["18", "27", "–"]
    titles = [one.title for one in means_tables(compared)]
    usual, unseen = "usual protocol (index = training images)", "leave-one-out"
    assert titles == [f"All measures, {usual}", f"All measures, {unseen}"]
    searcher.close()


# --- run files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with qrels of 30 queries and two runs; `b` leaves two queries out."""
    folder = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(3)
    documents = [f"d{n}" for n in range(50)]
    relevant = {
        f"photos/{list(COLOURS)[n % 3]}/{n:02}": set(random.choice(documents, 6, replace=False))
        for n in range(30)
    }
    write_qrels(
        folder / "q.qrels", ((q, d, int(d in of)) for q, of in relevant.items() for d in documents)
    )
    for name, knowledge, left_out in (("a", 1.0, 0), ("b", 2.5, 2)):
        rankings = []
        for query, of in list(relevant.items())[left_out:]:
            scores = random.normal(size=50) + [knowledge * (d in of) for d in documents]
            order = np.argsort(-scores)
            rankings.append((query, [documents[o] for o in order], np.float32(scores[order])))
        write_run(folder / f"{name}.run", rankings, name)
    return folder


def test_the_report_of_one_run(runs: Path, tmp_path: Path) -> None:
    answer = call(
        "evaluate", "--qrels", runs / "q.qrels", runs / "a.run", "--report", tmp_path, "--json"
    )
    assert f"report: {tmp_path / 'index.html'}" in answer.err
    seen = read_page(tmp_path / "index.html")
    read_markdown(tmp_path / "report.md")
    assert sections(seen) == ["summary", "curves", "spread", "queries", "reproduce"]
    for name, value in answer.json["measures"].items():
        assert f"{name} {value:.4f}" in seen.words
    assert not seen.of("img")
    for name in ("q.qrels", "a.run"):
        digest = hashlib.sha256((runs / name).read_bytes()).hexdigest()
        assert f"{name} sha256 {digest}" in seen.words


def test_the_report_of_two_runs_compares_them(runs: Path, tmp_path: Path) -> None:
    answer = call(
        *("evaluate", "--qrels", runs / "q.qrels", runs / "a.run", runs / "b.run"),
        *("--label-from-folder", "--report", tmp_path, "--json"),
    )
    seen = read_page(tmp_path / "index.html")
    assert "comparisons" in sections(seen)
    told = {one["measure"]: one for one in answer.json["comparisons"]}
    assert told["nAP@100"]["in_words"] in seen.words
    assert f"{told['P@1']['difference']:+.4f}" in seen.words
    assert (
        "b.run: 2 queries not answered, counted as 0 (" in seen.words
        and "photos/red/00" in seen.words
    )
    assert "class by class" in seen.words


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two indexes that answer differently, `a b.cbir` and `c.cbir`, and `queries`."""
    folder = tmp_path_factory.mktemp("several")
    photos = write_classes(folder / "photos", ["ant", "bee", "cow"], each=6)
    write_classes(folder / "queries", ["ant", "bee", "cow"], each=4)
    for name, descriptor in (("a b.cbir", "cifar10-cnn:embedding"), ("c.cbir", "classic")):
        cbir.index_images([photos], folder / name, descriptor=descriptor, label_from_folder=True)
    return folder


def test_several_indexes_are_compared_on_one_page_and_have_one_each(
    several: Path, tmp_path: Path
) -> None:
    answer = call(
        *("evaluate", "--in", several / "a b.cbir", "--in", several / "c.cbir", "-m", "nAP@5"),
        *("--queries", several / "queries", "--label-from-folder", "--report", tmp_path / "r"),
        *("--hamming", 8, "--shuffle-ids", 2, "--json"),
    )
    assert answer.code == 0, answer.err
    seen = read_page(tmp_path / "r" / "index.html")
    read_markdown(tmp_path / "r" / "report.md")
    expected = ["summary", "comparisons", "classes", "curves", "queries", "timings", "reproduce"]
    assert sections(seen) == expected
    for key in ("measures", "unseen_index"):
        means = [f"{one[key]['nAP@5']:.4f}" for one in answer.json["runs"]]
        assert f"nAP@5 {' '.join(means)}" in seen.words
        coded = [f"{one['hamming'][key]['AP']:.4f}" for one in answer.json["runs"]]
        assert f"AP {' '.join(coded)}" in seen.words
    for one in answer.json["comparisons"]:
        assert (one["in_words"] in seen.words) == (one["measure"] == "nAP@5")
    assert "by seed 2" in seen.words
    # Every query shown is shown with the hits of both.
    told = [a["aria-label"] for a in seen.of("article")]
    assert told and all(told.count(one) % 2 == 0 for one in told)
    links = [a["href"] for a in seen.of("a") if not (a["href"] or "").startswith("#")]
    assert links == ["1-a_b.cbir/index.html", "2-c.cbir/index.html"]
    for folder in ("1-a_b.cbir", "2-c.cbir"):
        assert set(SECTIONS) <= set(sections(read_page(tmp_path / "r" / folder / "index.html")))
        read_markdown(tmp_path / "r" / folder / "report.md")


def test_three_indexes_are_compared_on_one_page(several: Path, tmp_path: Path) -> None:
    places = [several / "a b.cbir", several / "c.cbir", tmp_path / "third.cbir"]
    shutil.copytree(places[0], places[2])
    answer = call(
        *("evaluate", *(word for place in places for word in ("--in", place))),
        *("--queries", several / "queries", "--label-from-folder", "--report", tmp_path / "r"),
    )
    assert answer.code == 0, answer.err
    words = read_page(tmp_path / "r" / "index.html").words
    assert "3 indexes compared" in words and "after correction for 3 pairs" in words
    # The first and the third are the same, so neither of them leads.
    assert (
        "Queries that c.cbir answers better" in words
        and "Queries that third.cbir answers" not in words
    )
