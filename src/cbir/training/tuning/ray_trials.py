"""The trials of a tuning run as Ray sees them: what one does, and how ASHA ends it early.

Imported only inside a `ray_session`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import ray.cloudpickle
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from cbir.descriptors.fusion import projected
from cbir.errors import CbirError, SettingsError
from cbir.training.choose import choose_fusion
from cbir.training.network.checkpoint import read_checkpoint
from cbir.training.network.loop import train
from cbir.training.network.prediction import predict, use_threads
from cbir.training.network.settings import TrainSettings
from cbir.training.network.state import EpochResult
from cbir.training.projections import MOST
from cbir.training.tuning.data import TuningData
from cbir.training.tuning.journal import (
    ACCURACY,
    FAILED,
    FINISHED,
    QUALITY,
    RUNNING,
    STOPPED,
    Journal,
    TrialRecord,
)

KEPT_SHARE = 3
"""Of the trials that reach a rung, one in so many goes on: ASHA's reduction factor."""
CENTRE_IMAGES = 2000
RAY_FOLDER = "ray"
RESUMES = "run the same command again: it resumes after the last saved epochs"
GO_ON, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.STOP)


def run_trials(
    folder: Path,
    journal: Journal,
    settings: list[TrainSettings],
    cpus: int,
    gpus: float,
    on_change: Callable[[TrialRecord], None],
) -> None:
    """Run all trials, or the rest of them, and keep the `journal`; `folder` is their work folder.

    `on_change` is called with the record of a trial after each of its epochs and at its end.

    Raises `CbirError` if anything but its settings ends a trial; the same call goes on from there.
    """
    Asha.run = _Run(folder, journal, on_change)
    epochs = settings[0].epochs
    trainable = tune.with_resources(
        tune.with_parameters(
            run_trial,
            folder=folder,
            settings=settings,
            threads=cpus,
            ended=[record.trial for record in journal.trials if record.ended],
        ),
        {"cpu": cpus, "gpu": gpus},
    )
    numbers = {"trial": tune.grid_search([record.trial for record in journal.trials])}
    if tune.Tuner.can_restore(str(folder / RAY_FOLDER)):
        tuner = tune.Tuner.restore(str(folder / RAY_FOLDER), trainable, param_space=numbers)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=numbers,
            tune_config=tune.TuneConfig(scheduler=Asha(epochs)),
            run_config=tune.RunConfig(name=RAY_FOLDER, storage_path=str(folder), verbose=0),
        )
    try:
        tuner.fit()
    except (tune.TuneError, OSError) as error:
        last = str(error).strip().splitlines()[-1]
        raise Asha.run.problem or CbirError(f"Ray Tune failed: {last}", RESUMES) from error


def run_trial(
    config: dict[str, int],
    folder: Path,
    settings: list[TrainSettings],
    threads: int,
    ended: list[int],
) -> None:
    """One trial in a process of its own: trains, and reports after each epoch and at the end."""
    number = config["trial"]
    if number in ended:  # as Ray was killed before it noticed
        tune.report({"epoch": 0, ACCURACY: 0.0})
        return
    use_threads(threads)
    data = TuningData.open(folder)
    checkpoint = folder / f"{number}.safetensors"
    if checkpoint.exists():  # its last epochs may not have been reported
        for line in read_checkpoint(checkpoint)[1]["log"]:
            tune.report(line)
    network, log = train(
        data.images,
        data.labels,
        (data.held_images, data.held_labels),
        settings[number - 1],
        data.classes,
        checkpoint,
        lambda result: tune.report(asdict(result)),
    )
    centre = predict(network, data.images[:CENTRE_IMAGES])[0].mean(axis=0)
    embeddings, logits = predict(network, data.held_images)
    some = slice(MOST)
    vectors = projected(embeddings[some], centre)
    quality = choose_fusion(vectors, logits[some], data.held_labels[some])[1]
    tune.report({**asdict(log[-1]), QUALITY: quality})


@dataclass
class _Run:
    folder: Path
    journal: Journal
    on_change: Callable[[TrialRecord], None]
    problem: CbirError | None = None


class Asha(ASHAScheduler):  # type: ignore[misc]
    """Ray's ASHA on top of the journal.

    Ray restores a run with a scheduler that remembers no results, and repeats trials that ended
    just before a kill. The journal fills the rungs again, and answers for epochs that it knows.
    """

    # Of the class, because Ray stores the instance with the run and restores it from there.
    run: ClassVar[_Run]

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        super().__init__(
            time_attr="epoch",
            metric=ACCURACY,
            mode="max",
            max_t=epochs,
            grace_period=max(1, epochs // KEPT_SHARE**2),
            reduction_factor=KEPT_SHARE,
        )

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that waits: after a restore, Ray would take them in any order."""
        waiting = [one for one in tune_controller.get_trials() if one.status == "PENDING"]
        return min(waiting, key=lambda trial: trial.config["trial"], default=None)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Fill the rungs with what the trial reached before a restore."""
        super().on_trial_add(tune_controller, trial)
        for line in self._record(trial).epochs:
            super().on_trial_result(tune_controller, trial, line)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Record an epoch or the end of a trial, and decide whether the trial goes on."""
        record, epoch = self._record(trial), result["epoch"]
        if record.ended:
            return STOP
        if QUALITY in result:
            record.quality = float(result[QUALITY])
            self._end(record, FINISHED)
            return STOP
        if epoch <= len(record.epochs):
            return GO_ON
        record.state = RUNNING
        record.epochs.append({field.name: result[field.name] for field in fields(EpochResult)})
        decision = GO_ON
        if epoch < self.epochs:  # after its last epoch, a trial has yet to be measured
            decision = str(super().on_trial_result(tune_controller, trial, result))
        if decision == STOP:
            self._end(record, STOPPED)
        else:
            self._note(record)
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Record that its settings failed a trial; anything else ends the run, which resumes."""
        record, cause = self._record(trial), _cause(Path(trial.pickled_error_file))
        if not isinstance(cause, SettingsError):
            self._give_up(_interrupted(record.trial, cause))
        record.reason = cause.message
        self._end(record, FAILED)
        super().on_trial_error(tune_controller, trial)

    def _record(self, trial: Any) -> TrialRecord:
        return self.run.journal.of(trial.config["trial"])

    def _end(self, record: TrialRecord, state: str) -> None:
        record.state = state
        self._note(record)
        for kept in self.run.folder.glob(f"{record.trial}.*"):
            kept.unlink()

    def _note(self, record: TrialRecord) -> None:
        try:
            self.run.journal.save()
        except CbirError as error:
            self._give_up(error)
        self.run.on_change(record)

    def _give_up(self, problem: CbirError) -> NoReturn:
        self.run.problem = problem  # Ray would only pass on its traceback as a text
        raise problem


def _cause(file: Path) -> BaseException:
    """What ended a trial, from the exception that Ray has just stored."""
    error: BaseException = ray.cloudpickle.loads(file.read_bytes())
    return getattr(error, "cause", None) or error


def _interrupted(trial: int, cause: BaseException) -> CbirError:
    """The error of a run that something else than settings ended, in one line."""
    if isinstance(cause, CbirError):
        return CbirError(f"trial {trial} was interrupted: {cause.message}", cause.hint or RESUMES)
    text = f"{type(cause).__name__}: {cause}".splitlines()[0].removesuffix(": ").removesuffix(".")
    return CbirError(
        f"trial {trial} was interrupted: {text}", f"check memory and disk, and {RESUMES}"
    )
