"""The fields that an index has, with their types and examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cbir.index.fields import described_fields
from cbir.testing import make_entry, unit
from cbir.types import MetadataValue
from tests.index.embedded.support_index import new_index


@pytest.mark.parametrize(
    ("values", "kind", "examples"),
    [
        (["b", "a", "b", "c", "d"], "text", ["b", "a", "c"]),
        ([3, 2.5, 3], "number", [3, 2.5]),
        (["2024-05-03T12:30:45", "2024-05"], "date", ["2024-05", "2024-05-03T12:30:45"]),
        (["2024-05", "soon"], "text", ["2024-05", "soon"]),
        (["on request", 7], "text or number", [7, "on request"]),
    ],
)
def test_types_are_those_of_the_values(
    tmp_path: Path, values: list[MetadataValue], kind: str, examples: list[MetadataValue]
) -> None:
    vector = unit(np.ones((1, 8)))
    entries = [make_entry(f"a/{n}", vector, metadata={"f": v}) for n, v in enumerate(values)]
    index = new_index(tmp_path / "a.cbir", [*entries, make_entry("a/z", vector)])
    *sizes, field = described_fields(index)
    index.close()
    assert [size["name"] for size in sizes] == ["width", "height"]
    assert field == {"name": "f", "type": kind, "examples": examples}
