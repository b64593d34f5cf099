"""The notebooks run as they stand."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
TUTORIAL, TRAINING = DOCS / "tutorial.ipynb", DOCS / "training-tutorial.ipynb"
MAX_BYTES = 300_000


def read(notebook: Path) -> Any:
    import nbformat

    return nbformat.read(notebook, as_version=4)


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, int], Any]]:
    """Executes a notebook, with a limit in seconds for each cell; raises where a cell does."""
    # Its path is short, because Ray makes sockets in it.
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:

        def executed(notebook: Path, timeout: int) -> Any:
            from nbclient import NotebookClient

            monkeypatch.setenv("IPYTHONDIR", str(Path(folder) / "ipython"))
            monkeypatch.setenv("TMPDIR", folder)
            answer = read(notebook)
            resources = {"metadata": {"path": folder}}
            NotebookClient(answer, timeout=timeout, resources=resources).execute()
            return answer

        yield executed


def shown(notebook: Any) -> list[list[str]]:
    """What each code cell shows: the forms of its answers."""
    return [
        [form for output in cell.outputs for form in sorted(output.get("data", {}))]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def texts(notebook: Any) -> list[str]:
    """The answers in words."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.get("data", {}).get("text/plain", "") for output in outputs]


def figures(notebook: Any) -> list[tuple[str, list[float]]]:
    """Every answer that holds decimals: its words without them, and the decimals."""
    found = []
    for text in texts(notebook):
        decimals = re.findall(r"\d+\.\d+", text)
        if decimals:
            words = " ".join(re.sub(r"\d+\.\d+", "#", text).split())
            found.append((words, [float(number) for number in decimals]))
    return found


@pytest.mark.slow
def test_the_tutorial_runs_and_shows_what_it_shows(execute: Callable[[Path, int], Any]) -> None:
    stored, executed = read(TUTORIAL), execute(TUTORIAL, 300)
    assert shown(executed) == shown(stored)
    told, known = figures(executed), figures(stored)
    assert [words for words, _ in told] == [words for words, _ in known] and len(told) >= 3
    for (_, new), (_, old) in zip(told, known, strict=True):
        # Another processor may round otherwise, not more.
        assert new == pytest.approx(old, abs=0.005)
    assert sum("image/png" in forms for forms in shown(executed)) >= 4


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.timeout(1800)
def test_the_training_notebook_runs_and_shows_what_it_shows(
    execute: Callable[[Path, int], Any],
) -> None:
    """Training rounds differently on every processor, so its figures are roughly the same."""
    stored, executed = read(TRAINING), execute(TRAINING, 900)
    assert shown(executed) == shown(stored)
    assert sum("image/png" in forms for forms in shown(executed)) == 4
    for notebook in (stored, executed):
        said = texts(notebook)
        # Tuning finds that mirrored digits do harm, and the winner is the better network.
        assert "False" in said
        [both] = [ast.literal_eval(text) for text in said if text.startswith("{'my-digits'")]
        first, tuned = both["my-digits"], both["tuned"]
        assert all(tuned[name] > first[name] > 0.8 for name in first)
        assert any("tuned is better than my-digits in nAP@100" in text for text in said)


@pytest.mark.parametrize("notebook", [TUTORIAL, TRAINING], ids=lambda path: path.stem)
def test_a_stored_notebook_is_small_and_complete(notebook: Path) -> None:
    assert notebook.stat().st_size < MAX_BYTES
    cells = [cell for cell in read(notebook).cells if cell.cell_type == "code"]
    assert len(cells) >= 10
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data"}
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
