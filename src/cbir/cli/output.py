"""Prints data to standard output, progress and messages to standard error."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from cbir.errors import CbirError
from cbir.wording import EscapedStream, counted, listed, one_line, plain_stream, shell_word

if TYPE_CHECKING:
    from rich.progress import Task

    from cbir.types import Failure, Note, OnDone, OnStage

SHOWN_FAILURES = 10
SHOWN_ROWS = 3
BAR_WIDTH = 24
"""Narrow enough that a line and a ^C fit in 80 columns."""


_BEYOND_ASCII = re.compile(r"[^\n -~]")


@contextmanager
def escaping_output() -> Iterator[None]:
    """Nothing that is printed reaches the terminal as control characters: names may contain any.

    Covers also what other libraries, warnings and tracebacks print. rich draws on `plain_stream`.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", EscapedStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def data_output() -> TextIO:
    """Standard output for data: unchanged in a file or a pipe, escaped in a terminal."""
    return sys.stdout if sys.stdout.isatty() else plain_stream(sys.stdout)


def say(message: str) -> None:
    """Print a line for the user on standard error."""
    click.echo(one_line(message), err=True)


def show(line: str) -> None:
    """Print a line, which may contain any name, on standard output."""
    click.echo(one_line(line))


def own_command() -> str:
    """How to call this program again: `cbir`, or its path if the shell would not find it."""
    called = Path(sys.argv[0])
    found = shutil.which("cbir")
    if called.stem != "cbir" or not called.is_file() or (found and called.samefile(found)):
        return "cbir"
    beside = os.path.relpath(called)
    return shell_word(str(called.absolute()) if beside.startswith("..") else beside)


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output, control characters as JSON's own escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(_BEYOND_ASCII.sub(_json_escaped, text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, padded with spaces, on standard output."""
    table = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def require_yes(question: str, otherwise: str) -> bool:
    """Ask on standard error; raises `CbirError` with the command `otherwise` if nobody is there."""
    if not sys.stdin.isatty():
        raise CbirError("this needs a yes", otherwise)
    return click.confirm(question, err=True)


def print_failures(failures: Sequence[Failure], sources: Mapping[str, str], index: str) -> None:
    """Print the first failures of an index on standard output; `sources`: names and URIs."""
    for failure in failures[:SHOWN_FAILURES]:
        _print_about(failure, failure.reason, sources)
    if len(failures) > SHOWN_FAILURES:
        click.echo(f"  ... for all of them: cbir info {shell_word(index)} --json")


def print_notes(notes: Sequence[Note], sources: Mapping[str, str]) -> None:
    """Print the first notes of an indexing run on standard output; `sources`: names and URIs."""
    for note in notes[:SHOWN_FAILURES]:
        _print_about(note, note.text, sources)
    if len(notes) > SHOWN_FAILURES:
        click.echo("  ... --json prints all of them")


def warn_of_rows(unused: Sequence[str]) -> None:
    """Say which ids or paths in metadata files belong to no image, if there are any."""
    if unused:
        shown = listed([repr(name) for name in unused], SHOWN_ROWS)
        say(f"warning: {counted(len(unused), 'metadata row')} matched no image: {shown}")


def _print_about(about: Failure | Note, text: str, sources: Mapping[str, str]) -> None:
    from cbir.cli.places import shown_place
    from cbir.images.sources import place_of

    place = place_of(sources[about.source], about.location)
    shown = shown_place(place) if place else f"{about.source}/{about.location}"
    show(f"  {shown}: {text}")


@contextmanager
def progress_stages(unit: str = "") -> Iterator[OnStage]:
    """A progress bar on standard error with rate and time left; yields a progress callback.

    The callback is `update(stage, done, total)`; a new stage replaces the bar of the old one. What
    follows a colon in `stage` may change without making it a new one.
    `unit` "MB" means that counts are bytes. Draws nothing if standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Pace(ProgressColumn):
        """Done, recent rate, time left (time taken if the total is unknown)."""

        def render(self, task: Task) -> Text:
            return Text(_pace(task, 1_000_000 if unit == "MB" else 1, unit))

    columns = (TextColumn("{task.description}", markup=False), BarColumn(BAR_WIDTH), Pace())
    console = Console(file=plain_stream(sys.stderr))
    # While it is drawn, rich prints what others write: that is escaped before.
    with Progress(*columns, console=console, transient=True) as progress, escaping_output():

        def update(stage: str, done: int, total: int | None) -> None:
            stage = one_line(stage)
            tasks = progress.tasks
            if not tasks or _stage_name(tasks[0].description) != _stage_name(stage):
                for old in progress.task_ids:
                    progress.remove_task(old)
                progress.add_task(stage, total=total)
            progress.update(progress.task_ids[0], completed=done, total=total, description=stage)

        yield update


@contextmanager
def progress_bar(title: str, unit: str = "") -> Iterator[OnDone]:
    """A progress bar for a single stage; yields the progress callback `update(done, total)`."""
    with progress_stages(unit) as update:
        update(title, 0, None)
        yield partial(update, title)


def _json_escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def _stage_name(stage: str) -> str:
    return stage.partition(":")[0]


def _pace(task: Task, scale: int, unit: str) -> str:
    total = "" if task.total is None else f" of {task.total / scale:,.0f}"
    counts = task.completed or task.total is not None
    words = [f"{task.completed / scale:,.0f}{total}{unit and f' {unit}'}"] if counts else []
    if task.speed:
        words.append(f"{task.speed / scale:,.{1 if scale > 1 else 0}f}{unit and f' {unit}'}/s")
    if task.total is None:
        words.append(f"{_clock(task.elapsed or 0)} so far")
    elif task.time_remaining is not None:
        words.append(f"{_clock(task.time_remaining)} left")
    return "  ".join(words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
