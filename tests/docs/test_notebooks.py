"""The notebook of the tutorial runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorial.ipynb"
MAX_BYTES = 300_000
TIMEOUT = 300


def read() -> Any:
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def shown(notebook: Any) -> list[list[str]]:
    """What each code cell shows: the forms of its answers."""
    return [
        [form for output in cell.outputs for form in sorted(output.get("data", {}))]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def figures(notebook: Any) -> list[tuple[str, list[float]]]:
    """Every answer that holds decimals: its words without them, and the decimals."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/plain", "")
            decimals = re.findall(r"\d+\.\d+", text)
            if decimals:
                words = " ".join(re.sub(r"\d+\.\d+", "#", text).split())
                found.append((words, [float(number) for number in decimals]))
    return found


@pytest.mark.slow
def test_the_tutorial_runs_and_shows_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stored, executed = read(), read()
    client = NotebookClient(
        executed, timeout=TIMEOUT, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises where a cell does
    assert shown(executed) == shown(stored)
    told, known = figures(executed), figures(stored)
    assert [words for words, _ in told] == [words for words, _ in known] and len(told) >= 3
    for (_, new), (_, old) in zip(told, known, strict=True):
        # Another processor may round otherwise, not more.
        assert new == pytest.approx(old, abs=0.005)
    assert sum("image/png" in forms for forms in shown(executed)) >= 4


def test_the_stored_tutorial_is_small_and_complete() -> None:
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(cells) >= 10
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data"}
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
