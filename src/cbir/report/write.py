"""Writes reports: a self-contained `index.html`, and `report.md` with its pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from cbir.errors import CbirError, write_hint
from cbir.evaluation import ComparedEvaluations, Evaluation
from cbir.evaluation.judging import JudgedRun
from cbir.files import require_writable, write_files
from cbir.measures.significance import Comparison
from cbir.report.case import case_of
from cbir.report.content import Report
from cbir.report.many_indexes import compared_cases, several_report
from cbir.report.markdown import markdown
from cbir.report.one_index import single_report
from cbir.report.page import page
from cbir.report.plot_style import require_matplotlib
from cbir.report.run_files import RunCurves, runs_report
from cbir.search.searcher import Searcher

_NOT_IN_A_NAME = re.compile(r"[^\w.-]+")


def write_report(
    target: Path, evaluation: Evaluation, searcher: Searcher, *, command: str
) -> list[Path]:
    """Write the report of `evaluation` of `searcher`'s index into the folder `target`.

    `command` is the command line that reproduces it. Returns the written files, `index.html` first.
    Other files in `target` are kept. Raises `MissingExtraError` without matplotlib and `CbirError`
    if `target` cannot be written.
    """
    require_target(target)
    return _write(target, single_report(case_of(evaluation, searcher), command=command))


def write_comparison(
    target: Path, compared: ComparedEvaluations, searchers: Sequence[Searcher], *, command: str
) -> list[Path]:
    """Write a report that compares several indexes, and one of each in a subfolder.

    `searchers` are in the order of `compared`; otherwise as in `write_report`.
    """
    require_target(target)
    cases = [
        case_of(evaluation, searcher)
        for evaluation, searcher in zip(compared.evaluations, searchers, strict=True)
    ]
    pages = [
        f"{number}-{_NOT_IN_A_NAME.sub('_', PurePath(name).name)}"
        for number, name in enumerate(compared.names, 1)
    ]
    several = compared_cases(compared, cases)
    written = _write(target, several_report(several, command=command, pages=pages))
    for page_of, case in zip(pages, cases, strict=True):
        written += _write(target / page_of, single_report(case, command=command))
    return written


def write_runs_report(
    target: Path,
    runs: Sequence[JudgedRun],
    curves: Sequence[RunCurves],
    comparisons: Sequence[Comparison] = (),
    *,
    files: Sequence[Path],
    command: str,
) -> list[Path]:
    """Write the report of `runs` and their `curves` (see `run_curves`), as `write_report` does.

    `files`: the qrels, then the run files.
    """
    require_target(target)
    return _write(target, runs_report(runs, curves, comparisons, files=files, command=command))


def require_target(target: Path) -> None:
    """Raise early if no report can be made or written to `target`."""
    require_matplotlib()
    there = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise CbirError(f"{there} is a file", "--report takes a folder")
    try:
        require_writable(there)
    except OSError as error:
        raise CbirError(
            f"cannot write to {there}: {error.strerror}",
            write_hint(error, "choose another folder for --report"),
        ) from error


def _write(target: Path, report: Report) -> list[Path]:
    text, pictures = markdown(report)
    files = {"index.html": page(report).encode(), "report.md": text.encode(), **pictures}
    try:
        write_files(files, target)
    except OSError as error:
        raise CbirError(
            f"cannot write {error.filename or target}: {error.strerror or error}",
            write_hint(error, "choose another folder for --report"),
        ) from error
    return [target / name for name in files]
