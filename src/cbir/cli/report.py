"""`cbir evaluate --report DIR`: a page about what was measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cbir.cli.output import say

if TYPE_CHECKING:
    from cbir.experiment import Evaluation
    from cbir.report.runs import JudgedRun


def check_report(target: Path | None) -> None:
    """Raise `CbirError` where no report can be written to `target`, before anything is measured."""
    if target is not None:
        from cbir.report.write import require_target

        require_target(target)


def report_evaluations(
    target: Path,
    indexes: Sequence[str],
    evaluations: Sequence[Evaluation],
    descriptor: str | None,
    comparisons: Sequence[Mapping[str, Any]],
) -> None:
    """Write the report of each evaluation and say where it is.

    Those of several indexes lie in a numbered folder each, all with the `comparisons`.
    """
    from contextlib import closing

    from cbir.report.write import write_report
    from cbir.search import Searcher

    for number, (index, evaluation) in enumerate(zip(indexes, evaluations, strict=True), 1):
        own = target if len(indexes) == 1 else target / f"{number}-{PurePath(index).name}"
        with closing(Searcher.open(index, descriptor)) as searcher:
            written = write_report(
                own,
                evaluation,
                searcher,
                command=_command_line(),
                comparisons=comparisons,
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
