"""Says which filters no record can match, and what may have been meant."""

from __future__ import annotations

import logging
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

from cbir.index.base import Index
from cbir.index.filters import (
    FIELDS,
    FLAG_FIELDS,
    FOLDER,
    date_in,
    equals,
    field_of,
    is_date,
    parse,
)
from cbir.types import MetadataValue
from cbir.wording import most_similar, shell_word

log = logging.getLogger(__name__)

_COMPARED = 10_000
_SHOWN = 3
_DAY = len("2024-05-03")


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A filter that no record matches: `near` are filters with a similar value that some match,
    `others` filters with other values of the field if there is none."""

    filter: str
    near: list[str]
    others: list[str]

    def sentence(self, shown: Callable[[str], str] = str) -> str:
        """The problem and the suggestions in one line; `shown` quotes a filter."""
        problem = f"no image has {shown(self.filter)}"
        if self.near:
            return f"{problem}; did you mean {' or '.join(map(shown, self.near))}?"
        if self.others:
            return f"{problem}; there is, for example, {', '.join(map(shown, self.others))}"
        return f"{problem}, as none has that field"


def near_misses(index: Index, where: Sequence[str]) -> list[NearMiss]:
    """The first filters of `where` that no record of the index matches, not even alone.

    An empty index has none. Raises `QueryError` for a filter that cannot be read.
    """
    if not index.count():
        return []
    missed = (text for text in where if next(index.ids([text]), None) is None)
    return [_near(index, text) for text in islice(missed, _SHOWN)]


def warn_of_near_misses(index: Index, where: Sequence[str]) -> None:
    """Log the near misses of a search without hits, quoted for a shell."""
    if not log.isEnabledFor(logging.WARNING):
        return
    for miss in near_misses(index, where):
        log.warning("%s", miss.sentence(shell_word))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Log no near misses in this block, whose caller tells them."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _near(index: Index, text: str) -> NearMiss:
    metadata = index.metadata_fields()
    field = field_of(text, [*FIELDS, FOLDER, *metadata])
    assert field is not None  # it was searched with
    if field in FLAG_FIELDS:
        flags = index.values(field, 2)
        return NearMiss(text, [], [f"{field}={'true' if flag else 'false'}" for flag in flags])
    values = _values(index, field, metadata)
    (condition,) = parse([text], metadata)
    if field in metadata and (dates := _dates(field, condition.values[0], values)):
        return NearMiss(text, [], dates)
    if condition.operator not in ("=", "!="):
        ends = _extremes(values, numeric=bool(condition.numbers()))
        return NearMiss(text, [], [equals(field, value) for value in ends])
    right = text.strip()[len(field) :].lstrip("!<>=~ ")
    # A value with commas may have been written without quotes.
    asked = list(dict.fromkeys([right, *condition.values]))[: 1 + _SHOWN]
    near = _similar(asked, [value for value in values if isinstance(value, str)])
    return NearMiss(
        text,
        near=[equals(field, value) for value in near],
        others=[equals(field, value) for value in values[:_SHOWN]],
    )


def _dates(field: str, value: str, values: Sequence[MetadataValue]) -> list[str]:
    """Filters with the dates just before and after the one asked for, as exact, up to a day.

    If it is outside of all dates, or no date, those with the first and the last one. None if the
    field does not hold dates.
    """
    asked = date_in(field, value)
    known = [value for value in values if isinstance(value, str) and is_date(value)]
    if not known or not (asked or len(known) == len(values)):
        return []
    exact = len(asked[:_DAY]) or _DAY
    dates = sorted({date[:exact] for date in known})
    after = bisect(dates, asked[:exact])
    around = dates[after - 1 : after + 1] if 0 < after < len(dates) else [dates[0], dates[-1]]
    return [f"{field}={date}" for date in dict.fromkeys(around)]


def _extremes(values: Sequence[MetadataValue], numeric: bool) -> list[MetadataValue]:
    """The least and the greatest number or text; all `values` if there is none."""
    comparable: list[Any] = [v for v in values if isinstance(v, str) != numeric]
    return [min(comparable), max(comparable)] if comparable else list(values[:_SHOWN])


def _values(index: Index, field: str, metadata: Sequence[str]) -> Sequence[MetadataValue]:
    """Values of a field, the most frequent first; of ids and folders, those of the first ids."""
    if field in metadata or field not in (FOLDER, "id", "path", "location"):
        return index.values(field, _COMPARED)
    ids = list(islice(index.ids(), _COMPARED))
    if field == "id":
        return ids
    places = [record_id.partition("/")[2] for record_id in ids]
    if field != FOLDER:
        return places
    return list(dict.fromkeys(unquote(place.rpartition("/")[0]) for place in places))


def _similar(asked: Sequence[str], values: Sequence[str]) -> list[str]:
    """The values most similar to what was asked for, then those that contain it, in any case."""
    by_fold = {value.strip().casefold(): value for value in reversed(values)}
    folded = [text.strip().casefold() for text in asked]
    close = [match for text in folded for match in most_similar(text, by_fold, _SHOWN)]
    close += [value for text in folded if text for value in by_fold if text in value]
    return [by_fold[match] for match in dict.fromkeys(close)][:_SHOWN]
