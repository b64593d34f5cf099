"""`cbir evaluate --report DIR`: a page about what was measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.cli.output import progress_bar, say

if TYPE_CHECKING:
    from cbir.evaluation import Compared, Evaluation
    from cbir.report.run_files import JudgedRun
    from cbir.search.searcher import Searcher


def check_report(target: Path | None, places: Sequence[str] = ()) -> None:
    """Raise `CbirError` where no report can be written to `target`, before anything is measured.

    Nor where it would lie in one of the `places`, indexes and sources: its plots would become
    pictures of the next evaluation.
    """
    from cbir.errors import CbirError

    if target is None:
        return
    from cbir.report.write import require_target

    require_target(target)
    for place in places:
        folder = Path(place)
        if folder.is_dir() and target.resolve().is_relative_to(folder.resolve()):
            raise CbirError(
                f"a report in {target} would lie among the files of {place}",
                "choose a folder beside it",
            )


def report_evaluation(target: Path, evaluation: Evaluation, searcher: Searcher) -> None:
    """Write the report of one index and say where it is."""
    from cbir.report.write import write_report

    with progress_bar("writing the report"):
        written = write_report(target, evaluation, searcher, command=_command_line())
    say(f"report: {written[0]}")


def report_indexes(target: Path, compared: Compared, searchers: Sequence[Searcher]) -> None:
    """Write the report that compares several indexes, with one of each, and say where it is."""
    from cbir.report.write import write_comparison

    with progress_bar("writing the reports"):
        written = write_comparison(target, compared, searchers, command=_command_line())
    say(f"report: {written[0]}")


def report_runs(
    target: Path,
    runs: Sequence[JudgedRun],
    files: Sequence[Path],
    comparisons: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of run files, judged by the first of `files`, and say where it is."""
    from cbir.report.write import write_runs_report

    written = write_runs_report(
        target, runs, files=files, command=_command_line(), comparisons=comparisons
    )
    say(f"report: {written[0]}")


def _command_line() -> str:
    """This command as it was typed, quoted for a shell."""
    return shlex.join(["cbir", *sys.argv[1:]])
