"""`cbir train` from the command line: the group, and Bag of Visual Words from end to end."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from contextlib import closing
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

import cbir
from cbir.home import cbir_home
from cbir.images.decode import decode
from tests.cli.support_cli import call, needs_signals, replaced, start
from tests.training.support_patterns import (
    PATTERNS,
    write_labels,
    write_patterns,
    write_unsorted,
)

pytest.importorskip("sklearn", reason="needs the `bovw` extra")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_patterns(tmp_path / "patterns", 20)


def train(folder: Path, *options: object) -> Path:
    """The folder of the model that `cbir train bovw` made."""
    answer = call("train", "bovw", folder, *options)
    assert answer.code == 0, answer.err
    return Path(answer.out.strip())


def test_the_group_lists_its_commands_and_those_that_train_explain_themselves() -> None:
    listed = call("train", "--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == ["bovw", "cnn", "compose"]
    for name in ("bovw", "cnn"):
        answer = call("train", name, "--help")
        assert answer.code == 0 and "--name" in answer.out and "--label-from-folder" in answer.out
        assert all(len(line) <= 80 for line in answer.out.splitlines())


def test_train_index_search_and_evaluate(folder: Path, tmp_path: Path) -> None:
    test = write_patterns(tmp_path / "test", 8, first=500)
    trained = call(
        *("train", "bovw", folder, "--label-from-folder", "--recipe", "hog", "--head", "ridge"),
        *("--name", "mine", "--test", test),
    )
    assert trained.code == 0, trained.err
    assert "held-out accuracy" in trained.err and "test accuracy" in trained.err
    card = json.loads((Path(trained.out.strip()) / "model.json").read_text())
    assert card["quality"]["test_accuracy"] > 0.8
    place = tmp_path / "p.cbir"
    index = ("index", folder, "--into", place, "--label-from-folder", "--descriptor", "mine")
    assert call(*index).code == 0
    hits = call("search", test / "stripes" / "500.png", "--in", place, "--json").json[0]["hits"]
    assert sum(hit["label"] == "stripes" for hit in hits) >= 8
    assert call("info", place, "--json").json["descriptor"]["name"] == "mine"
    # The model travels with the index: without the store the index is searched, and goes on.
    shutil.rmtree(Path(trained.out.strip()).parent)
    again = call("search", test / "stripes" / "500.png", "--in", place, "--json").json[0]["hits"]
    assert [hit["id"] for hit in again] == [hit["id"] for hit in hits]
    measured = call("evaluate", "--in", place, "--queries", test, "--label-from-folder", "--json")
    assert measured.json["measures"]["P@10"] > 0.8


def test_metadata_files_label_training_and_test_images(tmp_path: Path) -> None:
    folder, labels = write_unsorted(tmp_path / "flat", 20)
    (folder / "000-0.png").rename(folder / normalize("NFD", "é 0.png"))
    labels[normalize("NFC", "é 0.png")] = labels.pop("000-0.png")
    test, of_test = write_unsorted(tmp_path / "test", 8, first=500)
    wrong = dict.fromkeys(labels, "pattern")
    files = [
        write_labels(tmp_path / "first.csv", wrong),
        write_labels(tmp_path / "the labels.csv", labels | {"gone.png": "stripes"}),
        write_labels(tmp_path / "c.csv", {str(test / name): of_test[name] for name in of_test}),
    ]
    given = [word for file in files for word in ("--metadata", file)]
    recipe = ("--recipe", "hog", "--head", "ridge", "--name", "mine")
    trained = call("train", "bovw", folder, *recipe, "--test", test, *given)
    assert trained.code == 0, trained.err
    card = json.loads((Path(trained.out.strip()) / "model.json").read_text())
    assert card["classes"] == list(PATTERNS) and card["quality"]["test_accuracy"] > 0.8
    warnings = [line for line in trained.err.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: 1 metadata row matched no image: 'gone.png'"]
    said = trained.err.splitlines()[-1]
    words = shlex.split(said.removeprefix("next: cbir index FOLDER --into INDEX "))
    assert words == ["--descriptor", "mine", *map(str, given)]
    place = tmp_path / "flat.cbir"
    assert call("index", folder, "--into", place, *words).code == 0
    with closing(cbir.open_index(str(place))) as index:
        assert sorted(filter(None, index.labels().values())) == sorted(labels.values())


def test_metadata_goes_before_folders_and_an_image_without_a_label_is_named(
    folder: Path, tmp_path: Path
) -> None:
    some = {f"checks/{number:03d}.png": "stripes" for number in range(20)}
    given = ("--metadata", write_labels(tmp_path / "some.csv", some), "--name", "mine")
    recipe = ("--recipe", "hog", "--head", "ridge")
    message, hint = call("train", "bovw", folder, *recipe, *given).error
    assert message == "columns/000.png has no label"
    assert "--label-from-folder" in hint and "--metadata FILE" in hint
    place = train(folder, *recipe, *given, "--label-from-folder")
    card = json.loads((place / "model.json").read_text())
    assert card["classes"] == ["columns", "stripes"]
    bad = tmp_path / "bad.csv"
    bad.write_text("name,label\na.png,b")
    message, hint = call("train", "bovw", folder, *recipe, *given, "--metadata", bad).error
    assert "bad.csv:1" in message and "'path'" in hint


@pytest.mark.training
def test_metadata_files_label_the_images_of_a_network(tmp_path: Path) -> None:
    folder, labels = write_unsorted(tmp_path / "flat", 8)
    test, of_test = write_unsorted(tmp_path / "test", 2, first=500)
    given = ("--metadata", write_labels(tmp_path / "labels.csv", labels | of_test))
    small = ("--backbone", "mlp", "--epochs", 1, "--set", "width=0.125", "--name", "m")
    answer = call("train", "cnn", folder, *small, "--test", test, *given)
    assert answer.code == 0, answer.err
    card = json.loads((Path(answer.out.strip()) / "model.json").read_text())
    assert card["classes"] == list(PATTERNS) and "test_accuracy" in card["quality"]
    assert "warning" not in answer.err
    assert answer.err.splitlines()[-1].endswith(f"--metadata {given[1]}")
    message, hint = call("train", "cnn", folder, *small).error
    assert message == "000-0.png has no label" and "--metadata FILE" in hint


def test_pictures_of_the_training_lie_beside_the_model_and_are_in_its_report(
    folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="needs the `bovw` extra")
    given = ("--label-from-folder", "--recipe", "hog", "--head", "ridge", "--name", "mine")
    stored, out = train(folder, *given), train(folder, *given, "--out", tmp_path / "out")
    for place in (stored, out):
        assert sorted(path.name for path in place.iterdir()) == [
            *("classes.png", "confusion.png", "model.json", "model.npz")
        ]
        assert (decode((place / "confusion.png").read_bytes()) < 128).any(axis=2).sum() > 500
    shown, own = (call("models", "show", name, "--json").json for name in ("mine", out))
    assert shown["spec"] == own["spec"]  # pictures are no part of the model
    assert set(shown["files"]) == {"model.json", "model.npz"}
    classes = shown["card"]["training"]["classification"]
    assert list(classes["confusion"]) == list(classes["by_class"]) == list(PATTERNS)
    assert sum(scores["support"] for scores in classes["by_class"].values()) == 6
    lines = call("models", "show", "mine").out.splitlines()
    assert "held-out images    6" in lines and any(line.startswith("mean F1 ") for line in lines)
    place, report = tmp_path / "p.cbir", tmp_path / "report"
    options = ("--into", place, "--label-from-folder", "--descriptor", "mine")
    assert call("index", folder, *options).code == 0
    assert {path.name for path in (place / "model").iterdir()} == {"model.json", "model.npz"}
    asked = ("--in", place, "--queries", folder, "--label-from-folder", "--report", report)
    assert call("evaluate", *asked).code == 0
    assert "Confusion matrix of 6 held-out images" in (report / "index.html").read_text()
    assert "training-classes.png" in (report / "report.md").read_text()
    assert call("models", "remove", "mine", "--yes").code == 0 and not stored.exists()


def test_labels_of_indexed_images_do_not_change_their_vectors(folder: Path, tmp_path: Path) -> None:
    train(folder, *("--label-from-folder", "--recipe", "hog", "--head", "lda", "--name", "mine"))
    relabelled = tmp_path / "other" / "patterns"
    shutil.copytree(folder, relabelled)
    for one, other in zip(PATTERNS, (*PATTERNS[1:], PATTERNS[0]), strict=True):
        (relabelled / one).rename(relabelled / f"new-{other}")
    vectors = []
    for source in (folder, relabelled):
        place = tmp_path / f"{source.parent.name}.cbir"
        options = ("--into", place, "--label-from-folder", "--descriptor", "mine")
        assert call("index", source, *options).code == 0
        with closing(cbir.open_index(str(place))) as index:
            records = index.records(list(index.ids()))
            assert {record.label for record in records} <= {f.name for f in source.iterdir()}
            vectors.append({r.content_hash: index.vectors(r.id) for r in records})
    assert vectors[0].keys() == vectors[1].keys()
    for content, vector in vectors[0].items():
        np.testing.assert_array_equal(vector, vectors[1][content])


def test_the_same_command_again_makes_the_same_model(folder: Path) -> None:
    options = ("--recipe", "seed", "--name", "words", "--sample", 2000, "--limit", 50)
    one = train(folder, *options)
    assert train(folder, *options) == one
    assert train(folder, *options, "--seed", 1) != one


def test_a_model_can_be_written_to_a_folder_of_ones_own(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(folder, "--recipe", "hog+gray", "--name", "mine", "--out", out) == out
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "model.npz"]
    assert "hog" in call("models", "show", out).out


def test_the_card_says_of_the_images_what_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    given = ("--recipe", "hog+gray", "--name", "mine")
    told = ("--trained-on", "Stripes (CC BY 4.0)", "--licence", "CC0-1.0")
    own = train(folder, *given, "--out", tmp_path / "own", *told)
    plain = train(folder, *given, "--out", tmp_path / "plain")
    cards = [json.loads((place / "model.json").read_text()) for place in (own, plain)]
    assert cards[0]["trained_on"] == "Stripes (CC BY 4.0)"
    assert [card["licence"] for card in cards] == ["CC0-1.0", "not stated"]
    assert cards[1]["trained_on"].startswith(f"{folder.name}, ")
    assert (own / "model.npz").read_bytes() == (plain / "model.npz").read_bytes()


def test_wrong_input_is_one_line_with_its_cure(folder: Path, tmp_path: Path) -> None:
    def error(*options: object, source: Path = folder) -> tuple[str, str]:
        return call("train", "bovw", source, *replaced(("--name", "m"), options)).error

    message, hint = error("--recipe", "pathces")
    assert "unknown recipe 'pathces'" in message and "patches" in hint
    message, hint = error("--recipe", "patches")
    assert "has no label" in message and "--label-from-folder" in hint
    message, hint = error("--recipe", "patches", "--label-from-folder", source=folder / "checks")
    assert "two labels" in hint and "have the label" in message
    message, hint = error("--recipe", "hog", "--head", "knn", "--label-from-folder")
    assert "'knn' cannot be a head: it memorises its training labels" in message and "ridge" in hint
    message, _ = error("--recipe", "hog", "--head", "random-forest", "--label-from-folder")
    assert "memorises its training labels" in message
    message, hint = error("--recipe", "hog", "--head", "rigde", "--label-from-folder")
    assert "unknown head" in message and "ridge" in hint
    few = call("train", "bovw", folder, "--name", "m", "--recipe", "seed", "--limit", 5)
    assert few.code == 1 and "too few for 400 words\n  hint: give more or larger images" in few.err
    message, _ = error("--recipe", "hog", "--name", "cifar10-cnn")
    assert "own models" in message
    message, _ = error("--recipe", "hog", "--test", folder, "--label-from-folder")
    assert "no head" in message
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no images" in error("--recipe", "hog", source=empty)[0]


@pytest.mark.parametrize(
    "options",
    [
        ("--recipe", "hog"),
        ("--name", "m"),
        ("--sweep",),
        ("--sweep", "--compare-heads", "--out", "o"),
        ("--sweep", "--out", "o", "--sizes", "10,many"),
        ("--sweep", "--out", "o", "--sizes", "1"),
        ("--recipe", "hog", "--name", "m", "--json"),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_written(
    options: tuple[str, ...], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", "bovw", folder, *options).code == 2
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("absent", "options"),
    [
        ("sklearn", ("--recipe", "hog", "--name", "m")),
        ("sklearn", ("--compare-heads",)),
        ("matplotlib", ("--recipe", "hog", "--name", "m")),
        ("matplotlib", ("--sweep", "--out", "o")),
    ],
)
def test_a_missing_extra_is_named(
    absent: str, options: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == absent else found(name)
    )
    message, hint = call("train", "bovw", folder, *options).error
    assert "'bovw' extra" in message and "[bovw]" in hint


def test_a_sweep_prints_a_table_and_leaves_plot_and_numbers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the `bovw` extra")
    out = tmp_path / "sweep"
    sweep = ("train", "bovw", folder, "--sweep", "--sizes", "4,8,16", "--out", out)
    answer = call(*sweep)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["4", "8", "16"]
    kept = json.loads((out / "sweep.json").read_text())
    lowest = min(kept["rows"], key=lambda row: row["davies_bouldin"])
    assert lines[-1] == f"best: {lowest['words']} words (lower is better)"
    assert kept["best"] == lowest["words"] and kept["lower_is_better"]
    drawn = decode((out / "sweep.png").read_bytes())
    # The curve, its best point and the words are there, not only a white sheet.
    assert (drawn < 128).any(axis=2).sum() > 2000
    again = call(*sweep, "--json").json
    assert [row["davies_bouldin"] for row in again["rows"]] == [
        row["davies_bouldin"] for row in kept["rows"]
    ]
    message, hint = call(*sweep, "--recipe", "hog").error
    assert "no vocabulary" in message and "seed" in hint


@pytest.mark.slow
def test_heads_are_compared_in_one_command(folder: Path) -> None:
    compare = ("train", "bovw", folder, "--label-from-folder", "--compare-heads")
    answer = call(*compare, "--recipe", "hog")
    assert answer.code == 0, answer.err
    table, _, confusion = answer.out.partition("\n\n")
    lines = table.splitlines()
    assert lines[0].split()[:4] == ["classifier", "accuracy", "precision", "recall"]
    assert len(lines) == 8
    best = lines[1].split()[0]
    assert confusion.startswith(f"confusion matrix of {best} ")
    shown = [line.split() for line in confusion.splitlines()[2:]]
    assert [row[0] for row in shown] == list(PATTERNS)
    assert sum(int(count) for row in shown for count in row[1:]) == 60
    heads = call(*compare, "--recipe", "hog", "--json").json["heads"]
    assert heads[0]["name"] == best
    assert all(np.sum(head["confusion"]) == 60 for head in heads)


@needs_signals
def test_an_interrupted_training_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = start("train", "bovw", folder, "--recipe", "seed", "--name", "m", "--out", out)
    assert child.stderr is not None
    for line in child.stderr:
        if "words from" in line:
            child.send_signal(signal.SIGINT)
            break
    _, rest = child.communicate(timeout=120)
    assert (child.returncode, rest.strip().splitlines()[-1]) == (130, "interrupted")
    assert not out.exists()


@needs_signals
@pytest.mark.training
def test_a_second_training_of_the_same_name_is_refused(folder: Path, tmp_path: Path) -> None:
    asked = ("train", "cnn", folder, "--label-from-folder", "--epochs", 400, "--name")
    child = start(*asked, "m", "--out", tmp_path / "first")
    assert child.stderr is not None
    next(line for line in child.stderr if line.startswith("epoch 1/"))
    checkpoint = cbir_home() / "training" / "m.safetensors"
    assert call(*asked, "m", "--out", tmp_path / "second").error == (
        "another cbir train cnn is training m",
        "wait for its end, or choose another --name",
    )
    assert checkpoint.exists()
    child.kill()
    child.communicate()
    again = start(*asked, "m", "--out", tmp_path / "second")  # the lock of the dead is free
    assert again.stderr is not None
    first = next(line for line in again.stderr if line.startswith("epoch "))
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
    assert again.returncode == 143
    assert not first.startswith("epoch 1/")


@needs_signals
@pytest.mark.training
def test_an_interrupted_network_says_how_to_resume_and_does(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("train", "cnn", folder, "--label-from-folder", "--name", "m", "--out", out)
    child = start(*asked, "--epochs", 400)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("epoch 1/"):
            child.send_signal(signal.SIGINT)
            break
    _, rest = child.communicate(timeout=120)
    assert child.returncode == 130
    assert [line for line in rest.splitlines() if line][-2:] == [
        "complete epochs are kept; the same command resumes",
        "interrupted",
    ]
    assert not out.exists()
    child = start(*asked, "--epochs", 400)
    assert child.stderr is not None
    first = next(line for line in child.stderr if line.startswith("epoch "))
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=120)
    assert not first.startswith("epoch 1/")


def test_the_next_command_is_printed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("train", "bovw", folder, "--recipe", "hog", "--name", "mine")
    stored = call(*given).err.splitlines()[-1]
    assert stored == "next: cbir index FOLDER --into INDEX --descriptor mine"
    for out in ("out", "my model", "it's"):
        written = call(*given, "--out", out).err.splitlines()[-1]
        _, command = written.split("next: cbir ")
        words = ["x.cbir" if word == "INDEX" else word for word in shlex.split(command)]
        assert call(*words[:1], folder, *words[2:]).code == 0
        shutil.rmtree("x.cbir")
