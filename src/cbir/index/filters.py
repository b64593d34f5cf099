"""The filter grammar `FIELD OP VALUE`, shared by all engines.

Operators: `=`, `!=`, `<`, `<=`, `>`, `>=`, and `~` for "contains". `FIELD=a,b` means any of,
`FIELD!=a,b` none of. A value in double quotes is taken as it is; `""` inside stands for one quote.
Outside quotes, text equals its Unicode compositions, a date such as `2024-05` in metadata stands
for all of its days, and `*` and `?` in a `folder` are wildcards. A record without the field never
matches. A number in a record is compared as a number, any other value as text, by code points.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from cbir.errors import FilterQuotesError, QueryError
from cbir.types import MetadataValue
from cbir.wording import did_you_mean

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]

TEXT_FIELDS = ("label", "id", "source", "location", "path")
ENCODED_FIELDS = ("id", "location", "source")
NUMBER_FIELDS = ("width", "height")
FLAG_FIELDS = ("missing",)
FIELDS = TEXT_FIELDS + NUMBER_FIELDS + FLAG_FIELDS
FOLDER = "folder"
"""The folder of the location; a metadata field of that name hides it."""
TAKEN = "taken"
"""The metadata field of the date taken."""

EXAMPLE = "write FIELD OP VALUE, such as label=cat, label=cat,dog or width>=640"

_OPERATION = re.compile(r"\s*(!=|<=|>=|=|<|>|~)\s*(.*\S)\s*", re.DOTALL)
_ANY_FIELD = re.compile(r"\s*([^=!<>~]*[^=!<>~\s])\s*(!=|<=|>=|=|<|>|~)\s*\S.*", re.DOTALL)
_VALUE = re.compile(r'\s*+(?:"((?:[^"]|"")*+)"\s*+|(?!")([^,]*+))(,|\Z)', re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d:\d\d)?)?)?", re.ASCII)
_STORED_DATE = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d)?)?)?", re.ASCII)
_CAMERA_DATE = re.compile(r"(\d{4}):(\d\d)(?::(\d\d))?(?:[ T]+(\d\d:\d\d.*))?", re.ASCII)
_FLAGS = {"true": "1", "yes": "1", "1": "1", "false": "0", "no": "0", "0": "0"}

# What follows a date of this length in the texts of its period, as pairs of first and end.
_WITHIN = {
    4: [("-0", "-2")],
    7: [("-0", "-4")],
    10: [(" 0", " 3"), ("T0", "T3")],
    16: [(":0", ":6")],
}
_LAST = "\U0010ffff"
_LONGEST_PATTERN = 1000  # Elasticsearch's default for index.max_regex_length
_MOST_STARS = 2  # in a folder, apart from a final /*
_MOST_FILTERS = 100
_MOST_VALUES = 4_000  # of all filters; each may take seven variables of the 32,766 of SQLite
# One character of a location: as it is, one byte, or white space of two or three bytes. Anything
# looser could be matched in so many ways that one location takes seconds.
_ONE = "([^%/]|%[0-9A-F]{2}|%C2%[89AB][0-9A-F]|%E[1-3](%[89AB][0-9A-F]){2})"
_ESCAPED = re.compile(r"[!-/:-@\[-`{-~]")
_UNSAFE = re.compile("[%\\s\x00-\x1f\x7f-\x9f]")  # as in images.ids.encode_path
_NEVER_IN_IDS = re.compile("%(?![0-9A-Fa-f]{2})|[\\s\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter, in terms that every engine can compare.

    `field` and `operator` are those of the record: `path` and `folder` have become `location`, and
    `~` has become `=`. `values` are as written, one, or several for `=` and `!=`; numbers compare
    with them. Text compares with `texts`, for `=` and `!=` also with `spans` (from the first text,
    before the second). If there is a `pattern`, a regular expression of Lucene and Python, text
    has to match it as a whole instead, and numbers never do.
    """

    field: str
    operator: Operator
    values: tuple[str, ...]
    texts: tuple[str, ...] = ()
    spans: tuple[tuple[str, str], ...] = ()
    pattern: str = ""

    def numbers(self) -> list[int | float]:
        """The values that are numbers."""
        found = [as_number(value) for value in self.values]
        return [number for number in found if number is not None]


def parse(where: Sequence[str], metadata_fields: Iterable[str] = ()) -> list[Condition]:
    """Parse the filters in `where`, which are combined with AND.

    `metadata_fields` are the index's metadata keys. Raises `QueryError` for bad syntax, an unknown
    field, a numeric field compared with text, and for too many filters or values.
    """
    where = texts(where)
    if len(where) > _MOST_FILTERS:
        raise QueryError(f"{len(where):,} filters are too many", f"give at most {_MOST_FILTERS}")
    metadata = set(metadata_fields)
    known = [*FIELDS, FOLDER, *sorted(metadata)]
    found = [_parse_one(text, known, FOLDER not in metadata) for text in where]
    values = sum(len(condition.values) for condition in found)
    if values > _MOST_VALUES:
        raise QueryError(f"the filters have {values:,} values", f"give at most {_MOST_VALUES:,}")
    return found


