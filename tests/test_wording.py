"""Hints as people read them."""

from __future__ import annotations

from time import process_time

from cbir.wording import did_you_mean, most_similar, shown_size


def test_a_slip_is_told_the_nearest_name_and_anything_else_what_there_is() -> None:
    assert did_you_mean("reddish", ["red", "blue", "redish"]) == "did you mean 'redish'?"
    assert did_you_mean("???", ["red", "blue"]) == "known: red, blue"
    assert did_you_mean("???", ["red"], "give a colour") == "give a colour"


def test_a_size_is_shown_in_a_unit_that_fits() -> None:
    sizes = (0, 3_241, 99_949, 100_000, 5_322_189, 1_234_500_000)
    shown = ["0.0 kB", "3.2 kB", "99.9 kB", "0.1 MB", "5.3 MB", "1,234.5 MB"]
    assert list(map(shown_size, sizes)) == shown


def test_similar_names_among_thousands_are_found_at_once() -> None:
    names = [f"photos/2023/holiday in Italy/IMG_{number:05}.jpg" for number in range(10_000)]
    start = process_time()
    assert most_similar("photos/2023/holidays in Italy/IMG_04711.jpg", names, 1) == [names[4711]]
    assert process_time() - start < 1
    assert most_similar("b", ["ab", "b", "c"], 3) == ["b", "ab"]
