"""`cbir train cnn`: a small convolutional network, from labelled images."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="A small CNN, from labelled images.")
@click.argument("source", metavar="SOURCE")
@click.option("--name", required=True, help="What the model will be called.")
@click.option("--test", metavar="SOURCE", help="Labelled images to measure on, at the end.")
@click.option("--label-from-folder", is_flag=True, help="Label each image with its folder's name.")
@click.option("--epochs", default=16, show_default=True, help="Passes over the images.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything that is random.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the model here instead of the model store.",
)
def cnn(
    source: str,
    name: str,
    test: str | None,
    label_from_folder: bool,
    epochs: int,
    seed: int,
    out: Path | None,
) -> None:
    """Train the small CNN on a labelled SOURCE; use it with `cbir index --descriptor NAME`.

    A tenth of the images is held out to choose by. Interrupted, the same command goes on after
    the last whole epoch.
    """
    from cbir.cli.output import say
    from cbir.cli.trained import check_name, keep
    from cbir.errors import MissingExtraError
    from cbir.home import cbir_home
    from cbir.images.sources import open_source

    check_name(name, stored=out is None)
    opened = open_source(source, label_from_folder)
    tested = open_source(test, label_from_folder) if test else None
    try:
        from cbir.training.network.recipe import train_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("cbir train cnn", "train") from error
    checkpoints = cbir_home() / "training"
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoints / f"{name}.npz"
    files = train_model(
        opened,
        name,
        epochs=epochs,
        seed=seed,
        test=tested,
        checkpoint=checkpoint,
        say=say,
    )
    place = keep(files, out)
    checkpoint.unlink(missing_ok=True)
    click.echo(str(place))
