"""Generates docs/cli.md from the commands: `python -m tools.cli_pages`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from cbir.cli.main import cli

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
WIDTH = 80

HEAD = """# Command line

`python -m tools.cli_pages` writes this page from `cbir COMMAND --help`; a test compares the two.
Data goes to standard output, progress and messages to standard error. Exit status: 0 success,
1 a reported error, 2 wrong usage.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *_sections(cli, "cbir")])


def _sections(
    command: click.Command, path: str, parent: click.Context | None = None
) -> Iterator[str]:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, info_name=path.split()[-1], parent=parent, **settings)
    yield f"## `{path}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _sections(inner, f"{path} {name}", context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
