"""What the trials of a tuning run have reached: `trials.json`, rewritten after every report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cbir.errors import CbirError
from cbir.files import write_whole
from cbir.training.choose import MEASURE

FORMAT = 1
WAITING, RUNNING, FINISHED, STOPPED, FAILED = "waiting", "running", "finished", "stopped", "failed"
ACCURACY = "held_out_accuracy"
QUALITY = f"held_out_{MEASURE}"


@dataclass
class TrialRecord:
    """A trial: its searched settings, its state, the log of its epochs, and what it reached.

    `quality` is the nAP@100 of a finished trial on the held-out images, `reason` why it failed.
    """

    trial: int
    searched: dict[str, Any]
    state: str = WAITING
    reason: str = ""
    quality: float | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (FINISHED, STOPPED, FAILED)

    @property
    def seconds(self) -> float:
        """The time of its epochs."""
        return sum(float(line["seconds"]) for line in self.epochs)

    @property
    def accuracy(self) -> float:
        """The last accuracy on the held-out images, 0 before the first epoch."""
        return float(self.epochs[-1][ACCURACY]) if self.epochs else 0.0


class Journal:
    """The records of all trials, kept in `path`; `run` is what determines them."""

    def __init__(self, path: Path, run: Mapping[str, Any], trials: Sequence[TrialRecord]) -> None:
        self.path, self.run, self.trials = path, dict(run), list(trials)

    @classmethod
    def open(
        cls, path: Path, run: Mapping[str, Any], searched: Sequence[dict[str, Any]]
    ) -> Journal:
        """The journal at `path`, a new one if there is none.

        Raises `CbirError` if it is damaged, or belongs to a run with other settings or images.
        """
        new = [TrialRecord(number, values) for number, values in enumerate(searched, 1)]
        if not path.exists():
            journal = cls(path, run, new)
            journal.save()
            return journal
        hint = f"choose another --out, or remove {path.parent}"
        try:
            stored = json.loads(path.read_bytes())
            if stored["format"] != FORMAT:
                raise ValueError
            trials = [TrialRecord(**record) for record in stored["trials"]]
            before = stored["run"]
        except (KeyError, TypeError, ValueError) as error:
            raise CbirError(f"{path} is damaged, or of another version of cbir", hint) from error
        for name, value in run.items():
            if before.get(name) != value:
                raise CbirError(f"{path.parent} holds a run with other {name}", hint)
        if [record.searched for record in trials] != list(searched):
            raise CbirError(f"{path.parent} holds a run of another version of cbir", hint)
        return cls(path, run, trials)

    def of(self, trial: int) -> TrialRecord:
        """The record of the trial with this number, counted from 1."""
        return self.trials[trial - 1]

    def save(self) -> None:
        """Write the file; raises `CbirError` if that fails, and the old one stays."""
        stored = {"format": FORMAT, "run": self.run, "trials": [asdict(one) for one in self.trials]}
        try:
            write_whole(self.path, json.dumps(stored, indent=1).encode())
        except OSError as error:
            raise CbirError(
                f"cannot write {self.path}: {error.strerror or error}",
                "make room and run the same command again: it resumes",
            ) from error
