"""What a part of the suite tries, one thing at a time, and pictures to try it with."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Trial:
    """One thing that was tried, counted in the row `row` of the table.

    `problem`: what went wrong and how to repeat it, "" if nothing did. `note`: a line to print.
    """

    row: str
    problem: str = ""
    note: str = ""


Trials = Generator[Trial, None, None]


def tried(row: str, what: str, action: Callable[[], object]) -> Trial:
    """A trial that fails if `action` raises anything."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 # the suite counts what goes wrong, whatever it is
        return Trial(row, f"{what}: {type(error).__name__}: {error}")
    return Trial(row)


def write_pictures(folder: Path, count: int, side: int = 24) -> Path:
    """`folder`/NNNN.png: pictures of coloured squares that are all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        squares = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(squares).resize((side, side), Image.Resampling.NEAREST)
        image.save(folder / f"{number:04}.png", compress_level=1)
    return folder
