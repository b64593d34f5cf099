"""`cbir models`: lists, shows, fetches, adds and removes models."""

from __future__ import annotations

import click

from cbir.cli.models_add import add
from cbir.cli.models_list import list_models
from cbir.cli.models_pull import pull
from cbir.cli.models_remove import remove
from cbir.cli.models_show import show


@click.group()
def command() -> None:
    """List, show, fetch, add and remove models."""


for _part in (list_models, show, pull, add, remove):
    command.add_command(_part)
