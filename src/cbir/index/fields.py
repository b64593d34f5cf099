"""The fields of an index that filters can use, as `cbir info` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cbir.index.base import Index
from cbir.index.filters import NUMBER_FIELDS, is_date
from cbir.types import MetadataValue

_RECORDS, _DIFFERENT = 10_000, 100
_SHOWN = 3


def described_fields(index: Index) -> list[dict[str, Any]]:
    """Label, size and metadata fields that have a value: `name`, `type` and `examples`.

    The type is "text", "number", "date" or "text or number". The examples are the most frequent
    values in the first records.
    """
    names = dict.fromkeys(["label", *NUMBER_FIELDS, *index.metadata_fields()])
    found = ((name, index.values(name, _DIFFERENT, _RECORDS)) for name in names)
    return [
        {"name": name, "type": _type(values), "examples": values[:_SHOWN]}
        for name, values in found
        if values
    ]


def _type(values: Sequence[MetadataValue]) -> str:
    texts = [value for value in values if isinstance(value, str)]
    if not texts:
        return "number"
    if len(texts) < len(values):
        return "text or number"
    return "date" if _are_dates(texts) else "text"


def _are_dates(texts: Iterable[str]) -> bool:
    return all(map(is_date, texts))