def texts(where: object) -> tuple[str, ...]:
    """The filters in `where`: one, several, or None; raises `QueryError` for anything else."""
    if isinstance(where, str):
        return (where,)
    found = tuple(where) if isinstance(where, Iterable) else () if where is None else (where,)
    for text in found:
        if not isinstance(text, str):
            raise QueryError(f"filter {text!r} is not text", EXAMPLE)
    return found


def date_in(field: str, value: str) -> str:
    """The date that `value` stands for in a filter of the metadata `field`; "" if it is none."""
    date = iso_date(value) if field == TAKEN else value
    return date if _DATE.fullmatch(date) or date != value else ""


def field_of(text: str, fields: Iterable[str]) -> str | None:
    """The one of `fields` that the filter `text` compares, None if it is another."""
    start = text.lstrip()
    for name in sorted(filter(None, fields), key=len, reverse=True):
        if start.startswith(name) and _OPERATION.fullmatch(start, len(name)):
            return name
    return None


def equals(field: str, value: MetadataValue) -> str:
    """The filter that finds the records with this value: `label="tench, Tinca tinca"`."""
    return f"{field}={quote(value) if isinstance(value, str) else value}"


def quote(value: str) -> str:
    """`value` as a filter takes it: in double quotes if it could mean anything else."""
    means_itself = (
        value == value.strip() != ""
        and not value.startswith(('"', "="))
        and not any(character in value for character in ",*?")
        and not _DATE.fullmatch(value)
        and iso_date(value) == value
    )
    return value if means_itself else in_quotes(value)


def in_quotes(value: str) -> str:
    """`value` as a filter takes exactly this text, and no other Unicode form of it."""
    return '"' + value.replace('"', '""') + '"'


def spellings(text: str) -> list[str]:
    """The ids that `text` can name.

    White space, and `%` that encodes nothing, are encoded; accented letters are composed or
    decomposed.
    """
    return list(dict.fromkeys([text, *_forms(_as_stored(text))]))


def as_number(text: str) -> int | float | None:
    """`text` as a number, or None."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def is_date(text: str) -> bool:
    """Whether `text` is a date that compares as one: `2024-05`, `2024-05-03T12:30:45`."""
    return _STORED_DATE.fullmatch(text) is not None


def iso_date(text: str) -> str:
    """A date as cameras or spreadsheets write it (`2024:05:03 12:30:45`) as `2024-05-03T12:30:45`.

    Any other text is returned unchanged.
    """
    if found := _CAMERA_DATE.fullmatch(text):
        day = "-".join(part for part in found.groups()[:3] if part)
        text = f"{day}T{found[4]}" if found[4] else day
    if _STORED_DATE.fullmatch(text):
        return text.replace(" ", "T")
    return text


def _parse_one(text: str, known: Sequence[str], has_folder: bool) -> Condition:
    name, operator, right = _split(text, known)
    found = _values(text, name, operator, right)
    values = tuple(value for value, _ in found)
    if len(values) > 1 and operator not in ("=", "!=", "~"):
        raise QueryError(f"filter '{text}': {operator} takes one value", EXAMPLE)
    if name in FLAG_FIELDS:
        values = _flags(text, operator, values)
    if name in NUMBER_FIELDS and (operator == "~" or None in map(as_number, values)):
        raise QueryError(f"filter '{text}': {name} is a number", EXAMPLE)
    if name == FOLDER and has_folder:
        return _in_folder(text, operator, found)
    field = "location" if name == "path" else name
    if field in ENCODED_FIELDS:
        found = [(_as_stored(value), as_is) for value, as_is in found]
        values = tuple(value for value, _ in found)
    if operator == "~":
        pattern = _checked_pattern(text, f".*({_either(values)}).*")
        return Condition(field, "=", values, pattern=pattern)
    made = Condition(field, operator, values, values)  # type: ignore[arg-type]  # not ~
    if operator in ("=", "!="):
        forms = [form for value, as_is in found for form in ([value] if as_is else _forms(value))]
        made = replace(made, texts=tuple(dict.fromkeys(forms)))
    return made if field in FIELDS else _with_dates(made, found)


def _split(text: str, known: Sequence[str]) -> tuple[str, str, str]:
    """Field, operator and the text of the values."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # from a command line in another encoding
        raise QueryError(f"filter {text!r} is not valid Unicode", "send it as UTF-8") from error
    name = field_of(text, known)
    if name is None:
        match = _ANY_FIELD.fullmatch(text)
        if match is None:
            field, equal, _ = text.strip().partition("=")
            if equal and field.rstrip("! ") == FOLDER:  # of images at the top of the source
                raise FilterQuotesError(text, f'{text.strip()}""')
            raise QueryError(f"filter '{text}' cannot be read", EXAMPLE)
        raise QueryError(
            f"filter '{text}': unknown field '{match[1]}'", did_you_mean(match[1], sorted(known))
        )
    match = _OPERATION.fullmatch(text.lstrip(), len(name))
    assert match is not None  # field_of has matched it
    return name, match[1], match[2]


