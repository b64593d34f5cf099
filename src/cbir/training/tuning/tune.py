"""Searches the best settings for training on labelled images, for `cbir tune`.

Ray Tune runs the trials; ASHA ends bad ones early, by accuracy on the held-out images (Li et al.
2018, arXiv:1810.05934). The best is the finished trial with the highest nAP@100 of the held-out
images, half as index and half as queries. Test images are never used.
"""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cbir.descriptors.onnx import square_input
from cbir.errors import CbirError
from cbir.files import alone, write_whole
from cbir.images.items import ImageSource
from cbir.machine import processor, usable_cores
from cbir.training.choose import MEASURE
from cbir.training.labelled import Say, prefix_of, read_labelled, split
from cbir.training.network.backbones import plan_of
from cbir.training.network.prediction import device
from cbir.training.network.settings import TrainSettings, settings_for
from cbir.training.tuning.data import TuningData
from cbir.training.tuning.journal import (
    ACCURACY,
    FAILED,
    FINISHED,
    QUALITY,
    STOPPED,
    Journal,
    TrialRecord,
)
from cbir.training.tuning.ray_session import ray_session
from cbir.training.tuning.search_space import SearchSpace, draw_trials, read_space
from cbir.types import OnStage

BEST_FILE, JOURNAL_FILE, WORK_FOLDER = "best.json", "trials.json", "work"


