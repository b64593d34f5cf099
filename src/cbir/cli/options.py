"""What several commands take in the same way."""

from __future__ import annotations

from pathlib import Path

import click


class _IndexPlace(click.types.StringParamType):
    """The place of an index; whoever forgets it is shown how to write it."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        del ctx
        return f"Say which index, for example: {param.opts[0]} photos.cbir"


INDEX = _IndexPlace()

descriptor_option = click.option(
    "--descriptor",
    metavar="NAME",
    help="What the index was built with, if it cannot be loaded by itself.",
)

metadata_option = click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Label each query as this CSV or JSONL file says, joined by id or path.",
)

expand_option = click.option(
    "--expand",
    type=click.IntRange(0),
    default=0,
    metavar="M",
    help="Average the query with its first M hits.",
)
