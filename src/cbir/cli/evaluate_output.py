"""The output files of `cbir evaluate`: values as CSV, and reports."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath

import click
import numpy as np
from numpy.typing import NDArray

from cbir.cli.output import progress_bar, say
from cbir.errors import CbirError, write_hint
from cbir.files import write_whole
from cbir.measures.trec import check_target

PerQuery = tuple[Mapping[str, str], Sequence[str], Mapping[str, NDArray[np.float64]]]


def short_names(places: Iterable[str]) -> list[str]:
    """The last part of each place, or the whole if last parts repeat.

    Raises `click.UsageError` if a place is given twice.
    """
    whole = list(places)
    twice = next((place for place in whole if whole.count(place) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{twice} is given twice")
    last = [PurePath(place).name for place in whole]
    return last if len(set(last)) == len(whole) else whole


def check_targets(per_query: Path | None, report: Path | None, places: Sequence[str] = ()) -> None:
    """Raise `CbirError` if one of the files cannot be written, before anything is measured.

    A report must not be inside one of the `places` (indexes and sources), because its plots would
    become images of the next evaluation.
    """
    if report is not None:
        from cbir.report.write import require_target

        require_target(report)
        for place in places:
            folder = Path(place)
            if folder.is_dir() and report.resolve().is_relative_to(folder.resolve()):
                raise CbirError(
                    f"the report folder {report} is inside {place}",
                    "choose a folder outside it",
                )
    if per_query is not None:
        check_target(per_query)


def write_per_query(target: Path, runs: Sequence[PerQuery]) -> None:
    """Write a CSV file with a row per query and a column per measure, whole or not at all.

    A run consists of its identifying columns (column -> value: its name, the protocol), query ids,
    and measure -> values, float64 (q,).
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*runs[0][0], "query", *runs[0][2]])
    for named, queries, per_query in runs:
        columns = [per_query[measure].tolist() for measure in runs[0][2]]
        for query, *values in zip(queries, *columns, strict=True):
            rows.writerow([*named.values(), query, *values])
    try:
        write_whole(target, text.getvalue().encode())
    except OSError as error:
        raise CbirError(
            f"cannot write {target}: {error.strerror or error}",
            write_hint(error, "choose another place"),
        ) from error


def write_page(write: Callable[[str], list[Path]]) -> None:
    """Call `write` with this command line to make a report, and print where its page is."""
    with progress_bar("writing the report"):
        written = write(shlex.join(["cbir", *sys.argv[1:]]))
    say(f"report: {written[0]}")
