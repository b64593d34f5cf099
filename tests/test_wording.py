"""Hints as people read them."""

from __future__ import annotations

from cbir.wording import did_you_mean, shown_size


def test_a_slip_is_told_the_nearest_name_and_anything_else_what_there_is() -> None:
    assert did_you_mean("reddish", ["red", "blue", "redish"]) == "did you mean 'redish'?"
    assert did_you_mean("???", ["red", "blue"]) == "known: red, blue"
    assert did_you_mean("???", ["red"], "give a colour") == "give a colour"


def test_a_size_is_shown_in_a_unit_that_fits() -> None:
    sizes = (0, 3_241, 99_949, 100_000, 5_322_189, 1_234_500_000)
    shown = ["0.0 kB", "3.2 kB", "99.9 kB", "0.1 MB", "5.3 MB", "1,234.5 MB"]
    assert list(map(shown_size, sizes)) == shown
