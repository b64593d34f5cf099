"""The search space: what its file may say, and the trials that are drawn from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.errors import CbirError

pytestmark = pytest.mark.training

GIVEN = {"epochs": 4, "seed": 0}


def drawn(tmp_path: Path, text: str, count: int = 50, **given: Any) -> list[Any]:
    from cbir.training.tuning.search_space import draw_trials, read_space

    return draw_trials(read_space(space(tmp_path, text)), count, 45_000, **{**GIVEN, **given})


def space(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return path


def problem(tmp_path: Path, text: str, count: int = 50) -> tuple[str, str]:
    with pytest.raises(CbirError) as caught:
        drawn(tmp_path, text, count)
    return caught.value.message.replace(str(tmp_path / "space.toml"), "FILE"), caught.value.hint


def test_every_way_to_name_values_draws_them_all_over_its_range(tmp_path: Path) -> None:
    text = """
    momentum = 0.7
    embedding = [32, 64]
    shift = { between = [1, 3] }
    dropout = { between = [0.1, 0.3] }
    weight_decay = { log = [1e-5, 1e-1] }
    peak_rate = { times = [0.5, 2] }
    """
    trials = drawn(tmp_path, text, 300)
    assert {(trial.momentum, trial.epochs, trial.seed) for trial in trials} == {(0.7, 4, 0)}
    assert {trial.embedding for trial in trials} == {32, 64}
    assert {trial.shift for trial in trials} == {1, 2, 3}
    dropout = np.array([trial.dropout for trial in trials[1:]])
    assert 0.1 <= dropout.min() < 0.11 < 0.29 < dropout.max() <= 0.3
    # Evenly on a logarithmic scale: as many below the geometric mean as above.
    for low, high, name in ((1e-5, 1e-1, "weight_decay"), (0.375, 1.5, "peak_rate")):
        values = np.array([getattr(trial, name) for trial in trials])
        assert low <= values.min() < low * 1.2 < high / 1.2 < values.max() <= high
        assert 0.4 < np.mean(values < (low * high) ** 0.5) < 0.6


def test_a_factor_multiplies_the_default_that_goes_with_the_other_settings(tmp_path: Path) -> None:
    from cbir.training.network.settings import settings_for

    text = "optimizer = ['sgd', 'adamw']\npeak_rate = { times = [0.5, 2] }"
    for trial in drawn(tmp_path, text):
        default = settings_for(45_000, optimizer=trial.optimizer, **GIVEN).peak_rate
        assert 0.5 <= trial.peak_rate / default <= 2
    few = drawn(tmp_path, "peak_rate = { times = [0.5, 2] }", 1)[0]
    assert few == settings_for(45_000, **GIVEN)


def test_the_first_trial_is_the_default_as_far_as_the_space_allows(tmp_path: Path) -> None:
    text = """
    embedding = [16, 0, 128]
    width = [1.5, 2.0]
    shift = { between = [3, 5] }
    dropout = { between = [0.0, 0.2] }
    weight_decay = { times = [2, 4] }
    """
    first = drawn(tmp_path, text, 1)[0]
    assert (first.embedding, first.width, first.shift, first.dropout) == (0, 1.5, 3, 0.0)
    assert first.weight_decay == pytest.approx(2 * 1.3e-3)


def test_the_same_seed_draws_the_same_trials_and_none_twice(tmp_path: Path) -> None:
    text = "embedding = [8, 16, 32]\ncutout = [0, 4]"
    trials = drawn(tmp_path, text, 6)
    assert drawn(tmp_path, text, 6) == trials
    assert len({(trial.embedding, trial.cutout) for trial in trials}) == 6
    other = drawn(tmp_path, text, 6, seed=1)
    assert [t.embedding for t in other] != [t.embedding for t in trials]
    assert problem(tmp_path, text, 7) == (
        "the search space has no more than 6 different trials",
        "choose --trials 6, or widen the space",
    )


def test_settings_that_exclude_each_other_are_not_drawn_together(tmp_path: Path) -> None:
    text = "mix = ['none', 'cutmix']\nloss = ['cross-entropy', 'contrastive']"
    trials = drawn(tmp_path, text, 3)
    assert {(trial.mix, trial.loss) for trial in trials} == {
        ("none", "cross-entropy"),
        ("none", "contrastive"),
        ("cutmix", "cross-entropy"),
    }
    message, _ = problem(tmp_path, "loss = 'contrastive'\nmix = ['none', 'cutmix']", 1)
    assert message == "cutmix and the loss contrastive exclude each other"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("widht = [1.0]", "FILE: unknown setting 'widht'", "did you mean 'width'?"),
        ("width = [1.0", "FILE is no TOML: ", "width = [1.0, 1.5]"),
        ("epochs = [1]", "FILE names epochs", "leave it out: --epochs sets it"),
        ("seed = 3", "FILE names seed", "leave it out: --seed sets it"),
        ("teacher = ['a']", "FILE names teacher", "without a teacher"),
        ("size = [32, 64]", "FILE searches size", "give one size"),
        ("width = 1.5", "FILE leaves nothing to search", "width = [1.0, 1.5]"),
        ("", "FILE leaves nothing to search", "width = [1.0, 1.5]"),
        ("width = []", "FILE: width is neither a list of values nor a range", "[a, b, c]"),
        ("width = {to = [1, 2]}", "FILE: width is neither a list of values nor", "between = [a"),
        ("width = {log = [1, 2, 3]}", "FILE: width is neither a list of values nor", "log = [a"),
        ("loss = {log = [1, 2]}", "FILE: loss has no range", "write loss = [a, b, c]"),
        ("width = {log = [0, 2]}", "FILE: the ends of width have to rise, and", "not 0, 2"),
        ("shift = {between = [3, 2]}", "FILE: the ends of shift have to rise", "not 3, 2"),
        ("embedding = [32.5]", "FILE: embedding = 32.5 is not possible", "a whole number"),
        ("embedding = ['64']", "FILE: embedding = '64' is not possible", "a whole number"),
        ("flip = [1]", "FILE: flip = 1 is not possible", "true or false"),
        ("dropout = [nan]", "FILE: dropout = nan is not possible", "a number"),
        ("dropout = [0.0, 2.0]", "dropout 2 is not possible", "from 0 to 1"),
        ("dropout = {between = [0, 2]}", "dropout 2 is not possible", "from 0 to 1"),
        ("loss = ['tripel-batch-all']", "unknown loss 'tripel-batch-all'", "'triplet-batch-all'"),
        ("backbone = ['airbench94x']", "unknown backbone 'airbench94x'", "'airbench94'"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_cure(
    text: str, message: str, hint: str, tmp_path: Path
) -> None:
    said = problem(tmp_path, text)
    assert said[0].startswith(message) and "\n" not in said[0]
    assert hint in said[1]


def test_an_option_does_not_override_the_file(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match="the search space has a backbone, too"):
        drawn(tmp_path, "backbone = 'airbench94'\nwidth = [1.0, 2.0]", backbone="airbench94")


def test_the_default_space_draws_and_its_first_trial_is_the_default() -> None:
    from cbir.training.network.settings import settings_for
    from cbir.training.tuning.search_space import draw_trials, read_space

    default = read_space()
    trials = draw_trials(default, 20, 45_000, **GIVEN)
    assert trials[0] == settings_for(45_000, **GIVEN)
    for name in ("peak_rate", "weight_decay", "width", "dropout", "embedding", "mix", "loss"):
        assert len({getattr(trial, name) for trial in trials}) > 1, name


def test_the_settings_of_a_best_trial_come_back(tmp_path: Path) -> None:
    from cbir.training.network.settings import settings_for
    from cbir.training.tuning.search_space import settings_from

    best = tmp_path / "best.json"
    for chosen in ({}, {"loss": "contrastive", "loss_weight": 1}, {"optimizer": "adamw"}):
        settings = settings_for(1_000, **GIVEN, **chosen)
        best.write_text(json.dumps({"settings": settings.recorded()}))
        assert settings_for(1_000, **settings_from(best)) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"settings": {"width": 1.5', "is no JSON, or damaged"),
        ("[]", "holds no settings"),
        ('{"settings": 3}', "holds no settings"),
        ('{"settings": {"widht": 1.5}}', "unknown setting 'widht'"),
        ('{"settings": {"width": "wide"}}', "width = 'wide' is not possible"),
        ('{"settings": {"dropout": 3}}', "dropout 3 is not possible"),
    ],
)
def test_a_damaged_best_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    from cbir.training.tuning.search_space import settings_from

    best = tmp_path / "best.json"
    best.write_text(text)
    with pytest.raises(CbirError, match=message):
        settings_from(best)
    with pytest.raises(CbirError, match="cannot read"):
        settings_from(tmp_path / "none.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_named_pipe_is_refused_as_one(tmp_path: Path) -> None:
    from cbir.training.tuning.search_space import read_space, settings_from

    os.mkfifo(pipe := tmp_path / "pipe")
    for read in (read_space, settings_from):
        with pytest.raises(CbirError, match=r"cannot read .*: a named pipe, not a file"):
            read(pipe)


def test_the_documents_show_the_default_space() -> None:
    from cbir.training.tuning.search_space import DEFAULT_SPACE

    page = Path(__file__).parents[3] / "docs" / "training.md"
    shown = page.read_text().partition("```toml\n")[2].partition("```")[0]
    lines = [line for line in DEFAULT_SPACE.read_text().splitlines() if not line.startswith("#")]
    assert shown.strip() == "\n".join(lines).strip()
