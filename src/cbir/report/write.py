"""Writing a report: `index.html`, which holds all it needs, and `report.md` with its pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbir.errors import CbirError
from cbir.experiment import Evaluation
from cbir.report.content import Report
from cbir.report.drawing import require_matplotlib
from cbir.report.markdown import markdown
from cbir.report.page import page
from cbir.report.runs import JudgedRun, runs_report
from cbir.report.single import single_report
from cbir.search import Searcher


def write_report(
    target: Path,
    evaluation: Evaluation,
    searcher: Searcher,
    *,
    command: str,
    comparisons: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write the report of `evaluation` of `searcher`'s index into the folder `target`.

    `command` is the line that makes it again;
    `comparisons` as
    `cbir evaluate --json` gives them. Returns the files, `index.html` first. Other files in
    `target` are left alone. Raises `MissingExtraError` without matplotlib and `CbirError` where
    `target` cannot be written.
    """
    require_target(target)
    report = single_report(evaluation, searcher, command=command, comparisons=comparisons)
    return _write(target, report)


def write_runs_report(
    target: Path,
    runs: Sequence[JudgedRun],
    *,
    qrels: str,
    command: str,
    comparisons: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write the report of `runs` (see `judged_run`), judged by the file `qrels`; as above."""
    require_target(target)
    return _write(target, runs_report(runs, qrels=qrels, command=command, comparisons=comparisons))


def require_target(target: Path) -> None:
    """Raise where no report can be made or written to `target`: best before the long work."""
    require_matplotlib()
    if target.exists() and not target.is_dir():
        raise CbirError(f"{target} is a file", "--report takes a folder")


def _write(target: Path, report: Report) -> list[Path]:
    text, pictures = markdown(report)
    files = {"index.html": page(report).encode(), "report.md": text.encode(), **pictures}
    try:
        for name, data in files.items():
            _write_file(target / name, data)
    except OSError as error:
        raise CbirError(
            f"cannot write {error.filename or target}: {error.strerror or error}",
            "choose another folder for --report",
        ) from error
    return [target / name for name in files]


def _write_file(path: Path, data: bytes) -> None:
    """Write `data` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