def tune(
    source: ImageSource,
    out: Path,
    space: SearchSpace | None = None,
    *,
    trials: int,
    epochs: int,
    seed: int = 0,
    backbone: str | None = None,
    limit: int | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    address: str | None = None,
    command: str = "",
    say: Say = lambda _: None,
    on_stage: OnStage = lambda _s, _d, _t: None,
) -> tuple[dict[str, Any], list[TrialRecord]]:
    """Try `trials` settings of `space` on `source`; returns the best as JSON, and all, best first.

    Without `space`, it is the default one, less a width or depth that the backbone refuses.
    A tenth of the images is held out, as in training. `out`/trials.json holds the trials,
    `out`/best.json the best; a run that was interrupted resumes. `limit` takes a random sample of
    the images, `cpus` and `gpus` are those of one trial, `address` is the HOST:PORT of a Ray
    cluster, `command` is kept with the best.

    Raises `CbirError` for a wrong search space, for images that cannot be trained on, if `out`
    holds another run or is in use, and if all trials fail.
    """
    given = {"epochs": epochs, "seed": seed, **({"backbone": backbone} if backbone else {})}
    space = space or _default_space(given)
    size = _checked_size(space, trials, given)  # before the images are read
    cpus = cpus or (1 if address else max(1, usable_cores() // trials))
    gpus = _gpus() if gpus is None else gpus
    out.mkdir(parents=True, exist_ok=True)
    in_use = CbirError(f"another cbir tune is using {out}", "wait, or choose another --out")
    with alone(out / ".lock", in_use):
        everything = read_labelled(
            source, square_input(size).prepare, limit=limit, seed=seed, say=say
        )
        held_out, training = split(everything, seed)
        data = TuningData(training.stacked(), training.labels, held_out.stacked(), held_out.labels)
        settings = draw_trials(space, trials, len(data.images), **given)
        run = {
            "images": data.digest(),
            "--trials": trials,
            "--epochs": epochs,
            "--seed": seed,
            "--cpus": cpus,
            "--gpus": gpus,
            "settings": {**settings[0].recorded(), **dict.fromkeys(space.searched)},
        }
        journal_file = out / JOURNAL_FILE
        work = out.resolve() / WORK_FOLDER  # Ray refuses relative paths
        if not journal_file.exists():
            shutil.rmtree(work, ignore_errors=True)
        journal = Journal.open(journal_file, run, [_searched(one, space) for one in settings])
        if not all(record.ended for record in journal.trials):
            say(f"{len(data.images):,} training images, {len(data.held_images):,} held out")
            work.mkdir(exist_ok=True)
            data.write(work)
            with ray_session(str(out.resolve()), cpus, gpus, address):
                from cbir.training.tuning.ray_trials import run_trials

                run_trials(work, journal, settings, cpus, gpus, _Progress(journal, say, on_stage))
        ranked = _ranked(journal)
        facts = {
            "source": source.uri,
            "images": prefix_of(source),
            "trained_on": everything.origin,
            "training_images": len(data.images),
            "held_out_images": len(data.held_images),
            "classes": list(everything.classes),
            "command": command,
        }
        best = _report(ranked[0], settings[ranked[0].trial - 1], journal) | facts
        write_whole(out / BEST_FILE, json.dumps(best, indent=1, ensure_ascii=False).encode())
        shutil.rmtree(work, ignore_errors=True)
        return best, ranked


def changed(record: TrialRecord) -> str:
    """The searched settings of a trial: `width=1.5 embedding=64`."""
    texts = {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in record.searched.items()}
    return " ".join(f"{name}={text}" for name, text in texts.items())


class _Progress:
    """Says what the trials have reached, and counts their epochs."""

    def __init__(self, journal: Journal, say: Say, on_stage: OnStage) -> None:
        self.journal, self.say, self.on_stage = journal, say, on_stage
        self.epochs = journal.run["--epochs"]

    def __call__(self, record: TrialRecord) -> None:
        self.say(self._line(record))
        trials = self.journal.trials
        done = sum(self.epochs if one.ended else len(one.epochs) for one in trials)
        ended = sum(one.ended for one in trials)
        self.on_stage(f"tuning: {ended} of {len(trials)} trials", done, self.epochs * len(trials))

    def _line(self, record: TrialRecord) -> str:
        trial = f"trial {record.trial} of {len(self.journal.trials)}"
        if record.state == FAILED:
            return f"{trial} failed: {record.reason}"
        reached = f"held-out accuracy {record.accuracy:.4f}"
        if record.state == FINISHED:
            return (
                f"{trial} finished: {reached}, {MEASURE} {record.quality:.4f}, "
                f"{record.seconds:.0f} s: {changed(record)}"
            )
        epoch = f"epoch {len(record.epochs)} of {self.epochs}"
        if record.state == STOPPED:
            return f"{trial} stopped after {epoch}: {reached}: {changed(record)}"
        last = record.epochs[-1]
        return f"{trial}, {epoch}: loss {last['loss']:.4f}, {reached}, {last['seconds']:.0f} s"


def _default_space(given: dict[str, Any]) -> SearchSpace:
    """The default search space, less what the backbone refuses."""
    space, settings = read_space(), settings_for(1, **given)
    for name, width, depth in (("width", 1.5, 0), ("depth", 1.0, 3)):
        try:
            plan_of(settings.backbone).build(settings.size, width, depth, "")
        except CbirError:
            del space.searched[name]
    return space


def _checked_size(space: SearchSpace, trials: int, given: dict[str, Any]) -> int:
    """The input size of all trials; raises `CbirError` for values that are not possible."""
    drawn = draw_trials(space, trials, 1, **given)
    networks = {(one.backbone, one.size, one.width, one.depth) for one in drawn}
    for name, size, width, depth in sorted(networks):
        plan_of(name).build(size, width, depth, "")  # backbones may refuse a width or a depth
    return drawn[0].size


def _searched(settings: TrainSettings, space: SearchSpace) -> dict[str, Any]:
    """The searched settings of a trial that have an effect."""
    values = settings.recorded()
    return {name: values[name] for name in space.searched if name in values}


def _ranked(journal: Journal) -> list[TrialRecord]:
    """The trials: finished ones by quality, then stopped ones, then those that failed.

    Raises `CbirError` if none finished.
    """

    def merit(record: TrialRecord) -> tuple[float, ...]:
        quality = -1.0 if record.quality is None else record.quality
        return quality, record.state == STOPPED, len(record.epochs), record.accuracy, -record.trial

    ranked = sorted(journal.trials, key=merit, reverse=True)
    if ranked[0].state != FINISHED:
        failed = next(record for record in ranked if record.state == FAILED)
        raise CbirError(
            f"no trial finished; trial {failed.trial}: {failed.reason}",
            f"remove {journal.path.parent} and tune again with other settings",
        )
    return ranked


def _report(best: TrialRecord, settings: TrainSettings, journal: Journal) -> dict[str, Any]:
    """What the best trial is and reached, compared with the default settings, and where."""
    run, first = journal.run, journal.of(1)
    return {
        # Without the epochs of a trial: the winner is trained in full.
        "settings": {name: v for name, v in settings.recorded().items() if name != "epochs"},
        "trial": best.trial,
        QUALITY: best.quality,
        ACCURACY: best.accuracy,
        "default": {QUALITY: first.quality, ACCURACY: first.accuracy},
        **{name: run[f"--{name}"] for name in ("trials", "epochs", "seed", "cpus", "gpus")},
        "seconds": round(sum(record.seconds for record in journal.trials), 1),
        "processor": processor(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("cbir", "torch", "ray")},
        },
    }


def _gpus() -> float:
    """One GPU for each trial where there is one."""
    return float(device().type == "cuda")