def _values(text: str, field: str, operator: str, right: str) -> list[tuple[str, bool]]:
    """The values, and whether each is in quotes."""
    found: list[tuple[str, bool]] = []
    at, more = 0, not right.startswith("=")
    while more and (match := _VALUE.match(right, at)):
        quoted, bare, comma = match.groups()
        found.append((bare.strip(), False) if quoted is None else (_unquoted(quoted), True))
        at, more = match.end(), bool(comma)
    if more or not found:
        raise FilterQuotesError(text, f"{field}{operator}{quote(right)}")
    return found


def _unquoted(text: str) -> str:
    return text.replace('""', '"')


def _flags(text: str, operator: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if operator not in ("=", "!=") or any(value.lower() not in _FLAGS for value in values):
        raise QueryError(f"filter '{text}' cannot be read", "write missing=true or missing=false")
    return tuple(_FLAGS[value.lower()] for value in values)


def _with_dates(condition: Condition, found: Sequence[tuple[str, bool]]) -> Condition:
    """`condition` with each date outside quotes as its period."""
    texts, spans = list(condition.texts), []
    for value, as_is in found:
        date = date_in(condition.field, value)
        if as_is or not date:
            continue
        within = _WITHIN.get(len(date), [])
        if condition.operator in ("=", "!="):
            texts.append(date)
            spans += [(date + first, date + end) for first, end in within]
        elif condition.operator in ("<", ">="):
            texts = [date]
        elif within:  # after the last text of the period, or up to it
            end = within[-1][1]
            texts = [f"{date}{end[0]}{int(end[1]) - 1}{_LAST}"]
        else:
            texts = [date]
    return replace(condition, texts=tuple(dict.fromkeys(texts)), spans=tuple(spans))


def _in_folder(text: str, operator: str, found: Sequence[tuple[str, bool]]) -> Condition:
    """The condition on `location` that its folder meets; `X/*` includes the folder X itself."""
    values = tuple(value for value, _ in found)
    if operator == "~":
        folders = [f".*({_either(map(_encoded, values))}).*/[^/]*"]
    elif operator in ("=", "!="):
        # Each * multiplies the time that a regular expression may take.
        if any(
            value.removesuffix("/*").count("*") > _MOST_STARS for value, as_is in found if not as_is
        ):
            raise QueryError(f"filter '{text}' has too many *", f"write at most {_MOST_STARS}")
        folders = [
            pattern
            for value, as_is in found
            for form in ([value] if as_is else _forms(value))
            for pattern in [_literal_folder(form) if as_is else _folder(form)]
        ]
    else:
        raise QueryError(f"filter '{text}': folder takes =, != or ~", "write folder=trips/*")
    pattern = _checked_pattern(text, "|".join(dict.fromkeys(folders)))
    return Condition("location", "!=" if operator == "!=" else "=", values, pattern=pattern)


def _literal_folder(folder: str) -> str:
    return (f"{_escape(_encoded(folder))}/" if folder else "") + "[^/]*"


def _folder(glob: str) -> str:
    if glob == "*":
        return ".*"
    glob = glob.rstrip("/")
    folder, below = (glob[:-2], "(/.*)?") if glob.endswith("/*") else (glob, "")
    if not folder:
        return "[^/]*"
    wild = {"*": ".*", "?": _ONE}
    parts = [wild.get(part) or _escape(_encoded(part)) for part in re.split(r"([*?])", folder)]
    return "".join(parts) + below + "/[^/]*"


def _checked_pattern(text: str, pattern: str) -> str:
    if len(pattern.encode("utf-16-le")) > 2 * _LONGEST_PATTERN:  # the server counts as Java does
        raise QueryError(f"filter '{text}' is too long", "search for a shorter part of the value")
    return pattern


def _either(values: Iterable[str]) -> str:
    """The pattern of any of `values`, in upper or lower case."""
    forms = dict.fromkeys(form for value in values for form in _forms(value))
    return "|".join("".join(map(_in_any_case, form)) for form in forms)


def _in_any_case(character: str) -> str:
    cases = [c for c in (character.lower(), character.upper()) if len(c) == 1 and c != character]
    return f"[{character}{''.join(cases)}]" if cases else _escape(character)


def _escape(text: str) -> str:
    """`text` as a pattern: Lucene and Python both take any ASCII punctuation after a backslash."""
    return _ESCAPED.sub(lambda match: f"\\{match[0]}", text)


def _encoded(text: str) -> str:
    """A path on disk as it stands in a location."""
    return _UNSAFE.sub(_as_bytes, text)


def _as_stored(text: str) -> str:
    """An id or a location whose white space may not be encoded yet, as it is stored."""
    return _NEVER_IN_IDS.sub(_as_bytes, text)


def _as_bytes(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _forms(text: str) -> list[str]:
    """`text` and what looks the same: file systems compose and decompose accented letters."""
    if text.isascii():
        return [text]
    forms = [text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
    return list(dict.fromkeys(forms))
