"""What a tuning run makes of its trials, and what it refuses before Ray starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cbir.errors import CbirError
from tests.training.support_patterns import write_patterns

pytestmark = pytest.mark.training

EPOCH = {"epoch": 1, "loss": 1.0, "train_accuracy": 0.5, "held_out_accuracy": 0.5, "seconds": 2.5}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_patterns(tmp_path / "images", 20)


@pytest.fixture
def tune(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], list[Any]]]:
    """`tune` into `tmp_path`/out, on a machine on which Ray does not start."""
    from cbir.images.sources import open_source
    from cbir.training.tuning import tune as module
    from cbir.training.tuning.search_space import read_space

    def refuse(*_: object) -> None:
        raise CbirError("Ray starts")

    monkeypatch.setattr(module, "ray_session", refuse)
    space = tmp_path / "space.toml"
    space.write_text("width = 0.125\nembedding = [8, 16, 24, 32]")

    def run(source: Path = images, text: str = "", default: bool = False, **options: Any) -> Any:
        if text:
            space.write_text(text)
        opened = open_source(str(source), label_from_folder=True)
        given = {"trials": 4, "epochs": 2, **options}
        own = None if default else read_space(space)
        return module.tune(opened, tmp_path / "out", own, **given)

    return run


def recorded(tmp_path: Path, *trials: dict[str, Any]) -> None:
    """Let the trials of the run in `tmp_path`/out have reached this."""
    path = tmp_path / "out" / "trials.json"
    stored = json.loads(path.read_text())
    for trial, reached in zip(stored["trials"], trials, strict=True):
        trial |= reached
    path.write_text(json.dumps(stored))


def problem(tune: Callable[..., Any], **options: Any) -> tuple[str, str]:
    with pytest.raises(CbirError) as caught:
        tune(**options)
    return caught.value.message, caught.value.hint


def test_the_best_finished_trial_wins_and_the_order_says_how_far_others_came(
    tune: Callable[..., Any], tmp_path: Path
) -> None:
    assert problem(tune)[0] == "Ray starts"
    two = [EPOCH, {**EPOCH, "epoch": 2, "held_out_accuracy": 0.9}]
    recorded(
        tmp_path,
        {"state": "failed", "reason": "the loss became nan"},
        {"state": "stopped", "epochs": [{**EPOCH, "held_out_accuracy": 0.99}]},
        {"state": "finished", "epochs": two, "quality": 0.7},
        {"state": "finished", "epochs": [EPOCH, EPOCH], "quality": 0.8},
    )
    best, ranked = tune()
    assert [record.trial for record in ranked] == [4, 3, 2, 1]
    assert (best["trial"], best["held_out_nAP@100"], best["held_out_accuracy"]) == (4, 0.8, 0.5)
    assert best["settings"]["embedding"] == ranked[0].searched["embedding"]
    assert best["settings"]["width"] == 0.125
    assert "epochs" not in best["settings"]  # the winner is trained in full
    assert best["seconds"] == 12.5
    assert json.loads((tmp_path / "out" / "best.json").read_text()) == best
    assert not (tmp_path / "out" / "work").exists()


def test_a_run_of_failures_says_why(tune: Callable[..., Any], tmp_path: Path) -> None:
    problem(tune)
    stopped = {"state": "stopped", "epochs": [EPOCH]}
    recorded(tmp_path, {"state": "failed", "reason": "it diverged"}, *[stopped] * 3)
    message, hint = problem(tune)
    assert message == "no trial finished; trial 1: it diverged"
    assert str(tmp_path / "out") in hint
    assert not (tmp_path / "out" / "best.json").exists()


def test_another_run_in_the_same_folder_is_refused_by_name(
    tune: Callable[..., Any], images: Path, tmp_path: Path
) -> None:
    problem(tune)
    out = tmp_path / "out"
    for other, options in {
        "--trials": {"trials": 3},
        "--epochs": {"epochs": 3},
        "--cpus": {"cpus": 7},
        "settings": {"text": "width = 0.25\nembedding = [8, 16, 24, 32]"},
        "images": {"limit": 50},
    }.items():
        message, hint = problem(tune, **options)
        assert message == f"{out} holds a run with other {other}"
        assert hint == f"choose another --out, or remove {out}"
        if "text" in options:
            tmp_path.joinpath("space.toml").write_text("width = 0.125\nembedding = [8, 16, 24, 32]")
    assert problem(tune)[0] == "Ray starts"
    # A label that moves is another set of images, too.
    next((images / "checks").iterdir()).rename(images / "stripes" / "moved.png")
    assert problem(tune)[0] == f"{out} holds a run with other images"


def test_damaged_records_and_a_second_run_are_refused(
    tune: Callable[..., Any], tmp_path: Path
) -> None:
    from filelock import FileLock

    problem(tune)
    path = tmp_path / "out" / "trials.json"
    path.write_bytes(path.read_bytes()[:100])
    assert problem(tune)[0] == f"{path} is damaged, or of another version of cbir"
    with FileLock(tmp_path / "out" / ".lock"):
        assert problem(tune)[0] == f"another cbir tune is using {tmp_path / 'out'}"


def test_wrong_values_are_refused_before_the_images_are_read(
    tune: Callable[..., Any], tmp_path: Path
) -> None:
    nowhere = {"source": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    assert problem(tune, **nowhere)[0].endswith("has no images")
    assert problem(tune, **nowhere, backbone="airbench94x")[1] == "did you mean 'airbench94'?"
    text = "dropout = [0.0, 3.0]"
    assert problem(tune, **nowhere, text=text)[0] == "dropout 3 is not possible"


def test_images_are_written_once_and_mapped(tune: Callable[..., Any], tmp_path: Path) -> None:
    import numpy as np

    from cbir.training.tuning.data import TuningData

    problem(tune)
    data = TuningData.open(tmp_path / "out" / "work")
    assert (data.images.shape, data.images.dtype) == ((54, 32, 32, 3), np.uint8)
    assert len(data.held_images) == len(data.held_labels) == 6
    assert data.classes == 3 and isinstance(data.images, np.memmap)
    before = (tmp_path / "out" / "work" / "images.npy").stat().st_mtime_ns
    problem(tune)
    assert (tmp_path / "out" / "work" / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(CbirError, match="storage that all machines share"):
        TuningData.open(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "left_out"), [("airbench94", set()), ("lenet", {"depth"})], ids=["both", "width"]
)
def test_the_default_space_fits_the_backbone(
    backbone: str, left_out: set[str], tune: Callable[..., Any], tmp_path: Path
) -> None:
    from cbir.training.tuning.search_space import read_space

    assert problem(tune, default=True, backbone=backbone)[0] == "Ray starts"
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())["trials"]
    searched = set().union(*(trial["searched"] for trial in trials))
    assert searched - {"loss_weight"} == set(read_space().searched) - left_out - {"loss_weight"}
