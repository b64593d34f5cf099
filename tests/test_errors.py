"""Hints on installing fit where this installation came from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cbir
from cbir.errors import MissingExtraError, how_to_install

WHEEL = "cbir-1.2.3-py3-none-any.whl"


def installed(folder: Path, told: dict[str, Any] | None) -> str:
    """The hint of a cbir that pip has put into `folder`, `told` in its `direct_url.json`."""
    (folder / "cbir").mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(Path(cbir.__file__).with_name(name), folder / "cbir" / name)
    facts = folder / "cbir-1.2.3.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: cbir\nVersion: 1.2.3\n")
    if told is not None:
        (facts / "direct_url.json").write_text(json.dumps(told))
    code = "from cbir.errors import how_to_install; print(how_to_install('photos'))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.strip()


FROM_CLONE = "pip install '.[photos]' in the clone of cbir"


@pytest.mark.parametrize(
    ("told", "hint"),
    [
        ({"url": "file:///home/me/cbir", "dir_info": {}}, FROM_CLONE),
        (
            {"url": f"file:///home/me/{WHEEL}", "archive_info": {}},
            f"pip install './{WHEEL}[photos]'",
        ),
        (None, f"{FROM_CLONE}, or pip install './{WHEEL}[photos]'"),
    ],
)
def test_a_hint_names_the_clone_or_the_wheel(
    tmp_path: Path, told: dict[str, Any] | None, hint: str
) -> None:
    assert installed(tmp_path, told) == hint


def test_in_a_clone_the_installation_stays_editable(monkeypatch: pytest.MonkeyPatch) -> None:
    clone = Path(cbir.__file__).parents[2]
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert how_to_install("hub") == "pip install -e '.[hub]' in the clone of cbir"
    assert how_to_install() == "pip install -e '.' in the clone of cbir"
    monkeypatch.setattr(sys, "executable", str(clone / ".venv" / "bin" / "python"))
    hint = ".venv/bin/pip install -e '.[hub]' in the clone of cbir"
    assert MissingExtraError("x", "hub").hint == hint
