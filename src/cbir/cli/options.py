"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click


class _IndexPlace(click.types.StringParamType):
    """The place of an index; the error for a missing one shows an example."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        del ctx
        return f"Name an index, for example: {param.opts[0]} photos.cbir"


INDEX = _IndexPlace()

descriptor_option = click.option(
    "--descriptor",
    metavar="NAME",
    help="The descriptor of the index, if it cannot be loaded automatically.",
)

metadata_option = click.option(
    "--metadata",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the labels of queries from this CSV or JSONL file, by id or path; may repeat.",
)

expand_option = click.option(
    "--expand",
    type=click.IntRange(0),
    default=0,
    metavar="M",
    help="Average the query with its first M hits.",
)
