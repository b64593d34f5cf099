"""What a search without hits says about its filters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cbir.errors import QueryError
from cbir.index.base import Index
from cbir.search.near_misses import near_misses, warn_of_near_misses
from cbir.testing import make_entry, unit
from tests.index.embedded.support_index import new_index

LABELS = ("tench, Tinca tinca", "trail ", "plain", "=odd", "plain")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    entries = [
        make_entry(
            f"a/my%20trips/{number}.png",
            unit(np.ones((1, 8))),
            label=label,
            metadata={"price": number, "taken": f"2024-0{number + 1}-01T12:00:00", "note": label},
        )
        for number, label in enumerate(LABELS)
    ]
    made = new_index(tmp_path_factory.mktemp("near") / "a.cbir", entries)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("where", "near"),
    [
        ("label=tench, Tinca tinca", ['label="tench, Tinca tinca"']),
        ("label!=plain,trail", []),  # matches others
        ("label=trail", ['label="trail "']),
        ("label=PLAIM", ["label=plain"]),
        ("label=Tinca", ['label="tench, Tinca tinca"']),
        ("folder=trip", ["folder=my trips"]),
        ("note=odd", ['note="=odd"']),
        ("note~plian", ["note=plain"]),
        ("folder=my trip", ["folder=my trips"]),
        ("source=b", []),
        ("price>99", []),
        ("taken>=2031-05-01T12:00:00", []),
        ("path=my%20trip/4.png", [f"path=my%20trips/{n}.png" for n in (2, 3, 4)]),
    ],
)
def test_similar_values_are_suggested_as_filters_that_match(
    index: Index, where: str, near: list[str]
) -> None:
    vector = unit(np.ones((1, 8)))
    found = near_misses(index, [where])
    assert sorted(found[0].near if found else []) == sorted(near)
    for miss in found:
        for suggestion in [*miss.near, *miss.others]:
            assert index.search(vector, 1, where=[suggestion])[0].ids, suggestion


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("price>99", "no image has price>99; there is, for example, price=0, price=4"),
        ("missing=true", "no image has missing=true; there is, for example, missing=false"),
        ("label=plian", "no image has label=plian; did you mean label=plain?"),
        (
            "taken=2030",
            "no image has taken=2030; there is, for example, taken=2024",
        ),
        (
            "taken=2024-02-20",
            "no image has taken=2024-02-20; there is, for example, taken=2024-02-01, "
            "taken=2024-03-01",
        ),
    ],
)
def test_a_sentence_says_what_there_is(index: Index, where: str, sentence: str) -> None:
    (miss,) = near_misses(index, [where])
    assert miss.sentence() == sentence


def test_only_filters_that_nothing_matches_alone_are_told(
    index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    assert near_misses(index, ["label=plain", "price=0"]) == []
    with caplog.at_level(logging.WARNING, "cbir.search.near_misses"):
        warn_of_near_misses(index, ["price=0", "label=tench, tinca"])
    assert caplog.messages == [
        "no image has 'label=tench, tinca'; did you mean 'label=\"tench, Tinca tinca\"'?"
    ]
    with pytest.raises(QueryError, match="did you mean 'price'"):
        near_misses(index, ["prise=0"])


def test_only_the_first_of_many_filters_and_values_are_compared(index: Index) -> None:
    found = near_misses(index, [f"label=x{number},plian" for number in range(50)])
    assert [miss.filter for miss in found] == ["label=x0,plian", "label=x1,plian", "label=x2,plian"]
    assert found[0].near == ["label=plain"]
    assert near_misses(index, [f"label={','.join('uvwxyz')},plian"])[0].near == []


def test_an_empty_index_has_no_near_misses(tmp_path: Path) -> None:
    made = new_index(tmp_path / "empty.cbir")
    assert near_misses(made, ["label=cat"]) == []
    made.close()
