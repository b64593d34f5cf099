"""What people must know about a model, and what its own files may leave out."""

from __future__ import annotations

from dataclasses import dataclass

NOT_STATED = "not stated"


@dataclass(frozen=True)
class About:
    """A model's licence, training data and source (`hf:OWNER/NAME@COMMIT`), for its card."""

    licence: str
    trained_on: str
    source: str
