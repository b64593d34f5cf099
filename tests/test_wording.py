"""Hints as people read them."""

from __future__ import annotations

from cbir.wording import did_you_mean


def test_a_slip_is_told_the_nearest_name_and_anything_else_what_there_is() -> None:
    assert did_you_mean("reddish", ["red", "blue", "redish"]) == "did you mean 'redish'?"
    assert did_you_mean("???", ["red", "blue"]) == "known: red, blue"
    assert did_you_mean("???", ["red"], "give a colour") == "give a colour"
