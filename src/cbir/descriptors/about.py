"""What people must know about a model, and what its own files may leave out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextDefaults:
    """Settings of a text tower, for those that the model's own files do not state.

    `context` is the number of tokens that the tower reads; `pad_to_context` fills shorter texts up
    to it; `lower_case` lower-cases a text before it is tokenized.
    """

    context: int
    pad_to_context: bool = False
    lower_case: bool = False


@dataclass(frozen=True)
class About:
    """A model's licence, training data and source (`hf:OWNER/NAME@COMMIT`), for its card."""

    licence: str
    trained_on: str
    source: str
    text: TextDefaults | None = None
