"""`cbir train`: trains models on your own images."""

from __future__ import annotations

import click

from cbir.cli.train_bovw import bovw
from cbir.cli.train_cnn import cnn


@click.group(short_help="Train a model: a small CNN, or Bag of Visual Words.")
def command() -> None:
    """Train a model on your own images, then use it with `cbir index --descriptor NAME`."""


command.add_command(cnn)
command.add_command(bovw)
