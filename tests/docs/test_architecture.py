"""ARCHITECTURE.md names files and layers that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def test_every_file_and_folder_that_it_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.\w+|/))`", TEXT)) - {"model/"}
    assert len(named) > 30
    missing = [
        n
        for n in named
        if not any((base / n).exists() for base in (ROOT, ROOT / "src/cbir", ROOT / "src"))
    ]
    assert not missing


def test_its_layers_are_those_that_import_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [re.findall(r"\w+", layer) for layer in contracts["contracts"][0]["layers"]]
    block = re.search(r"```\n(cli\n.*?)```", TEXT, re.S)
    assert block
    drawn = [re.findall(r"\w+", line) for line in block.group(1).splitlines()]
    assert drawn == [layer for layer in layers if layer != ["__main__"]]
