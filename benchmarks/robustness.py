"""Hostile input and bad luck: how much of each was tried, and how often something went wrong.

Mutated pictures, kills, flipped bits, bombs, archives, slow and greedy clients, and the load of
eight clients beside hostile ones; `benchmarks/hostile/` has a module for each. All of it takes
about half an hour, and `--only` runs some parts. The exit status is 1 if anything failed. Needs
Linux.

    python -m benchmarks robustness
    python -m benchmarks robustness --only pictures kills --pictures 500 --kills 20
    python -m benchmarks robustness --only load --seconds 10
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

from benchmarks.hostile import archives, bit_flips, bombs, clients, kills, load, pictures
from benchmarks.hostile.trials import Trial, Trials
from benchmarks.setting import heading, row

TELL_SECONDS = 1.0
MOST_PROBLEMS = 20  # that are printed of a part

PARTS: Mapping[str, Callable[[argparse.Namespace, Path], Trials]] = {
    "pictures": lambda asked, folder: pictures.trials(asked.pictures, folder),
    "kills": lambda asked, folder: kills.trials(asked.kills, folder),
    "flips": lambda asked, folder: bit_flips.trials(asked.flips, folder),
    "bombs": lambda _, folder: bombs.trials(folder),
    "archives": lambda _, folder: archives.trials(folder),
    "clients": lambda asked, folder: clients.trials(asked.seconds, folder),
    "load": lambda asked, folder: load.trials(asked.seconds, folder),
}


def main(arguments: Sequence[str] = ()) -> None:
    """Print a row of a table for each kind of trial, and what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks robustness")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--pictures", type=int, default=10_200, help="mutated pictures")
    parser.add_argument("--kills", type=int, default=100, help="kills in each of six operations")
    parser.add_argument("--flips", type=int, default=300, help="flipped bits")
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement of a server")
    asked = parser.parse_args(arguments)
    print(heading(["", "tried", "failed"]), flush=True)
    failed = False
    for part in asked.only:
        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                patch.dict(os.environ, CBIR_HOME=f"{folder}/home"),
            ):
                failed |= _counted(part, PARTS[part](asked, Path(folder)))
        except KeyboardInterrupt:
            sys.exit(130)
    if failed:
        sys.exit(1)


def _counted(part: str, trials: Trials) -> bool:
    """Print the rows of a part as far as it comes; returns whether anything failed."""
    found: list[Trial] = []
    try:
        with closing(trials), _progress(part, found):
            for trial in trials:
                found.append(trial)
    finally:
        rows: dict[str, list[Trial]] = {}
        for trial in found:
            rows.setdefault(trial.row, []).append(trial)
        for name, those in rows.items():
            failed = sum(bool(trial.problem) for trial in those)
            print(row([name, f"{len(those):,}", f"{failed:,}"]), flush=True)
        notes = [trial.note for trial in found if trial.note]
        problems = [f"{trial.row}: {trial.problem}" for trial in found if trial.problem]
        for line in (*notes, *problems[:MOST_PROBLEMS]):
            print(line, file=sys.stderr, flush=True)
    return bool(problems)


@contextmanager
def _progress(part: str, found: Sequence[Trial]) -> Iterator[None]:
    """Tell a terminal every second how far a part is."""
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(TELL_SECONDS):
            _tell(f"{part}: {len(found):,} tried, {time.monotonic() - began:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    if sys.stderr.isatty():
        teller.start()
    try:
        yield
    finally:
        ended.set()
        if teller.is_alive():
            teller.join()
            _tell("")


def _tell(progress: str) -> None:
    print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
