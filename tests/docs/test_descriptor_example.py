"""The descriptor that docs/descriptors.md shows keeps the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cbir.testing import check_descriptor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "descriptors.md"


def test_the_descriptor_of_the_page_keeps_the_contract() -> None:
    example = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0]
    names: dict[str, Any] = {}
    exec(example, names)
    check_descriptor(names["MeanColour"]())
