"""The steps of a search, in order. A new step is one file and one line here."""

from __future__ import annotations

from dataclasses import dataclass

from cbir.index.base import Index
from cbir.search.asking import After, Before
from cbir.search.expand import expand
from cbir.search.orient import orient
from cbir.search.verify import Verify


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that change a query before the first search, and its hits after it."""

    before: tuple[Before, ...]
    after: tuple[After, ...]


def steps_over(index: Index) -> Steps:
    """All steps of searches in `index`; each does nothing unless the options ask for it."""
    return Steps(before=(orient, expand), after=(Verify(index),))
