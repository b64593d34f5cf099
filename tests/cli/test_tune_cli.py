"""`cbir tune` from the command line, as far as Ray is not needed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from cbir.errors import CbirError
from tests.cli.support_cli import Answer, call, replaced
from tests.training.support_patterns import PATTERNS, write_labels, write_patterns, write_unsorted

pytestmark = pytest.mark.training


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from cbir.training.tuning import tune

    def refuse(*_: object) -> None:
        raise CbirError("Ray starts")

    monkeypatch.setattr(tune, "ray_session", refuse)
    (tmp_path / "space.toml").write_text("width = 0.125\nembedding = [8, 16]")
    return write_patterns(tmp_path / "images", 20)


def tune(folder: Path, *options: object) -> Answer:
    """`cbir tune` with two trials of two epochs."""
    given = ("--out", folder.parent / "out", "--trials", 2, "--epochs", 2)
    space = ("--space", folder.parent / "space.toml")
    return call("tune", folder, "--label-from-folder", *replaced((*given, *space), options))


def test_the_table_shows_the_best_trial_first_and_names_the_next_command(folder: Path) -> None:
    assert "error: Ray starts" in tune(folder).err
    out = folder.parent / "out"
    stored = json.loads((out / "trials.json").read_text())
    line = {"epoch": 1, "loss": 1.0, "train_accuracy": 0.4, "held_out_accuracy": 0.5, "seconds": 2}
    stored["trials"][0] |= {"state": "failed", "reason": "the loss became nan"}
    stored["trials"][1] |= {"state": "finished", "quality": 0.875, "epochs": [line]}
    (out / "trials.json").write_text(json.dumps(stored))
    answer = tune(folder)
    assert answer.code == 0, answer.err
    header, *rows = [line.split() for line in answer.out.splitlines()]
    assert header[0] == "trial"
    assert rows[0] == ["2", "finished", "1", "0.8750", "0.5000", "2", "embedding=16"]
    assert rows[1] == ["1", "failed", "0", "0", "the", "loss", "became", "nan"]
    assert f"next: cbir train cnn {folder} --from {out / 'best.json'}" in answer.err
    shown = tune(folder, "--json").json
    assert shown["best"]["settings"]["embedding"] == 16
    assert shown["best"]["command"].startswith("cbir tune ")
    assert [trial["trial"] for trial in shown["trials"]] == [2, 1]


@pytest.mark.usefixtures("folder")
def test_metadata_files_label_the_images_of_trials(tmp_path: Path) -> None:
    flat, labels = write_unsorted(tmp_path / "my flat", 20)
    given = ("--metadata", write_labels(tmp_path / "the labels.csv", labels | {"gone": "x"}))
    out = tmp_path / "by file"
    asked = ("tune", flat, *given, "--out", out, "--trials", 1, "--epochs", 2)
    by_file = call(*asked)
    assert "warning: 1 metadata row matched no image: 'gone'" in by_file.err
    assert "54 training images, 6 held out" in by_file.err and "Ray starts" in by_file.err
    journal = out / "trials.json"
    stored = json.loads(journal.read_text())
    line = {"epoch": 1, "loss": 1.0, "train_accuracy": 0.4, "held_out_accuracy": 0.5, "seconds": 2}
    stored["trials"][0] |= {"state": "finished", "quality": 0.875, "epochs": [line]}
    journal.write_text(json.dumps(stored))
    answer = call(*asked)
    best = json.loads((out / "best.json").read_text())
    assert best["classes"] == list(PATTERNS)
    words = shlex.split(answer.err.splitlines()[-1].removeprefix("next: "))
    assert words[:4] == ["cbir", "train", "cnn", str(flat)]
    assert words[-2:] == list(map(str, given))


def test_wrong_values_are_wrong_usage(folder: Path) -> None:
    assert call("tune", folder).code == 2
    for options in (("--trials", 0), ("--epochs", 0), ("--cpus", 0), ("--gpus", -1)):
        assert tune(folder, *options).code == 2
    assert tune(folder, "--space", folder.parent / "none.toml").code == 2


def test_wrong_data_is_one_line_with_its_cure(folder: Path, tmp_path: Path) -> None:
    assert tune(folder, "--trials", 3).error == (
        "the search space has no more than 2 different trials",
        "choose --trials 2, or widen the space",
    )
    single = write_patterns(tmp_path / "single", 20)
    for kind in ("columns", "stripes"):
        for image in (single / kind).iterdir():
            image.unlink()
    assert "have the label 'checks'" in tune(single).error[0]
    assert not (tmp_path / "out" / "trials.json").exists()


def test_a_cluster_that_does_not_answer_is_one_line(folder: Path, tmp_path: Path) -> None:
    from cbir.training.tuning.ray_session import ray_session

    for address, message in {
        "ray://head:10001": "'ray://head:10001' is no address of a Ray cluster",
        "head": "'head' is no address of a Ray cluster",
        "127.0.0.1:1": "no Ray cluster answers at 127.0.0.1:1",
    }.items():
        with pytest.raises(CbirError, match=message), ray_session("out", 1, 0, address):
            pass
