"""What `cbir train cnn` and `cbir train bovw` say about data and checkpoints they cannot use."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir.home import cbir_home
from tests.cli.support_cli import Answer, call, replaced
from tests.training.support_patterns import write_patterns

pytest.importorskip("sklearn", reason="needs the `bovw` extra")

KINDS = [pytest.param("cnn", marks=pytest.mark.training), "bovw"]


def without_locks(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def train(kind: str, folder: Path, *options: object) -> Answer:
    """`cbir train KIND` of labelled folders, with a head, for one epoch if not told otherwise."""
    own = ("--recipe", "hog", "--head", "ridge") if kind == "bovw" else ("--epochs", 1)
    name = ("--label-from-folder", "--name", "m")
    return call("train", kind, folder, *name, *replaced(own, options))


def noise(folder: Path, sizes: dict[str, int], side: int = 32) -> Path:
    """`folder`/LABEL/N.png: that many pictures of noise for each label."""
    random = np.random.default_rng(0)
    for label, count in sizes.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:02}.png")
    return folder


def problem(answer: Answer) -> tuple[str, str]:
    """The error and hint after the lines about skipped images and the progress."""
    lines = answer.err.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("error: "))
    return Answer(answer.code, answer.out, "\n".join(lines[first:])).error


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_label_is_named(kind: str, tmp_path: Path) -> None:
    message, hint = train(kind, noise(tmp_path / "n", {"cats": 25})).error
    assert "all images" in message and "'cats'" in message
    assert "two labels" in hint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 19])
def test_a_handful_of_images_is_too_few(kind: str, count: int, tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {"cats": count // 2, "dogs": count - count // 2})
    assert train(kind, folder).error == (
        f"{count} images are too few to train on",
        "give at least 20: a tenth is held out for tuning",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_classes_of_one_image_are_too_few(kind: str, tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {f"c{number:02}": 1 for number in range(24)})
    message, hint = train(kind, folder).error
    assert "held out" in message and "24 of 24 classes have a single image" in message
    assert "at least two images" in hint


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_differ_only_in_case_are_refused(kind: str, tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {"Cat": 12, "dog": 12})
    other = noise(tmp_path / "other", {"cat": 12}) / "cat"
    # A file system may not tell Cat from cat, so one of them comes from deeper.
    other.rename(folder / "dog" / "cat")
    message, hint = train(kind, folder).error
    assert message == "the labels 'Cat' and 'cat' differ only in case"
    assert "one spelling" in hint


@pytest.mark.parametrize("kind", KINDS)
def test_many_unreadable_images_are_counted_and_the_first_named(kind: str, tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {"cats": 12, "dogs": 15})
    for number in range(4):
        (folder / "cats" / f"bad{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    answer = train(kind, folder)
    message, hint = problem(answer)
    names = ", ".join(f"cats/bad{number}.png" for number in range(3))
    assert message == f"4 of 31 images cannot be read: {names} ..."
    assert "repair or remove" in hint
    assert sum(line.startswith("skipped ") for line in answer.err.splitlines()) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_image_is_named_and_left_out(kind: str, tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {"cats": 12, "dogs": 12})
    (folder / "cats" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    small = ("--backbone", "mlp", "--set", "width=0.125") if kind == "cnn" else ()
    answer = train(kind, folder, *small)
    assert answer.code == 0, answer.err
    assert "skipped cats/bad.png: " in answer.err
    assert "22 training images, 2 held out" in answer.err


def test_images_of_a_pixel_have_nothing_to_learn_from(tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {"cats": 12, "dogs": 12}, side=1)
    message, hint = problem(train("bovw", folder))
    assert "features do not differ" in message and "larger images" in hint
    message, hint = problem(train("bovw", folder, "--head", "lda"))
    assert "differ within a class" in message and "ridge" in hint
    message, hint = problem(train("bovw", folder, "--recipe", "seed"))
    assert "0 local descriptors are too few" in message and "larger images" in hint


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 3])
def test_a_network_enlarges_small_images(side: int, tmp_path: Path) -> None:
    answer = train("cnn", noise(tmp_path / "n", {"cats": 12, "dogs": 12}, side), "--epochs", 1)
    assert answer.code == 0, answer.err


def test_four_images_cannot_compare_classifiers(tmp_path: Path) -> None:
    folder = noise(tmp_path / "n", {"cats": 2, "dogs": 2})
    options = ("--label-from-folder", "--compare-heads", "--recipe", "hog")
    message, hint = problem(call("train", "bovw", folder, *options))
    assert (message, hint) == ("4 images are too few to compare classifiers", "give at least 40")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_patterns(tmp_path / "patterns", 20)


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the first `after` replacements of a file succeed; the disk is full for the others."""
    import cbir.files

    real = cbir.files.put_in_place
    written: list[Path] = []

    def put(draft: Path, path: Path) -> None:
        written.append(path)
        if len(written) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(draft, path)

    monkeypatch.setattr(cbir.files, "put_in_place", put)


@pytest.mark.training
def test_a_full_disk_at_a_checkpoint_leaves_the_last_good_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = cbir_home() / "training"
    with monkeypatch.context() as patched:
        full_disk(patched, after=1)
        message, hint = problem(train("cnn", folder, "--epochs", 3))
    assert "cannot write the checkpoint" in message and "No space left" in message
    assert "resumes after the last saved epoch" in hint
    [kept] = without_locks(place)  # no draft is left beside it
    with monkeypatch.context() as patched:
        full_disk(patched, after=1)
        again = train("cnn", folder, "--epochs", 3)
    # Epoch 1 was kept: this time epoch 2 is saved and epoch 3 is not.
    assert "epoch 1/3" not in again.err and "epoch 2/3" in again.err
    assert "anew" not in again.err
    assert str(kept) in problem(again)[0]


