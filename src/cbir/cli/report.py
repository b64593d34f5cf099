"""`cbir evaluate --report DIR`: a page about what was measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.cli.output import say

if TYPE_CHECKING:
    from cbir.experiment import Evaluation
    from cbir.report.runs import JudgedRun
    from cbir.search import Searcher


def check_report(target: Path | None) -> None:
    """Raise `CbirError` where no report can be written to `target`, before anything is measured."""
    if target is not None:
        from cbir.report.write import require_target

        require_target(target)


def report_evaluation(
    target: Path,
    evaluation: Evaluation,
    searcher: Searcher,
    expand: int,
    figures: Mapping[str, Any],
) -> None:
    """Write the report of `evaluation` and say where it is.

    `figures` are what `--json` prints: of this index, or of several, of which it is the first.
    """
    from cbir.report.write import write_report

    written = write_report(
        target,
        evaluation,
        searcher,
        command=_command_line(),
        expand=expand,
        intervals=figures.get("runs", [figures])[0]["intervals"],
        comparisons=figures.get("comparisons", []),
    )
    say(f"report: {written[0]}")


def report_runs(
    target: Path,
    runs: Sequence[JudgedRun],
    qrels: Path,
    comparisons: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of run files and say where it is."""
    from cbir.report.write import write_runs_report

    written = write_runs_report(
        target, runs, qrels=qrels.name, command=_command_line(), comparisons=comparisons
    )
    say(f"report: {written[0]}")


def _command_line() -> str:
    """This command as it was typed, quoted for a shell."""
    return shlex.join(["cbir", *sys.argv[1:]])
