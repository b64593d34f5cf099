"""The filter grammar, apart from any engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.errors import QueryError
from cbir.index.filters import Condition, as_number, parse


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("label=cat", Condition("label", "=", ("cat",))),
        ("  label  =  cat  ", Condition("label", "=", ("cat",))),
        ("label=cat,dog", Condition("label", "=", ("cat", "dog"))),
        ("label=cat, dog", Condition("label", "=", ("cat", "dog"))),
        ("label!=cat,dog", Condition("label", "!=", ("cat", "dog"))),
        ('label="cats, dogs",birds', Condition("label", "=", ("cats, dogs", "birds"))),
        ('label=""', Condition("label", "=", ("",))),
        ('label="=x"', Condition("label", "=", ("=x",))),
        ("label=a b", Condition("label", "=", ("a b",))),
        ("label=a<b", Condition("label", "=", ("a<b",))),
        ("label=été", Condition("label", "=", ("été",))),
        ("width>=640", Condition("width", ">=", ("640",))),
        ("width<=6.4e2", Condition("width", "<=", ("6.4e2",))),
        ("height<3", Condition("height", "<", ("3",))),
        ("height > 3", Condition("height", ">", ("3",))),
        ("missing=yes", Condition("missing", "=", ("1",))),
        ("missing!=TRUE", Condition("missing", "!=", ("1",))),
        ("shop name=x", Condition("shop name", "=", ("x",))),
    ],
)
def test_a_filter_is_read(text: str, condition: Condition) -> None:
    assert parse([text], ["shop name"]) == [condition]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "FIELD OP VALUE"),
        ("label", "FIELD OP VALUE"),
        ("=cat", "FIELD OP VALUE"),
        ("label=", "FIELD OP VALUE"),
        ("label==cat", "FIELD OP VALUE"),
        ("width<1,2", "takes one value"),
        ("width=wide", "width is a number"),
        ("height<tall", "height is a number"),
        ("missing=perhaps", "missing=true"),
        ("missing<1", "missing=true"),
        ("lable=cat", "did you mean 'label'"),
        ("prise<3", "did you mean 'price'"),
        ("zzzzzz=3", "known: .*label.*price"),
        ("label=a\nb", "cannot be read"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_with_help(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse([text], ["price"])


def test_all_filters_are_read_in_order() -> None:
    assert [c.field for c in parse(["label=a", "width>1", "label=b"])] == [
        "label",
        "width",
        "label",
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("-3", -3), ("+4", 4), ("1.50", 1.5), (".5", 0.5), ("1e3", 1000.0)],
)
def test_numbers_are_numbers(text: str, number: float) -> None:
    assert as_number(text) == number


@pytest.mark.parametrize("text", ["", "cat", "1_000", "nan", "inf", "0x10", "1 2", "١٢"])
def test_words_are_no_numbers(text: str) -> None:
    assert as_number(text) is None


@given(st.text(max_size=40))
def test_any_text_is_either_read_or_refused_in_words(text: str) -> None:
    try:
        (condition,) = parse([text])
    except QueryError as error:
        assert error.hint
    else:
        assert condition.values


@given(st.lists(st.text(alphabet="abc xyz,'", min_size=1, max_size=8), min_size=1, max_size=4))
def test_quoted_values_come_back_as_they_were(values: list[str]) -> None:
    values = [value.strip() or "x" for value in values]
    quoted = ",".join(f'"{value}"' for value in values)
    assert parse([f"label={quoted}"])[0].values == tuple(values)
