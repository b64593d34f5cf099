"""ARCHITECTURE.md names files and layers that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def test_every_file_and_folder_that_it_names_exists() -> None:
    named = {n for n in re.findall(r"`([\w/]+(?:\.(?:py|md)|/))`", TEXT) if "/" in n[:-1]}
    assert len(named) > 30
    places = (ROOT, ROOT / "src", ROOT / "src" / "cbir")
    assert [n for n in sorted(named) if not any((place / n).exists() for place in places)] == []


def test_its_layers_are_those_that_import_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [re.findall(r"\w+", layer) for layer in contracts["contracts"][0]["layers"]]
    block = re.search(r"```\n(cli\n.*?)```", TEXT, re.S)
    assert block
    drawn = [re.findall(r"\w+", line) for line in block.group(1).splitlines()]
    assert drawn == [layer for layer in layers if layer != ["__main__"]]
