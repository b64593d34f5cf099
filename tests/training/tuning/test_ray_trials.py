"""What ends a trial, and what ends the run: Ray calls the scheduler, and here a test does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cbir.errors import CbirError, SettingsError

pytestmark = pytest.mark.training

FULL = "cannot write the checkpoint 1.safetensors: No space left on device"


@pytest.mark.parametrize(
    ("cause", "message", "hint"),
    [
        (CbirError(FULL, "make room and resume"), FULL, "make room and resume"),
        (MemoryError(), "MemoryError", "it resumes after the last saved epochs"),
        (
            RuntimeError("The actor died unexpectedly.\n\tclass_name: ImplicitFunc"),
            "RuntimeError: The actor died unexpectedly",
            "it resumes after the last saved epochs",
        ),
        (SettingsError("the loss became nan", "lower the rate"), None, None),
    ],
    ids=["full disk", "memory", "dead worker", "diverged"],
)
def test_only_its_settings_make_a_trial_fail(
    cause: Exception, message: str | None, hint: str | None, tmp_path: Path
) -> None:
    from ray import cloudpickle

    from cbir.training.tuning.journal import Journal
    from cbir.training.tuning.ray_trials import Asha, _Run

    journal = Journal.open(tmp_path / "trials.json", {}, [{"width": 1.0}, {"width": 2.0}])
    checkpoints = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for checkpoint in checkpoints:
        checkpoint.write_bytes(b"last good")
    error = tmp_path / "error.pkl"
    error.write_bytes(cloudpickle.dumps(SimpleNamespace(cause=cause)))
    Asha.run = _Run(tmp_path, journal, lambda _: None)
    trial = SimpleNamespace(config={"trial": 1}, pickled_error_file=str(error))
    if message is None:
        Asha(9).on_trial_error(None, trial)
        assert [path.exists() for path in checkpoints] == [False, True]
    else:
        with pytest.raises(CbirError) as caught:
            Asha(9).on_trial_error(None, trial)
        assert caught.value.message == f"trial 1 was interrupted: {message}"
        assert caught.value.hint.endswith(str(hint)) and "\n" not in str(caught.value)
        assert Asha.run.problem is caught.value
        assert all(path.read_bytes() == b"last good" for path in checkpoints)
    stored = json.loads((tmp_path / "trials.json").read_text())["trials"]
    state = "failed" if message is None else "waiting"
    assert [one["state"] for one in stored] == [state, "waiting"]
