"""`cbir train cnn`: trains a small convolutional network on labelled images."""

from __future__ import annotations

from pathlib import Path

import click

from cbir.cli.trained import training_options


@click.command(short_help="A small CNN, trained on labelled images.")
@click.option("--name", required=True, help="Name of the model.")
@click.option("--epochs", default=16, show_default=True, help="Passes over the images.")
@click.option(
    "--loss",
    default="cross-entropy",
    show_default=True,
    metavar="NAME",
    help="cross-entropy, or a metric loss: triplet-batch-all, triplet-batch-hard, "
    "triplet-batch-weighted, triplet-batch-sample, contrastive, supervised-contrastive, "
    "proxy-anchor, normalised-softmax.",
)
@click.option(
    "--loss-weight",
    type=float,
    metavar="W",
    show_default="0.5",
    help="Share of the metric loss in training the embedding, 0 to 1; the rest is cross-entropy.",
)
@training_options
def cnn(
    source: str,
    name: str,
    test: str | None,
    label_from_folder: bool,
    epochs: int,
    loss: str,
    loss_weight: float | None,
    licence: str | None,
    seed: int,
    out: Path | None,
) -> None:
    """Train the small CNN on a labelled SOURCE; use it with `cbir index --descriptor NAME`.

    A tenth of the images is a held-out split for choosing settings. After an interruption, the
    same command resumes after the last complete epoch.
    """
    from cbir.cli.output import progress_stages, say
    from cbir.cli.trained import keep
    from cbir.descriptors.about import NOT_STATED
    from cbir.descriptors.models import check_name
    from cbir.errors import CbirError
    from cbir.home import cbir_home
    from cbir.images.sources import open_source
    from cbir.registry import require_extra

    if loss == "cross-entropy" and loss_weight is not None:
        raise CbirError("--loss-weight needs a metric loss", "choose one with --loss")
    check_name(name, stored=out is None)
    opened = open_source(source, label_from_folder)
    tested = open_source(test, label_from_folder) if test else None
    require_extra("cbir train cnn", "train", "torch", "onnx", "onnxscript")
    from cbir.training.network.loop import TrainSettings
    from cbir.training.network.recipe import train_model

    checkpoint = cbir_home() / "training" / f"{name}.npz"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        with progress_stages() as on_stage:
            files = train_model(
                opened,
                name,
                epochs=epochs,
                seed=seed,
                loss=loss,
                loss_weight=TrainSettings.loss_weight if loss_weight is None else loss_weight,
                licence=licence or NOT_STATED,
                test=tested,
                checkpoint=checkpoint,
                say=say,
                on_stage=on_stage,
            )
    except KeyboardInterrupt:
        if checkpoint.exists():
            say("complete epochs are kept; the same command resumes")
        raise
    keep(files, out)
    checkpoint.unlink(missing_ok=True)