@pytest.mark.training
def test_a_checkpoint_of_other_settings_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        full_disk(patched, after=1)
        assert train("cnn", folder, "--epochs", 2).code == 1
    [kept] = without_locks(cbir_home() / "training")
    before = kept.read_bytes()
    message, hint = problem(train("cnn", folder, "--epochs", 2, "--seed", 1))
    assert str(kept) in message and "of other settings or images" in message
    assert "remove it to start anew" in hint and "--name" in hint
    assert kept.read_bytes() == before
    assert "epoch 1/2" not in train("cnn", folder, "--epochs", 2).err


@pytest.mark.training
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_one_line_and_stays(
    share: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        full_disk(patched, after=1)
        assert train("cnn", folder, "--epochs", 2).code == 1
    [kept] = without_locks(cbir_home() / "training")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: int(len(whole) * share)])
    message, hint = problem(train("cnn", folder, "--epochs", 2))
    assert str(kept) in message and "damaged or truncated" in message
    assert "remove it" in hint and kept.exists()


@pytest.mark.training
def test_a_diverging_loss_stops_and_names_rate_and_epoch(folder: Path) -> None:
    message, hint = problem(train("cnn", folder, "--set", "peak_rate=1e30"))
    assert "the loss became" in message and "in epoch 1 at learning rate" in message
    assert "e+2" in message or "e+30" in message
    assert "lower learning rate" in hint
    assert not without_locks(cbir_home() / "training")


@pytest.mark.training
@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (["--backbone", "airbensh94"], "unknown backbone 'airbensh94'", "airbench94"),
        (["--set", "momentum=1.5"], "momentum 1.5 is not possible", "0 to 1"),
        (["--set", "shift=32"], "a shift of 32 pixels is too large", "smaller"),
        (["--backbone", "mlp", "--size", "2"], "a shift of 2 pixels is too large", "smaller"),
        (["--set", "flip=null"], "'null' is no value of flip", "true or false"),
        (["--seed", "99999999999"], "seed 99999999999 is too large", "below"),
        (["--set", "teacher=classic"], "classic is not a network with classes", "another"),
        (["--freeze", "1", "--set", "mix=mixup"], "mixup and a fixed backbone", "one of the two"),
        (
            ["--weights", "nothing.pth"],
            "cannot read the weights nothing.pth",
            "a .safetensors or .pth",
        ),
        (
            ["--backbone", "timm:efficientnet_b6", "--weights", "pretrained"],
            "timm has no pre-trained weights for efficientnet_b6",
            "choose --backbone timm:efficientnet_b5, or --weights '' for random ones",
        ),
        (["--size", "8"], "an input of 8 pixels is too small for airbench94", "at least"),
        (["--size", "0"], "size 0 is not possible", "1 or more"),
        (["--epochs", "0"], "epochs 0 is not possible", "1 or more"),
        (["--set", "peek_rate=1"], "unknown setting 'peek_rate'", "peak_rate"),
        (["--set", "ema"], "--set ema has no value", "NAME=VALUE"),
        (["--set", "ema="], "'' is no value of ema", "a number"),
        (["--set", "batch_size=1.5"], "'1.5' is no value of batch_size", "a whole number"),
        (["--set", "ema=1.5"], "ema 1.5 is not possible", "0 to 1"),
        (["--set", "peak_rate=nan"], "peak_rate nan is not possible", "0 or more"),
        (["--set", "balance=maybe"], "'maybe' is no value of balance", "true or false"),
        (["--set", "schedule=cosin"], "unknown schedule 'cosin'", "cosine"),
        (["--set", "mix=cutmix", "--loss", "contrastive"], "cutmix and the loss", "one of the two"),
        (["--teacher", "classic"], "classic is not a network with classes", "another teacher"),
        (["--teacher", "cifar10-cnn"], "was trained on other classes", "train a teacher"),
    ],
)
def test_wrong_settings_are_one_line(
    folder: Path, options: list[str], message: str, hint: str
) -> None:
    said, cure = problem(train("cnn", folder, *options))
    assert message in said
    assert hint in cure


@pytest.mark.training
def test_the_settings_of_a_tuning_run_are_taken_and_options_replace_them(
    folder: Path, tmp_path: Path
) -> None:
    best = tmp_path / "best.json"
    found = {"backbone": "mlp", "width": 0.25, "epochs": 9, "peak_rate": 0.002}
    best.write_text(json.dumps({"settings": found}))
    answer = train("cnn", folder, "--from", best, "--epochs", 1, "--set", "width=0.125")
    assert answer.code == 0, answer.err
    card = json.loads((Path(answer.out.strip()) / "model.json").read_text())
    taken = {name: card["training"]["settings"][name] for name in found}
    assert taken == {"backbone": "mlp", "width": 0.125, "epochs": 1, "peak_rate": 0.002}
    best.write_text("{")
    message, hint = problem(train("cnn", folder, "--from", best))
    assert "no JSON" in message and "cbir tune" in hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_other_files_is_no_place_for_a_model(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.json").write_text("mine")
    message, hint = train(kind, folder, "--out", tmp_path / "mine").error
    assert "holds files that are no model" in message and "new folder" in hint
    assert (tmp_path / "mine" / "model.json").read_text() == "mine"
    (tmp_path / "file").touch()
    message, _ = train(kind, folder, "--out", tmp_path / "file" / "inside").error
    assert "cannot make the folder" in message
    message, _ = train(kind, folder, "--out", folder / "model").error
    assert "in the folder of the training images" in message


@pytest.mark.training
def test_weights_that_are_no_tensors_are_one_line(folder: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pth"
    wrong.write_text("hello")
    message, hint = problem(train("cnn", folder, "--weights", wrong))
    assert "not a file of tensors" in message and hint
