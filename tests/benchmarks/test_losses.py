"""The plan of the loss table: who is tried, who wins, and how seeds are compared."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.training

BUDGET = {"images": 100, "epochs": 1, "width": 0.25}


def test_every_loss_has_the_same_number_of_trials_and_images() -> None:
    from benchmarks.losses import trial_tasks
    from cbir.training.network.losses import LOSSES

    tasks = trial_tasks(LOSSES, BUDGET)
    assert len(tasks) == 4 * len(LOSSES)
    for loss in LOSSES:
        of_loss = [task for task in tasks if task["loss"] == loss]
        assert len({str(task) for task in of_loss}) == 4
        assert {(task["seed"], task["held_out"]) for task in of_loss} == {(0, 5000)}


def test_the_best_trial_wins() -> None:
    from benchmarks.losses import trial_tasks, winners

    tasks = trial_tasks(["cross-entropy", "contrastive"], BUDGET)
    tried = [{"nAP@100": value} for value in (0.1, 0.3, 0.2, 0.3, 0.0)]
    tried += [{"failed": "the loss became nan"}, {"nAP@100": 0.1}, {"nAP@100": 0.05}]
    best = winners(tasks, tried)
    for loss, number in (("cross-entropy", 1), ("contrastive", 6)):
        assert best[loss] == {k: v for k, v in tasks[number].items() if k != "held_out"}


def test_a_loss_that_always_fails_is_named() -> None:
    from benchmarks.losses import trial_tasks, winners
    from cbir.errors import CbirError

    tasks = trial_tasks(["contrastive"], BUDGET)
    with pytest.raises(CbirError, match="contrastive failed: the loss became nan"):
        winners(tasks, [{"failed": "the loss became nan"}] * 4)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    from benchmarks.losses import paired

    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 5))
    mean, low, high = paired(ours.tolist(), theirs.tolist())
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(ours - theirs), *expected))


def test_classes_are_unseen_once() -> None:
    from benchmarks.losses import UNSEEN

    assert [len(classes) for classes in UNSEEN] == [3, 3, 3]
    assert len({one for classes in UNSEEN for one in classes}) == 9


def test_chance_is_that_of_random_orders() -> None:
    from benchmarks.losses import OF_UNSEEN
    from cbir.measures.by_class import class_measures

    random = np.random.default_rng(0)
    ranked = random.integers(0, 3, (20_000, 100))
    asked, relevant = np.zeros(20_000, np.int32), np.full(20_000, 5000)
    values = class_measures(ranked, asked, relevant, list(OF_UNSEEN))
    for name, chance in OF_UNSEEN.items():
        assert values[name].mean() == pytest.approx(chance, abs=0.003)
