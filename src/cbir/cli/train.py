"""`cbir train`: trains models on your own images."""

from __future__ import annotations

import click

from cbir.cli.train_bovw import bovw
from cbir.cli.train_cnn import cnn
from cbir.cli.train_compose import compose


@click.group(short_help="Train a model, or choose the weights of a composed descriptor.")
def command() -> None:
    """Train a model on your own images, or choose the weights of a composed descriptor.

    Use the result with `cbir index --descriptor NAME`.
    """


command.add_command(cnn)
command.add_command(bovw)
command.add_command(compose)
